"""Figure 5: sampled cells, the measure of neighbours, the picture."""

import sys
import types

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.layers import ClassEmbedding
from keras_attn.training.experiments import features


def slow_same_class_neighbours(points, labels, images, neighbours):
    """A loop over cells."""
    points = np.asarray(points, "float64")
    points = (points - points.mean(0)) / points.std(0)
    hits = []
    for cell, point in enumerate(points):
        others = [
            (np.linalg.norm(point - points[other]), labels[other])
            for other in range(len(points))
            if images[other] != images[cell]
        ]
        others.sort(key=lambda pair: pair[0])
        hits += [label == labels[cell] for _, label in others[:neighbours]]
    return 100.0 * np.mean(hits)


def test_neighbours_equal_a_loop_over_cells():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 12)
    images = np.repeat(np.arange(18), 2)
    points = generator.normal(size=(36, 5)) * [1, 10, 0.1, 1, 1]
    points[:, 0] += labels
    for neighbours in (1, 4, 10):
        found = features.same_class_neighbours(points, labels, images, neighbours)
        wanted = slow_same_class_neighbours(points, labels, images, neighbours)
        assert found == pytest.approx(wanted)
    assert 34 < found < 100


def test_neighbours_in_the_same_image_do_not_count():
    # Two cells of each image lie together, far from everything of its class.
    points = np.repeat([[0.0], [1.0], [10.0], [11.0]], 2, axis=0)
    images = np.repeat(np.arange(4), 2)
    labels = np.repeat([0, 1, 0, 1], 2)
    assert features.same_class_neighbours(points, labels, images, 2) == 0.0
    assert features.same_class_neighbours(points, labels // 9, images, 2) == 100.0


def test_chance_and_perfection():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 120)
    images = np.arange(1200)
    noise = generator.normal(size=(1200, 8))
    assert features.same_class_neighbours(noise, labels, images) == pytest.approx(
        10.0, abs=1.5
    )
    sorted_points = noise + 100.0 * np.eye(10)[labels][:, :8]
    sorted_points[:, 0] += 50.0 * labels
    assert features.same_class_neighbours(sorted_points, labels, images) > 99.9


def test_a_constant_channel_is_no_trouble():
    points = features.standardized(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_array_equal(points, [[-1.0, 0.0], [1.0, 0.0]])


def network(block):
    """`stage3` shows the image's pixels, so cells can be recognised."""
    images = keras.Input((4, 5, 3))
    x = layers.Identity(name="stage3")(images)
    outputs = {}
    if block:
        found = ClassEmbedding(3, filters=6, name="class_embedding")(x)
        x, outputs["patch_logits"] = found["features"], found["patch_logits"]
    x = layers.GlobalAveragePooling2D()(x)
    outputs["logits"] = layers.Dense(3)(x)
    return keras.Model(images, outputs)


def run_of(model):
    return types.SimpleNamespace(load_model=lambda which: {"last": model}[which])


def examples(count=12):
    """Cell c of image i has the values (i, c, label)."""
    labels = np.arange(count) % 3
    images = np.zeros((count, 4, 5, 3), "float32")
    images[..., 0] = np.arange(count)[:, None, None]
    images[..., 1] = np.arange(20).reshape(4, 5)
    images[..., 2] = labels[:, None, None]
    return images, labels


def test_cells_are_sampled_with_their_class_and_image(monkeypatch):
    monkeypatch.setattr(features, "IMAGES_PER_CLASS", 3)
    (cells,) = features.sampled_cells(run_of(network(False)), examples())
    assert cells.features.shape == (3 * 3 * features.CELLS_PER_IMAGE, 3)
    number, place, label = cells.features.astype(int).T
    np.testing.assert_array_equal(label, cells.labels)
    np.testing.assert_array_equal(number % 3, cells.labels)
    assert len(set(zip(number, place, strict=True))) == len(cells.features)
    assert set(np.bincount(cells.images)) == {features.CELLS_PER_IMAGE}
    assert len(set(zip(number, cells.images, strict=True))) == 9
    assert len(set(place)) > 10


def test_a_block_adds_its_output_at_the_same_cells():
    model = network(True)
    before, after = features.sampled_cells(run_of(model), examples())
    assert (before.place, after.place) == ("stage3 output", "block output")
    wanted = model.get_layer("class_embedding")(examples()[0])["features"]
    number, place = before.features[:, :2].astype(int).T
    wanted = keras.ops.convert_to_numpy(wanted).reshape(12, 20, 6)[number, place]
    np.testing.assert_allclose(after.features, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(before.labels, after.labels)
    (again,) = features.sampled_cells(run_of(network(False)), examples())
    np.testing.assert_array_equal(again.features, before.features)


def test_a_network_without_the_stage_is_an_error():
    model = keras.Sequential([keras.Input((4, 5, 3)), layers.ReLU(name="relu")])
    with pytest.raises(ValueError, match="layer named 'stage3'.*relu"):
        features.sampled_cells(run_of(model), examples())


def test_the_projection_keeps_what_lies_apart_apart():
    pytest.importorskip("sklearn")
    from threadpoolctl import threadpool_limits

    generator = np.random.default_rng(0)
    points = generator.normal(size=(40, 60))
    points[20:, :30] += 8.0
    # The threads of t-SNE wait for each other by spinning, which a busy machine feels.
    with threadpool_limits(1):
        found = features.projected(points)
        np.testing.assert_array_equal(features.projected(points), found)
    assert found.shape == (40, 2)
    centres = found[:20].mean(0), found[20:].mean(0)
    distances = [np.linalg.norm(found - centre, axis=1) for centre in centres]
    np.testing.assert_array_equal(distances[0] > distances[1], np.arange(40) >= 20)


def test_the_picture_has_a_panel_for_every_place(monkeypatch):
    monkeypatch.setattr(features, "projected", lambda points: points[:, :2])
    runs = {"base": run_of(network(False)), "block": run_of(network(True))}
    figure, notes = features.tsne_figure(runs, examples(), ["x", "y", "z"])
    assert len(figure.axes) == len(notes) == 3
    for axes, note, place in zip(
        figure.axes, notes, ["stage3", "stage3", "block output"], strict=True
    ):
        assert place in axes.get_title() and place in note
        assert sum(len(part.get_offsets()) for part in axes.collections) == 48
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["x", "y", "z"]
    cells = features.sampled_cells(runs["block"], examples())[1]
    share = features.same_class_neighbours(cells.features, cells.labels, cells.images)
    assert f"{share:.2f} %" in notes[2]


def test_scikit_learn_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-attn\[figures\]'"):
        features.require_scikit_learn()
