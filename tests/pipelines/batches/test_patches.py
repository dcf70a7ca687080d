"""Localised patches: no cache is reused by mistake, the pixels are the boxes'."""

import hashlib
import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_attn.ops.patches import branch_decision, crop_patches, localize_patches
from keras_attn.pipelines.batches import patches
from keras_attn.pipelines.batches.patches import (
    best_patch_batches,
    localized_boxes,
    patch_batches,
)
from keras_attn.pipelines.images.streaming import StreamedImages
from keras_attn.pipelines.sources import load_source
from keras_attn.preprocessing import ImageSpec
from keras_attn.version import __version__

HEIGHT, WIDTH, EXAMPLES = 23, 19, 13
SIZES = (5, 9)
STRIDE = 4


class Select(keras.layers.Layer):
    """The decision and the patches of the deciding branch, as plainly as can be."""

    def __init__(self, max_patches=6, iou_threshold=0.1, **kwargs):
        super().__init__(**kwargs)
        self.max_patches, self.iou_threshold = max_patches, iou_threshold

    def call(self, outputs):
        ops = keras.ops
        logits = ops.stack([outputs[f"logits_{size}"] for size in SIZES], axis=1)
        label, branch = branch_decision(logits)
        found = []
        for size in SIZES:
            evidence = ops.take_along_axis(
                outputs[f"evidence_{size}"], label[:, None, None, None], axis=-1
            )[..., 0]
            found.append(
                localize_patches(
                    evidence, size, self.max_patches, self.iou_threshold, stride=STRIDE
                )
            )
        second = ops.equal(branch, 1)
        result = {
            name: ops.where(
                ops.reshape(second, (-1,) + (1,) * (len(found[0][name].shape) - 1)),
                found[1][name],
                found[0][name],
            )
            for name in found[0]
        }
        return {**result, "label": label, "branch": branch}

    def get_config(self):
        config = {"max_patches": self.max_patches, "iou_threshold": self.iou_threshold}
        return {**super().get_config(), **config}


def make_localizer(activation="linear"):
    keras.utils.set_random_seed(1)
    images = keras.Input((HEIGHT, WIDTH, 3), name="images")
    scaled = keras.layers.Rescaling(1 / 128, -1, name="scaled")(images)
    outputs = {}
    for size in SIZES:
        evidence = keras.layers.Conv2D(
            4, size, STRIDE, activation=activation, name=f"evidence_{size}"
        )(scaled)
        outputs[f"evidence_{size}"] = evidence
        mean = keras.layers.GlobalAveragePooling2D(name=f"logits_{size}")
        outputs[f"logits_{size}"] = mean(evidence)
    return keras.Model(images, outputs, name="localizer")


def pictures(seed=0):
    shape = (EXAMPLES, HEIGHT, WIDTH, 3)
    images = np.random.default_rng(seed).integers(1, 256, shape).astype("uint8")
    # A label for each image, so that it tells the image.
    return images, np.arange(EXAMPLES, dtype="int32")


@pytest.fixture(scope="module")
def localizer():
    return make_localizer()


@pytest.fixture
def predictions(monkeypatch):
    """Grows with every call of `predict`, which here saves the time to compile."""
    calls = []

    def predict(model, batches, verbose=0):
        calls.append(model)
        found = [model(images.numpy(), training=False) for images, _ in batches]
        return {
            name: np.concatenate([keras.ops.convert_to_numpy(f[name]) for f in found])
            for name in found[0]
        }

    monkeypatch.setattr(keras.Model, "predict", predict)
    return calls


