"""Streamed images are the images in memory, read later."""

import os
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_attn.pipelines.augment.operations import Augmentation
from keras_attn.pipelines.batches import build
from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images import streaming
from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.pipelines.images.streaming import (
    StreamedImages,
    clear_errors,
    load_images,
)
from keras_attn.pipelines.sources.load import load_source
from keras_attn.preprocessing import ImageSpec
from tests.pipelines.sources.test_archives import write_tar

SPEC = ImageSpec(10, 14, crop_fraction=0.875)
CLASSES = ("ant", "bee", "cat")


def save(path, height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), "uint8")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """23 pictures of many sizes, larger and smaller than the spec's and equal."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(23):
        height, width = (10, 14) if i % 5 == 0 else (7 + 3 * i, 31 - i)
        save(root / CLASSES[i % 3] / f"{i:02}.png", height, width, i)
    return root


@pytest.fixture(scope="module")
def same_size(tmp_path_factory):
    root = tmp_path_factory.mktemp("same")
    for i in range(11):
        save(root / CLASSES[i % 3] / f"{i:02}.png", 10, 14, i)
    return root


def both(path, spec=SPEC, **options):
    """The same data in memory and streamed."""
    source = load_source("folder", path, **options)
    in_memory, images = load_images(source, spec)
    left, streamed = load_images(source, spec, in_memory_gib=0)
    assert isinstance(images, np.ndarray) and isinstance(streamed, StreamedImages)
    np.testing.assert_array_equal(left.labels, in_memory.labels)
    return images, streamed, in_memory.labels


def training(images, labels, augmentation="none", seed=3, epochs=3, initial_epoch=0):
    dataset = build.training_batches(
        images, labels, 4, seed, epochs, initial_epoch, augmentation
    )
    return [(batch.numpy(), numbers.numpy()) for batch, numbers in dataset]


def assert_same(found, wanted):
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("augmentation", ["none", "flip", "translate_flip"])
def test_training_batches_are_those_of_images_in_memory(folder, augmentation):
    images, streamed, labels = both(folder)
    wanted = training(images, labels, augmentation)
    assert_same(training(streamed, labels, augmentation), wanted)


@pytest.mark.parametrize("chosen", [slice(None), [5, 2, 2, 19, 0, 7, 1, 3]])
def test_any_part_of_the_images(folder, chosen):
    images, streamed, labels = both(folder)
    images, streamed, labels = images[chosen], streamed[chosen], labels[chosen]
    np.testing.assert_array_equal(np.asarray(streamed), images)
    np.testing.assert_array_equal(streamed[-2], images[-2])
    assert_same(training(streamed, labels), training(images, labels))


def test_evaluation_batches_are_those_of_images_in_memory(folder):
    images, streamed, labels = both(folder)
    found, wanted = (
        [(b.numpy(), n.numpy()) for b, n in build.evaluation_batches(x, labels, 6)]
        for x in (streamed, images)
    )
    assert [len(numbers) for _, numbers in found] == [6, 6, 6, 5]
    assert_same(found, wanted)
    assert len(build.evaluation_batches(streamed, labels, 6)) == 4
    assert len(build.evaluation_batches(streamed[:0], labels[:0], 6)) == 0


def test_looks_like_an_array(folder):
    images, streamed, labels = both(folder)
    assert (streamed.shape, streamed.ndim, streamed.dtype) == (
        (23, 10, 14, 3),
        images.ndim,
        images.dtype,
    )
    assert len(streamed) == 23 and len(streamed[:0]) == 0
    assert np.asarray(streamed[:0]).shape == (0, 10, 14, 3)
    build.check_arrays(streamed, labels, 3)
    np.testing.assert_array_equal(streamed[labels == 1], images[labels == 1])


@pytest.mark.parametrize("name", ["random_resized_crop_flip", "rotate_crop_flip"])
def test_crops_are_those_of_images_in_memory_where_the_files_have_the_size(
    same_size, name
):
    images, streamed, labels = both(same_size)
    assert_same(training(streamed, labels, name), training(images, labels, name))


def test_crops_are_taken_from_the_original_image(tmp_path):
    """Stripes of one pixel are grey when resized first, not in a small crop."""
    stripes = np.zeros((200, 200, 3), "uint8")
    stripes[:, ::2] = 255
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        Image.fromarray(stripes).save(tmp_path / name / "0.png")
    spec = ImageSpec(60, 60)
    images, streamed, labels = both(tmp_path, spec)
    name = "random_resized_crop_flip"
    contrasts = {}
    for key, data in (("memory", images), ("streamed", streamed)):
        dataset = build.training_batches(data, labels, 2, 0, 20, 0, name)
        contrasts[key] = max(float(np.std(batch)) for batch, _ in dataset)
    assert contrasts["memory"] < 20 and contrasts["streamed"] > 30


@pytest.mark.parametrize("augmentation", ["none", "random_resized_crop_flip"])
def test_resuming_at_an_epoch_gives_what_would_have_come(folder, augmentation):
    _, streamed, labels = both(folder)
    whole = training(streamed, labels, augmentation)
    assert len(whole) == 3 * 5
    for epoch in (1, 2):
        rest = training(streamed, labels, augmentation, initial_epoch=epoch)
        assert_same(rest, whole[5 * epoch :])
    epochs = [np.concatenate([n for _, n in whole[i : i + 5]]) for i in (0, 5, 10)]
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_shapes_are_known_before_the_first_batch(folder):
    _, streamed, labels = both(folder)
    for name in ("none", "random_resized_crop_flip"):
        spec = build.training_batches(streamed, labels, 4, 0, 1, 0, name).element_spec
        assert spec[0].shape == (4, 10, 14, 3) and spec[0].dtype == tf.uint8
        assert spec[1].shape == (4,)
    spec = build.evaluation_batches(streamed, labels, 4).element_spec
    assert spec[0].shape == (None, 10, 14, 3)


def counted(streamed, before=lambda: None):
    """The streamed images with a list that grows with every file read."""
    read, reads = streamed.source.read, []

    def counting(index):
        before()
        reads.append(index)
        return read(index)

    object.__setattr__(streamed.source, "read", counting)
    return reads


def test_only_what_is_soon_needed_is_read(folder, monkeypatch):
    monkeypatch.setattr(streaming, "WORKERS", 3)
    _, streamed, labels = both(folder)
    reads = counted(streamed)
    dataset = build.training_batches(streamed, labels, 4, 0, 100, 0, "none")
    assert not reads
    iterator = iter(dataset)
    next(iterator)
    # Two batches wait at either end of the last map, one is in its hands each, and
    # each worker has one image done and one in hand.
    ahead = 4 * (2 * streaming.PREFETCH + 3) + 2 * 3
    for _ in range(20):
        next(iterator)
        taken = len(reads)
    assert 21 * 4 <= taken <= 21 * 4 + ahead


def test_files_are_read_in_parallel(folder, monkeypatch):
    """The first two readers wait for each other, so one alone would not get on."""
    monkeypatch.setattr(streaming, "WORKERS", 2)
    _, streamed, labels = both(folder)
    meeting = threading.Barrier(2, timeout=20)
    reads = counted(streamed, before=lambda: reads or meeting.wait())
    batch, _ = next(iter(build.evaluation_batches(streamed, labels, 4)))
    assert batch.shape == (4, 10, 14, 3)


@pytest.fixture
def damaged(folder, tmp_path):
    source = load_source("folder", folder)
    for i in range(len(source)):
        name = tmp_path / CLASSES[source.labels[i]] / f"{i:02}.png"
        name.parent.mkdir(exist_ok=True)
        data = source.read(i)
        name.write_bytes(data[: len(data) // 2] if i in (4, 17) else data)
    return tmp_path


def test_a_corrupt_file_is_one_error_with_its_name(damaged):
    source = load_source("folder", damaged)
    source, streamed = load_images(source, SPEC, 0)
    where = source.where(4)
    for use in (
        lambda: np.asarray(streamed),
        lambda: streamed[4],
        lambda: training(streamed, source.labels, epochs=20),
        lambda: list(build.evaluation_batches(streamed, source.labels, 5)),
    ):
        with pytest.raises(CorruptImageError) as caught, clear_errors():
            use()
        message = str(caught.value)
        assert "truncated or damaged" in message and "\n" not in message
        assert message.startswith((where, source.where(17)))
        assert caught.value.where in (where, source.where(17))


def test_a_file_that_has_gone_is_one_error_with_its_name(tmp_path):
    for i, name in enumerate(CLASSES):
        save(tmp_path / name / "0.png", 8, 8, i)
    source, streamed = load_images(load_source("folder", tmp_path), SPEC, 0)
    (tmp_path / "bee" / "0.png").unlink()
    with pytest.raises(CorruptImageError, match="bee/0.png: cannot be read"):
        np.asarray(streamed)


def test_other_errors_pass():
    with pytest.raises(tf.errors.InvalidArgumentError, match="boom"), clear_errors():
        raise tf.errors.InvalidArgumentError(None, None, "boom")


def test_skipped_files_are_left_out_before_the_first_step(damaged):
    images, streamed, labels = both(damaged, on_corrupt="skip")
    assert len(streamed) == len(labels) == 21
    assert_same(training(streamed, labels), training(images, labels))
    source = load_source("folder", damaged, on_corrupt="skip")
    skipped = load_images(source, SPEC, 0)[0].skipped
    assert [name[-6:] for name, _ in skipped] == ["04.png", "17.png"]
    assert skipped == load_images(source, SPEC)[0].skipped


def test_the_limit_decides(folder):
    source = load_source("folder", folder)
    size = 23 * 10 * 14 * 3 / 2**30
    assert isinstance(load_images(source, SPEC, size)[1], np.ndarray)
    assert isinstance(load_images(source, SPEC, size * 0.99)[1], StreamedImages)
    generated = load_source("generated", examples=5, image_size=32)
    images = load_images(generated, ImageSpec(32, 32), 0)[1]
    assert images is generated.images


def test_an_archive_streams_like_its_folder(folder, tmp_path):
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("*/*.png"))
    }
    images, streamed, _ = both(write_tar(tmp_path / "a.tar", files, "w"))
    np.testing.assert_array_equal(streamed, images)
    np.testing.assert_array_equal(images, both(folder)[0])


def test_the_digest_sees_what_it_says(tmp_path):
    for i, name in enumerate(CLASSES):
        save(tmp_path / name / "0.png", 8, 8, i)

    def digests(spec=SPEC, indices=slice(None)):
        source, streamed = load_images(load_source("folder", tmp_path), spec, 0)
        streamed = streamed[indices]
        splits = {"train": (streamed, source.labels[indices])}
        return streamed.digest(), streamed.digest(content=True), build.checksum(splits)

    first = digests()
    assert digests() == first
    # Runs of earlier versions resume; caches of images as they are stored do not.
    source, streamed = load_images(load_source("folder", tmp_path), SPEC, 0)
    lines = [repr((10, 14, "bilinear", 0.875))]
    for name, file in zip(CLASSES, source.files, strict=True):
        status = os.stat(file)
        lines.append(f"{name}/0.png\n{status.st_size}\n{{}}\n")
    assert streamed.digest() == digest_of(*(line.format("") for line in lines))
    times = ["", *(os.stat(file).st_mtime_ns for file in source.files)]
    stored = digest_of(*(line.format(t) for line, t in zip(lines, times, strict=True)))
    assert streamed.digest(content=True) != stored
    every = [first, digests(ImageSpec(10, 14)), digests(indices=[1, 0, 2])]
    for kind in zip(*every, strict=True):
        assert len(set(kind)) == 3
    # Other pixels in as many bytes.
    path = tmp_path / "bee" / "0.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    assert digests()[0] == first[0] and digests()[1] != first[1]
    path.write_bytes(data + b"more")
    assert digests()[0] != first[0] and digests()[2] != first[2]


def test_augmentations_that_crop_are_known():
    operation = Augmentation("mild_resized_crop_flip").file_operation
    assert operation.smallest_area == 0.5
    assert Augmentation("rotate_crop_flip").file_operation.share == 0.875
    assert Augmentation("resize(72)|random_crop(64)").file_operation.height == 72
    for name in ("none", "flip", "translate_flip"):
        assert Augmentation(name).file_operation is None
