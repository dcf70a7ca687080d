"""Batches: their order, what is in them, and that resuming does not change them."""

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.pipelines.batches import build

EXAMPLES = 23


def numbered(count=EXAMPLES, size=10):
    """Image i is of colour i + 1 and has the label i."""
    images = np.ones((count, size, size, 3), "uint8")
    images *= np.arange(1, count + 1, dtype="uint8")[:, None, None, None]
    return images, np.arange(count, dtype="int32")


def batches(batch_size=5, seed=0, epochs=3, initial_epoch=0, augmentation="none"):
    dataset = build.training_batches(
        *numbered(), batch_size, seed, epochs, initial_epoch, augmentation
    )
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def labels_of_epochs(found, steps=4):
    labels = np.array([labels for _, labels in found])
    return labels.reshape(-1, steps * labels.shape[1])


def test_an_epoch_shows_every_example_at_most_once():
    found = batches()
    assert len(found) == 3 * build.steps_per_epoch(EXAMPLES, 5) == 12
    for epoch in labels_of_epochs(found):
        assert len(set(epoch)) == 20
        assert set(epoch) <= set(range(EXAMPLES))


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second, third = labels_of_epochs(batches())
    assert (first != second).any() and (second != third).any()
    assert (first != labels_of_epochs(batches(seed=1))[0]).any()
    # What an incomplete last batch leaves out is not always the same.
    assert len({frozenset(epoch) for epoch in (first, second, third)}) > 1


def test_all_orders_are_equally_likely():
    images, labels = numbered(4)
    dataset = build.training_batches(images, labels, 4, 0, 600, 0, "none")
    first = [int(labels[0]) for _, labels in dataset]
    # Each of four examples comes first in about 150 of 600 epochs.
    assert np.all(np.abs(np.bincount(first, minlength=4) - 150) < 50)


@pytest.mark.parametrize("augmentation", ["none", "translate_flip"])
@pytest.mark.parametrize("initial_epoch", [1, 2])
def test_resuming_at_an_epoch_gives_what_would_have_come(augmentation, initial_epoch):
    whole = batches(augmentation=augmentation)
    rest = batches(augmentation=augmentation, initial_epoch=initial_epoch)
    assert len(rest) == 4 * (3 - initial_epoch)
    for wanted, found in zip(whole[4 * initial_epoch :], rest, strict=True):
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_array_equal(found[1], wanted[1])


def test_the_number_of_epochs_to_come_changes_nothing():
    for wanted, found in zip(batches(epochs=1), batches(epochs=3)[:4], strict=True):
        np.testing.assert_array_equal(found[0], wanted[0])


@pytest.mark.parametrize("augmentation", ["none", "translate_flip"])
def test_labels_belong_to_their_images(augmentation):
    for images, labels in batches(augmentation=augmentation):
        assert images.dtype == np.uint8 and images.shape == (5, 10, 10, 3)
        # The middle of the image is never padding.
        np.testing.assert_array_equal(images[:, 5, 5, 0], labels + 1)


def test_augmentation_differs_between_steps_and_epochs():
    images = np.repeat(np.arange(1, 101, dtype="uint8").reshape(1, 10, 10, 1), 3, -1)
    images = np.repeat(images, 6, axis=0)
    dataset = build.training_batches(images, np.zeros(6, "int32"), 3, 0, 2)
    seen = {batch.numpy().tobytes() for batch, _ in dataset}
    assert len(seen) == 4


def test_shapes_are_known_before_the_first_batch():
    dataset = build.training_batches(*numbered(), 5, 0, 1)
    assert dataset.element_spec[0].shape == (5, 10, 10, 3)
    assert dataset.element_spec[1].shape == (5,)


def test_evaluation_shows_all_examples_in_order():
    found = list(build.evaluation_batches(*numbered(), 10))
    assert [len(labels) for _, labels in found] == [10, 10, 3]
    np.testing.assert_array_equal(
        np.concatenate([labels for _, labels in found]), np.arange(EXAMPLES)
    )
    images = np.concatenate([images for images, _ in found])
    np.testing.assert_array_equal(images, numbered()[0])


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
def test_no_device_is_left_without_images(devices):
    for examples in (64, 71, 500, 999, 5000):
        size = build.evaluation_batch_size(examples, 128, devices)
        assert size % devices == 0 and size <= min(128, examples)
        for batch in (size, examples % size or size):
            # What tf.data's rebatching does: equal parts, rounded up.
            share = int(np.ceil(batch / devices))
            parts = [len(range(batch)[i * share :][:share]) for i in range(devices)]
            assert sum(parts) == batch and min(parts) > 0