def assert_equal(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_boxes_are_those_of_the_layer_on_all_images_at_once(localizer, tmp_path):
    images, labels = pictures()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = localized_boxes(localizer, Select(), images, labels, tmp_path, 4)
    wanted = Select()(localizer(images, training=False))
    wanted = {name: keras.ops.convert_to_numpy(v) for name, v in wanted.items()}
    scores = wanted.pop("scores")
    np.testing.assert_allclose(found["scores"], scores, atol=1e-5)
    assert_equal({k: v for k, v in found.items() if k != "scores"}, wanted)
    assert found["boxes"].dtype == np.int32 and found["valid"].dtype == bool
    # Both branches are put to the test.
    assert set(found["branch"]) == {0, 1} and not found["valid"].all()


def test_the_second_time_nothing_is_computed(localizer, tmp_path, predictions):
    images, labels = pictures()
    done = []
    progress = lambda *counts: done.append(counts)  # noqa: E731
    first, second = (
        localized_boxes(
            localizer, Select(name=name), images, labels, tmp_path, size, progress
        )
        for name, size in (("one", 4), ("other", 5))
    )
    assert_equal(second, first)
    assert len(predictions) == 1 and done == [(EXAMPLES, EXAMPLES)]


def test_every_change_gives_another_key(localizer):
    images, labels = pictures()
    key = patches.cache_key(localizer, Select(), images, labels)
    assert key == patches.cache_key(make_localizer(), Select(), *pictures())

    other_weights = make_localizer()
    weight = other_weights.weights[-1]
    weight.assign(np.asarray(weight) + np.float32(1e-7))
    changed_image = images.copy()
    changed_image[7, 3, 2, 1] ^= 1
    changed_label = labels.copy()
    changed_label[2] += 1
    changes = [
        (other_weights, Select(), images, labels),
        (make_localizer("relu"), Select(), images, labels),
        (localizer, Select(max_patches=7), images, labels),
        (localizer, Select(iou_threshold=0.51), images, labels),
        (localizer, Select(), changed_image, labels),
        (localizer, Select(), images[::-1], labels),
        (localizer, Select(), images[:-1], labels[:-1]),
        (localizer, Select(), images, changed_label),
        (localizer, Select(), images, labels.astype("int64")),
    ]
    keys = {patches.cache_key(*change) for change in changes}
    assert len(keys) == len(changes) and key not in keys


def test_another_version_or_backend_gives_another_key(localizer, monkeypatch):
    images, labels = pictures()
    keys = {patches.cache_key(localizer, Select(), images, labels)}
    with monkeypatch.context() as patch:
        patch.setattr(patches, "__version__", "another")
        keys.add(patches.cache_key(localizer, Select(), images, labels))
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "another")
        keys.add(patches.cache_key(localizer, Select(), images, labels))
    assert len(keys) == 3


def test_an_interrupted_computation_resumes(
    localizer, tmp_path, monkeypatch, predictions
):
    images, labels = pictures()
    wanted = localized_boxes(localizer, Select(), images, labels, tmp_path / "a")
    monkeypatch.setattr(patches.PatchCache, "SHARD", 4)

    def interrupt(done, total):
        if done == 8:
            raise KeyboardInterrupt

    arguments = (localizer, Select(), images, labels, tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        localized_boxes(*arguments, progress=interrupt)
    (folder,) = (tmp_path / "b").iterdir()
    assert len(list(folder.glob("*.npz"))) == 2
    del predictions[:]
    found = localized_boxes(*arguments)
    assert len(predictions) == 2
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)


def test_the_key_is_that_of_earlier_versions(localizer):
    """So that boxes which they computed are found; as commit a8c9ace computed it."""
    images, labels = pictures()
    config = Select().get_config()
    del config["name"]
    settings = json.dumps(config, sort_keys=True, default=str)
    digest = hashlib.sha256(
        "\n".join(
            [
                *(__version__, keras.__version__, keras.backend.backend()),
                *(localizer.to_json(), "Select", settings),
            ]
        ).encode()
    )
    for array in (*map(np.asarray, localizer.weights), labels, images):
        digest.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    key = patches.cache_key(localizer, Select(), images, labels)
    assert key == digest.hexdigest()[:32]


def test_boxes_of_an_earlier_version_are_read(localizer, tmp_path, predictions):
    images, labels = pictures()
    arguments = (localizer, Select(), images, labels, tmp_path)
    wanted = localized_boxes(*arguments)
    # Commit a8c9ace wrote the same files without a description.
    next(tmp_path.glob("*/patches.json")).unlink()
    del predictions[:]
    assert_equal(localized_boxes(*arguments), wanted)
    assert not predictions and list(tmp_path.glob("*/patches.json"))


