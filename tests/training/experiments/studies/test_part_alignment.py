"""Fields made by hand, and the metrics pair by pair."""

import itertools
import types

import keras
import numpy as np
import pytest

from keras_attn.pipelines.generated.dataset import generated_source
from keras_attn.training.experiments.studies import part_alignment
from keras_attn.training.experiments.studies.part_alignment import (
    best_groups,
    centres_in_cells,
    pair_table,
    shown_by,
    summary,
)
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.run import Run

HEIGHT, WIDTH, PARTS = 7, 9, 3
GRID = np.stack(np.mgrid[:HEIGHT, :WIDTH], axis=-1)


@pytest.fixture
def centres():
    """Of six images of two classes; one part is not seen in one of them."""
    random = np.random.default_rng(0)
    centres = random.uniform(0, (HEIGHT - 1, WIDTH - 1), (6, PARTS, 2))
    centres[4, 1] = np.nan
    return centres


LABELS = np.array([0, 1, 0, 0, 1, 1])


def fields_by(sources, count=6):
    """Fields of one group with given sources `(count, H, W, 2)`."""
    return np.broadcast_to(sources - GRID, (count, HEIGHT, WIDTH, 2))[:, :, :, None]


def pairs(labels):
    for n, m in itertools.combinations(range(len(labels)), 2):
        if labels[n] == labels[m]:
            yield n, m


def measured(fields, centres, labels=LABELS):
    table = pair_table(fields, centres, labels)
    return summary(table, best_groups(table))


def slowly(fields, centres, labels):
    """Every metric cell by cell, for one group: distance, spread, other."""

    def cells_of(n, p):
        found = {}
        for i in np.ndindex(HEIGHT, WIDTH):
            dy, dx = np.abs(i + fields[n][i][0] - centres[n, p])
            if dy < 1 and dx < 1:
                found[i] = (1 - dy) * (1 - dx)
        if not found:
            apart = {
                i: np.hypot(*(i + fields[n][i][0] - centres[n, p]))
                for i in np.ndindex(HEIGHT, WIDTH)
            }
            found = {min(apart, key=apart.get): 1.0}
        total = sum(found.values())
        return {i: weight / total for i, weight in found.items()}

    def spread(first, second):
        return sum(
            a * b * np.hypot(i[0] - j[0], i[1] - j[1])
            for i, a in first.items()
            for j, b in second.items()
        )

    def mean(cells):
        return sum(weight * np.array(i) for i, weight in cells.items())

    result = []
    for p in range(PARTS):
        distances, same, other = [], [], []
        for n, m in pairs(labels):
            for q in range(PARTS):
                seen = not np.isnan(centres[[n, m], [p, q]]).any()
                if seen and q == p:
                    first, second = cells_of(n, p), cells_of(m, p)
                    distances.append(np.hypot(*(mean(first) - mean(second))))
                    same.append(spread(first, second))
                elif seen:
                    other.append(spread(cells_of(n, p), cells_of(m, q)))
                if q != p and not np.isnan(centres[[m, n], [p, q]]).any():
                    other.append(spread(cells_of(m, p), cells_of(n, q)))
        result.append([np.mean(distances), np.mean(same), np.mean(other)])
    return np.array(result)


def test_equals_pair_by_pair(centres):
    random = np.random.default_rng(1)
    fields = random.uniform(-2, 2, (6, HEIGHT, WIDTH, 2, 2))
    table = pair_table(fields, centres, LABELS)
    for group in (0, 1):
        wanted = slowly(fields[..., group : group + 1, :], centres, LABELS)
        for column, name in enumerate(("distance", "spread", "other")):
            np.testing.assert_allclose(table[name][:, group], wanted[:, column])


def test_without_a_field_parts_are_where_they_are(centres):
    weights, cells = shown_by(np.zeros((6, HEIGHT, WIDTH, 1, 2)), centres)
    means = weights[:, :, 0] @ GRID.reshape(-1, 2)
    seen = ~np.isnan(centres[..., 0])
    np.testing.assert_allclose(means[seen], centres[seen])
    assert not weights[4, 1].any() and (cells[seen] == 4).all()
    wanted = [
        np.hypot(*(centres[n, p] - centres[m, p]))
        for p in range(PARTS)
        for n, m in pairs(LABELS)
        if not np.isnan(centres[[n, m], p]).any()
    ]
    # All parts count the same, though one of them has fewer pairs.
    means = [np.mean(part) for part in (wanted[:6], wanted[6:10], wanted[10:])]
    found = measured(np.zeros((6, HEIGHT, WIDTH, 1, 2)), centres)
    assert found["part_distance"] == pytest.approx(np.mean(means))
    assert found["part_cells"] == pytest.approx(100 * 4 / 63)
    assert found["part_shown"] == 100.0