def test_evaluation_batches_are_as_large_as_can_be():
    assert build.evaluation_batch_size(5000, 128) == 128
    assert build.evaluation_batch_size(11, 128) == 11
    assert build.evaluation_batch_size(11, 128, 2) == 8
    with pytest.raises(ValueError, match="4 devices.*11 images"):
        build.evaluation_batch_size(11, 128, 4)


def test_every_output_gets_the_label():
    dataset = build.evaluation_batches(*numbered(), 10)
    images, labels = next(iter(build.label_outputs(dataset, ["logits", "patches"])))
    assert set(labels) == {"logits", "patches"} and images.shape[0] == 10
    np.testing.assert_array_equal(labels["logits"], labels["patches"])


def test_batches_are_not_sharded_by_file():
    options = build.evaluation_batches(*numbered(), 10).options()
    off = tf.data.experimental.AutoShardPolicy.OFF
    assert options.experimental_distribute.auto_shard_policy == off


def test_a_batch_larger_than_the_data_is_an_error():
    with pytest.raises(ValueError, match="batch_size=24 for 23 examples"):
        build.training_batches(*numbered(), 24, 0, 1)


def test_an_unknown_augmentation_is_an_error():
    with pytest.raises(ValueError, match="augmentation"):
        build.training_batches(*numbered(), 5, 0, 1, 0, "cutmix")


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((2, 4, 4), "uint8"), [0, 1], "8-bit RGB images"),
        (np.zeros((2, 4, 4, 1), "uint8"), [0, 1], r"\(2, 4, 4, 1\)"),
        (np.zeros((2, 4, 4, 4), "uint8"), [0, 1], "8-bit RGB images"),
        (np.zeros((2, 4, 4, 3), "float32"), [0, 1], "of float32"),
        (np.zeros((2, 4, 4, 3), "uint8"), [0, 1, 1], r"labels of shape \(3,\)"),
        (np.zeros((2, 4, 4, 3), "uint8"), [0, 3], "label 3 at example 1"),
        (np.zeros((2, 4, 4, 3), "uint8"), [-1, 0], "label -1 at example 0"),
    ],
)
def test_unfit_arrays_are_one_clear_error(images, labels, words):
    with pytest.raises(ValueError, match=words):
        build.check_arrays(images, np.array(labels, "int32"), 3)


def test_fit_arrays_pass():
    build.check_arrays(np.zeros((2, 4, 4, 3), "uint8"), np.array([0, 2]), 3)


def test_the_checksum_sees_every_change():
    images, labels = numbered()
    splits = {"train": (images[:20], labels[:20]), "test": (images[20:], labels[20:])}
    value = build.checksum(splits)
    assert value == build.checksum(dict(reversed(splits.items())))
    changed = images.copy()
    changed[3, 4, 5, 1] += 1
    assert value != build.checksum({**splits, "train": (changed[:20], labels[:20])})
    swapped = labels[:20][::-1]
    assert value != build.checksum({**splits, "train": (images[:20], swapped)})
    names = {"validation": splits["train"], "test": splits["test"]}
    assert value != build.checksum(names)
    assert build.is_checksum_of(value, splits)
    assert not build.is_checksum_of(value, names)


def test_a_checksum_of_an_earlier_version_is_still_one():
    images = np.arange(2 * 4 * 5 * 3, dtype="uint8").reshape(2, 4, 5, 3)
    labels = np.array([1, 0], "int32")
    splits = {"train": (images, labels), "test": (images[:1], labels[:1])}
    # As commit a8c9ace recorded it in runs.
    assert build.is_checksum_of("3ca4997f", splits)
    assert not build.is_checksum_of("3ca4997f", {**splits, "test": (images, labels)})