def test_half_written_and_damaged_files_are_not_used(
    localizer, tmp_path, monkeypatch, predictions
):
    images, labels = pictures()
    arguments = (localizer, Select(), images, labels, tmp_path)
    wanted = localized_boxes(*arguments)
    (path,) = tmp_path.glob("*/*.npz")
    data = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    wrong = {**arrays, "boxes": arrays["boxes"].astype("float64")}
    fewer = {name: array[:-1] for name, array in arrays.items()}

    def save(**arrays):
        return lambda: np.savez(path, **arrays)

    for damage in (
        lambda: path.write_bytes(data[: len(data) // 2]),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(data[:300] + b"\xff" + data[301:]),
        save(**wrong),
        save(**fewer),
        save(boxes=arrays["boxes"]),
    ):
        damage()
        del predictions[:]
        assert_equal(localized_boxes(*arguments), wanted)
        assert len(predictions) == 1

    # What is left of a process that was killed while it wrote has another name.
    def killed(file, **arrays):
        file.write(data[:100])
        raise OSError(28, "No space left on device")

    path.unlink()
    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(ValueError, match="Expected to write .*No space left"):
        localized_boxes(*arguments)
    assert [file.name for file in tmp_path.glob("*/*")] == ["patches.json"]


def test_streamed_images_have_the_same_boxes(localizer, tmp_path, predictions):
    images, labels = pictures()
    for image, label in zip(images, labels, strict=True):
        folder = tmp_path / "photos" / f"{label:02}"
        folder.mkdir(parents=True)
        Image.fromarray(image).save(folder / "0.png")
    source = load_source("folder", tmp_path / "photos")
    streamed = StreamedImages(source, ImageSpec(HEIGHT, WIDTH))
    wanted = localized_boxes(localizer, Select(), images, labels, tmp_path / "a")
    found = localized_boxes(localizer, Select(), streamed, labels, tmp_path / "b")
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)
    key = patches.cache_key(localizer, Select(), streamed, labels)
    assert key == next((tmp_path / "b").iterdir()).name
    Image.fromarray(images[3][::-1]).save(tmp_path / "photos" / "02" / "0.png")
    assert key != patches.cache_key(localizer, Select(), streamed, labels)
    # Both sizes have a last batch that is not full.
    boxes = np.array([boxes_at([(1, i % 5)], 5 + 4 * (i % 2)) for i in range(11)])
    both = [
        list(best_patch_batches(given[3:-1], labels[3:-1], boxes[:9], 2))
        for given in (streamed, images)
    ]
    for found_batch, wanted_batch in zip(*both, strict=True):
        for one, other in zip(found_batch, wanted_batch, strict=True):
            np.testing.assert_array_equal(one, other)
    batches = best_patch_batches(streamed, labels, wanted["boxes"], 3)
    assert len(batches) == len(list(batches))
    assert_same(
        epochs_of(streamed[3:], labels[3:], wanted["boxes"][3:]),
        epochs_of(images[3:], labels[3:], wanted["boxes"][3:]),
    )


def test_images_without_labels_are_an_error(localizer, tmp_path):
    images, labels = pictures()
    with pytest.raises(ValueError, match="13 images, 12 labels"):
        localized_boxes(localizer, Select(), images, labels[1:], tmp_path)


def boxes_at(places, size, count=5):
    """Boxes of one size at these corners, then absent ones."""
    rows = [(y, x, y + size, x + size) for y, x in places]
    return rows + [(-1,) * 4] * (count - len(rows))


@pytest.fixture(scope="module")
def boxes():
    """1 to 5 boxes per image; sizes 5 (8 images) and 9 (4 images); one without."""
    random = np.random.default_rng(5)
    found = []
    for i in range(EXAMPLES):
        size = 9 if i % 3 == 1 else 5
        places = random.permutation((HEIGHT - size) * (WIDTH - size))[: 1 + i % 5]
        places = [divmod(place, WIDTH - size) for place in places if i != 6]
        found.append(boxes_at(places, size))
    return np.array(found, "int32")


def epochs_of(images, labels, boxes, initial_epoch=0, **options):
    dataset = patch_batches(images, labels, boxes, 6, 3, 4, initial_epoch, 3, **options)
    return [(found.numpy(), numbers.numpy()) for found, numbers in dataset]


def assert_same(found, wanted):
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def place_of(patch, image, boxes):
    """The number of the box that a patch shows, and whether it is mirrored."""
    for number, (y0, x0, y1, x1) in enumerate(boxes):
        for mirrored, shown in enumerate((patch, patch[:, ::-1])):
            if y1 > y0 and np.array_equal(image[y0:y1, x0:x1], shown):
                return number, mirrored
    raise AssertionError("a patch that is no slice of its image")


def test_patches_are_slices_with_their_labels(boxes):
    images, labels = pictures()
    found = epochs_of(images, labels, boxes)
    steps = patches.patch_steps_per_epoch(boxes, 6, 3)
    assert steps == 8 // 2 + 4 // 2 and len(found) == 4 * steps
    mirrored, orders = [], []
    for epoch in range(4):
        shown = []
        for batch, numbers in found[epoch * steps : (epoch + 1) * steps]:
            assert batch.dtype == np.uint8 and len(batch) == len(numbers) == 6
            assert batch.shape[1:] in ((5, 5, 3), (9, 9, 3))
            for i in (0, 3):
                (label,) = set(numbers[i : i + 3].tolist())
                places = [
                    place_of(p, images[label], boxes[label]) for p in batch[i:][:3]
                ]
                mirrored += [mirror for _, mirror in places]
                # All of an image's boxes before any of them again.
                present = (boxes[label, :, 2] > 0).sum()
                assert len({number for number, _ in places}) == min(3, present)
                shown.append((label, *(number for number, _ in places)))
        assert {label for label, *_ in shown} == set(range(EXAMPLES)) - {6}
        assert len(shown) == EXAMPLES - 1
        orders.append(shown)
    assert len({tuple(order) for order in orders}) == 4
    assert 0.35 < np.mean(mirrored) < 0.65
    # The sizes take turns in no fixed order.
    turns = {tuple(len(b[0]) for b, _ in found[e * steps :][:steps]) for e in range(4)}
    assert len(turns) > 1


def test_the_last_batch_of_a_size_is_filled_up(boxes):
    images, labels = pictures()
    kept = [0, 1, 2, 4]
    dataset = patch_batches(images[kept], labels[kept], boxes[kept], 6, 0, 1, 0, 2)
    seen = [label for _, numbers in dataset for label in numbers[::2].numpy()]
    # Three images in a batch of two of size 5, and of two of size 9.
    assert sorted(set(seen)) == kept and len(seen) == 6
    alone = patch_batches(images[:1], labels[:1], boxes[:1], 6, 0, 1, 0, 2)
    assert [numbers.numpy().tolist() for _, numbers in alone] == [[0] * 6]


def test_resuming_at_an_epoch_gives_what_would_have_come(boxes):
    images, labels = pictures()
    whole = epochs_of(images, labels, boxes)
    for epoch in (1, 3):
        rest = epochs_of(images, labels, boxes, initial_epoch=epoch)
        assert_same(rest, whole[6 * epoch :])
    other = patch_batches(images, labels, boxes, 6, 4, 1, 0, 3)
    assert any(
        not np.array_equal(numbers, wanted)
        for (_, numbers), (_, wanted) in zip(other, whole[:6], strict=True)
    )


def test_without_mirroring(boxes):
    images, labels = pictures()
    for batch, numbers in epochs_of(images, labels, boxes, flip=False):
        for patch, label in zip(batch, numbers, strict=True):
            assert place_of(patch, images[label], boxes[label])[1] == 0


def test_one_size_is_known_before_the_first_batch(boxes):
    images, labels = pictures()
    small = (boxes[:, 0, 2] - boxes[:, 0, 0]) == 5
    spec = patch_batches(images[small], labels[small], boxes[small], 6, 0, 1, 0, 3)
    assert spec.element_spec[0].shape[1:] == (5, 5, 3)
    spec = patch_batches(images, labels, boxes, 6, 0, 1, 0, 3).element_spec
    assert spec[0].shape[1:].as_list() == [None, None, 3]


def test_the_best_patch_of_every_image(boxes):
    images, labels = pictures()
    found = list(best_patch_batches(images, labels, boxes, 3))
    assert [len(numbers) for _, numbers in found] == [3, 3, 2, 3, 1]
    seen = []
    for batch, numbers in found:
        for patch, label in zip(batch.numpy(), numbers.numpy(), strict=True):
            assert place_of(patch, images[label], boxes[label]) == (0, 0)
            seen.append(label)
    assert seen == [0, 2, 3, 5, 8, 9, 11, 12, 1, 4, 7, 10]


def test_pixels_outside_the_image_are_zero():
    images, _ = pictures()
    sizes = (7, 4)
    corners = np.array([[-3, -2], [20, 17], [5, 6], [-1, 18]])
    boxes = np.concatenate([corners, corners + sizes], -1).astype("int32")
    boxes = np.stack([boxes, boxes[::-1]])
    found = patches.crop(tf.constant(images[:2]), tf.constant(boxes), sizes).numpy()
    assert found.shape == (8, *sizes, 3)
    padded = np.pad(images[:2], ((0, 0), (9, 9), (9, 9), (0, 0)))
    wanted = [
        padded[i, 9 + y0 : 9 + y1, 9 + x0 : 9 + x1]
        for i in range(2)
        for y0, x0, y1, x1 in boxes[i]
    ]
    np.testing.assert_array_equal(found, wanted)
    inside_models = keras.ops.convert_to_numpy(crop_patches(images[:2], boxes, sizes))
    np.testing.assert_array_equal(found, inside_models.reshape(found.shape))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([boxes_at([], 5)], "1 images without"),
        (
            [boxes_at([(0, 0)], 5), [(0, 0, 5, 5), (0, 0, 9, 9)] * 2 + [(-1,) * 4]],
            "one",
        ),
        ([[(-1,) * 4, (0, 0, 5, 5)]], "absent ones last"),
        ([[0, 0, 5, 5]], r"\(examples, K, 4\)"),
    ],
)
def test_boxes_that_are_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        patches.by_size(np.array(rows, "int32"))


def test_a_batch_size_that_does_not_divide_is_an_error(boxes):
    with pytest.raises(ValueError, match="batch_size=7, patches_per_image=4"):
        patch_batches(*pictures(), boxes, 7, 0, 1)