def test_fields_that_undo_each_instance_put_parts_in_one_place():
    """The object of every image is moved; the field moves it back."""
    random = np.random.default_rng(2)
    canonical = np.array([[2.0, 3.0], [4.0, 5.0], [3.0, 2.0]])
    offsets = random.integers(-2, 3, (6, 1, 2))
    centres = canonical + offsets
    fields = np.broadcast_to(offsets[:, None, None], (6, HEIGHT, WIDTH, 1, 2))
    before = measured(np.zeros_like(fields), centres)
    assert before["part_distance"] > 1.0 and before["part_ratio"] > 0.5
    after = measured(fields, centres)
    for name in ("part_distance", "part_spread", "part_ratio"):
        assert after[name] == after[f"{name}_best_group"] == 0.0
    assert after["part_shown"] == 100.0
    assert after["part_cells"] == pytest.approx(100 / 63)


def test_collapse_is_not_rewarded(centres):
    before = measured(np.zeros((6, HEIGHT, WIDTH, 1, 2)), centres)
    # Every output cell shows the first part.
    found = measured(fields_by(centres[:, 0][:, None, None]), centres)
    table = pair_table(fields_by(centres[:, 0][:, None, None]), centres, LABELS)
    assert table["distance"][0, 0] == pytest.approx(0.0)
    assert table["cells"][0, 0] == 1.0
    assert table["spread"][0, 0] > 3.0
    assert found["part_shown"] < 50.0
    # All shrunk towards the middle: the ratio stays what it was.
    small = fields_by((GRID - [3, 4]) * 2 + [3, 4])
    inner = centres / 2 + np.array([3, 4]) / 2
    shrunk = measured(small, inner)
    assert shrunk["part_distance"] < 0.7 * before["part_distance"]
    assert shrunk["part_ratio"] > 0.8 * before["part_ratio"]


def test_everything_in_one_place_is_chance():
    one = np.broadcast_to([3.0, 4.0], (6, PARTS, 2))
    found = measured(np.zeros((6, HEIGHT, WIDTH, 1, 2)), one)
    assert found["part_distance"] == 0.0 and found["part_ratio"] == 1.0


def test_the_best_group_is_chosen_for_every_part():
    canonical = np.array([[2.0, 3.0], [4.0, 5.0], [3.0, 2.0]])
    random = np.random.default_rng(3)
    offsets = random.integers(-2, 3, (6, PARTS, 2))
    # Group g undoes what happened to part g, and to no other.
    fields = np.broadcast_to(offsets[:, None, None], (6, HEIGHT, WIDTH, PARTS, 2))
    table = pair_table(fields, canonical + offsets, LABELS)
    assert best_groups(table).tolist() == [0, 1, 2]
    found = summary(table, best_groups(table))
    assert found["part_distance_best_group"] == 0.0 < found["part_distance"]
    assert found["part_ratio_best_group"] == 0.0 < found["part_ratio"]


def test_centres_are_where_cells_are():
    boxes = np.array([[0, 0, 4, 8], [8, 8, 16, 16], [30, 0, 32, 2], [-1, -1, -1, -1]])
    found = centres_in_cells(boxes, (32, 64), (8, 8))
    np.testing.assert_allclose(found[:3], [[0, 0], [2.5, 1], [7, 0]])
    assert np.isnan(found[3]).all()


def test_parts_that_are_never_seen_are_an_error(centres):
    centres[:, 1] = np.nan
    with pytest.raises(ValueError, match=r"two images of some class.*\[6, 0, 6\]"):
        pair_table(np.zeros((6, HEIGHT, WIDTH, 1, 2)), centres, LABELS)


def test_study_of_rows_with_and_without_fields(tmp_path, monkeypatch):
    source = generated_source(80, 32, num_classes=3)
    images = keras.Input((32, 32, 3))
    x = keras.layers.AveragePooling2D(4, name="features")(images)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    fields = keras.layers.Reshape((8, 8, 1, 2))(0.0 * x[..., :2])
    models = {
        "none": keras.Model(images, {"logits": pooled}),
        "still": keras.Model(images, {"logits": pooled, "fields": fields}),
        "moved": keras.Model(images, {"logits": pooled, "fields": fields + 3.0}),
    }
    recipe = Recipe(name="x", examples=80)
    runs = {label: Run.create(tmp_path / label, recipe) for label in models}
    monkeypatch.setattr(
        part_alignment,
        "load_trained",
        lambda folder, _: types.SimpleNamespace(model=models[folder.name]),
    )
    lines = part_alignment.study(runs, dict.fromkeys(runs, source))
    found = {label: {} for label in runs}
    for label, metric, value, _ in lines:
        found[label][metric] = value
    assert found["none"] == pytest.approx(found["still"])
    assert found["none"]["part_distance"] > 1.0
    assert found["none"]["part_shown"] == 100.0 > found["moved"]["part_shown"]
    del source.annotations["part_boxes"]
    with pytest.raises(ValueError, match="'part_boxes' known"):
        list(part_alignment.study(runs, dict.fromkeys(runs, source)))
