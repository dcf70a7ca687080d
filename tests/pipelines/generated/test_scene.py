import dataclasses

import numpy as np

from keras_attn.pipelines.generated.dataset import generate
from keras_attn.pipelines.generated.scene import difficulty_ranges, draw_scene
from keras_attn.pipelines.generated.shapes import class_table


def test_every_range_grows_with_difficulty():
    steps = [
        dataclasses.asdict(difficulty_ranges(d)) for d in np.linspace(0, 1, 21).tolist()
    ]
    for name in steps[0]:
        values = [step[name] for step in steps]
        expected = sorted(values, reverse=name == "smallest")
        assert values == expected, name
        assert values[0] != values[-1], name


def test_part_boxes_are_tight_around_the_pixels_of_each_part():
    data = generate(20, image_size=41, difficulty=0.8, seed=11)
    table, ranges = class_table(10), difficulty_ranges(0.8)
    for i, label in enumerate(data.labels):
        rng = np.random.default_rng((11, 0, i))
        image, owner = draw_scene(rng, 41, table, label, ranges)
        np.testing.assert_array_equal(image, data.images[i])
        np.testing.assert_array_equal(owner > 0, data.masks[i])
        for part in range(5):
            places = np.argwhere(owner == part + 1)
            box = [-1] * 4
            if len(places):
                box = [*places.min(axis=0), *(places.max(axis=0) + 1)]
            np.testing.assert_array_equal(data.part_boxes[i, part], box)


def test_occlusion_hides_a_piece_of_the_object_only():
    plain = difficulty_ranges(0.5)
    table = class_table(10)
    hidden = []
    for i in range(12):
        visible = [
            draw_scene(
                np.random.default_rng(i),
                48,
                table,
                i % 10,
                dataclasses.replace(plain, occlusion=probability),
            )[1]
            for probability in (0.0, 1.0)
        ]
        kept = visible[1] > 0
        assert (visible[0][kept] == visible[1][kept]).all()
        hidden.append(1 - kept.sum() / (visible[0] > 0).sum())
    assert 0.03 < np.mean(hidden) < 0.4 and max(hidden) < 0.6


def test_distractors_lie_behind_the_object_and_belong_to_no_part():
    few = difficulty_ranges(0.5)
    many = dataclasses.replace(few, distractors=0)
    table = class_table(10)
    changed = []
    for i in range(10):
        # Distractors are drawn after the object is placed, so both scenes agree on it.
        images, owners = zip(
            *(
                draw_scene(np.random.default_rng(i), 48, table, i, ranges)
                for ranges in (few, many)
            ),
            strict=True,
        )
        np.testing.assert_array_equal(owners[0] > 0, owners[1] > 0)
        changed.append((images[0] != images[1])[owners[0] == 0].mean())
    assert np.mean(changed) > 0.05
