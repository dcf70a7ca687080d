"""Balanced batches: what is in them, that nothing is left out, and resuming."""

import math

import numpy as np
import pytest

from keras_attn.pipelines.batches import pairs
from keras_attn.pipelines.images.streaming import load_images
from keras_attn.pipelines.sources import load_source
from keras_attn.preprocessing import ImageSpec
from tests.pipelines.images.test_streaming import save

# Of very unequal sizes; 2 images are fewer than a group of 3.
COUNTS = (9, 2, 5, 4, 3, 7)
SIZES = [(2, 2), (3, 2), (4, 3), (6, 2)]


def data(counts=COUNTS, size=6):
    """Image i is of colour i + 1; labels are in random order."""
    labels = np.repeat(np.arange(len(counts)), counts).astype("int32")
    labels = np.random.default_rng(5).permutation(labels)
    images = np.ones((len(labels), size, size, 3), "uint8")
    images *= np.arange(1, len(labels) + 1, dtype="uint8")[:, None, None, None]
    return images, labels


def batches(classes, each, seed=0, epochs=2, initial_epoch=0, augmentation="none"):
    dataset = pairs.balanced_batches(
        *data(), classes, each, seed, epochs, initial_epoch, augmentation
    )
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def shown(found):
    """Numbers of the images of every batch."""
    return np.array([images[:, 0, 0, 0].astype(int) - 1 for images, _ in found])


@pytest.mark.parametrize(("classes", "each"), SIZES)
def test_batches_hold_so_many_images_of_so_many_classes(classes, each):
    _, labels = data()
    found = batches(classes, each)
    for chosen, (images, given) in zip(shown(found), found, strict=True):
        assert images.shape == (classes * each, 6, 6, 3) and images.dtype == np.uint8
        np.testing.assert_array_equal(labels[chosen], given)
        present, counts = np.unique(given, return_counts=True)
        assert len(present) == classes and (counts == each).all()
        for label in present:
            different = len(set(chosen[given == label]))
            assert different == min(each, COUNTS[label])


@pytest.mark.parametrize(("classes", "each"), SIZES)
def test_an_epoch_shows_every_image_in_the_fewest_batches(classes, each):
    groups = [math.ceil(count / each) for count in COUNTS]
    steps = max(max(groups), math.ceil(sum(groups) / classes))
    assert pairs.balanced_steps_per_epoch(data()[1], classes, each) == steps
    found = shown(batches(classes, each))
    assert len(found) == 2 * steps
    for epoch in found.reshape(2, -1):
        assert set(epoch) == set(range(sum(COUNTS)))


def test_equal_classes_show_every_image_once():
    labels = np.arange(40) % 10
    members = pairs.members_of_classes(labels, 4, 2)
    epoch = pairs.epoch_of_groups(members, 4, 2, np.random.default_rng(0))
    assert epoch.shape == (5, 4, 2)
    np.testing.assert_array_equal(np.sort(epoch.reshape(-1)), np.arange(40))


def test_what_fills_an_epoch_up_is_spread_over_classes_and_images():
    """One class has 20 groups, so there are 20 batches; 3 others have one group."""
    members = np.split(np.arange(46), [40, 42, 44])
    counts = np.zeros(46)
    for seed in range(30):
        epoch = pairs.epoch_of_groups(members, 3, 2, np.random.default_rng(seed))
        assert epoch.shape == (20, 3, 2)
        numbers = np.bincount(epoch.reshape(-1), minlength=46)
        assert (numbers[:40] == 1).all() and (numbers[40:] >= 1).all()
        counts += numbers
    # 20 batches have 40 places for three classes: each has 40 / 3, with the
    # deviation of about 2.2 that draws from 60 places have, over 30 epochs.
    assert np.abs(counts[40:] / 30 - 40 / 3).max() < 4 * 2.2 / np.sqrt(30)


def test_classes_meet_at_random():
    """Of ten classes, each meets all others about equally often."""
    members = np.split(np.arange(200), 10)
    met = np.zeros((10, 10))
    for seed in range(40):
        epoch = pairs.epoch_of_groups(members, 4, 2, np.random.default_rng(seed))
        for batch in epoch[:, :, 0] // 20:
            met[np.ix_(batch, batch)] += 1
    # 40 epochs of 25 batches with 6 of the 45 pairs: 133 meetings.
    apart = met[~np.eye(10, dtype=bool)]
    assert abs(apart.mean() - 1000 * 6 / 45) < 1e-9
    assert 85 < apart.min() and apart.max() < 185


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = shown(batches(3, 2)).reshape(2, -1)
    assert (first != second).any()
    assert (first != shown(batches(3, 2, seed=1, epochs=1)).reshape(-1)).any()


def test_images_of_a_batch_are_in_random_order():
    labels = np.array([labels for _, labels in batches(3, 2, epochs=20)])
    # The second of six is the first one's mate in one of five batches.
    share = (labels[:, 0] == labels[:, 1]).mean()
    assert len(labels) > 90 and 0.05 < share < 0.35


@pytest.mark.parametrize("augmentation", ["none", "translate_flip"])
def test_resuming_at_an_epoch_gives_what_would_have_come(augmentation):
    whole = batches(3, 2, epochs=3, augmentation=augmentation)
    rest = batches(3, 2, epochs=3, initial_epoch=1, augmentation=augmentation)
    assert len(whole) == 3 * len(rest) // 2
    for wanted, found in zip(whole[len(whole) // 3 :], rest, strict=True):
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_array_equal(found[1], wanted[1])


def test_parts_of_a_batch_hold_whole_classes():
    images, labels = data()
    dataset = pairs.balanced_batches(images, labels, 6, 2, 0, 4, 0, "none", parts=3)
    orders = set()
    for _, given in dataset:
        for part in given.numpy().reshape(3, 4):
            assert (np.unique(part, return_counts=True)[1] == 2).all()
            orders.add(part[0] == part[1])
    assert orders == {True, False}


def test_streamed_images_come_in_the_same_batches(tmp_path):
    for number in range(9):
        save(tmp_path / "abc"[number % 3] / f"{number}.png", 8, 8, number)
    source = load_source("folder", tmp_path)
    found = []
    for gib in (4, 0):
        left, images = load_images(source, ImageSpec(8, 8), gib)
        dataset = pairs.balanced_batches(
            images, left.labels, 2, 2, 3, 2, 0, "translate_flip"
        )
        assert dataset.element_spec[0].shape == (4, 8, 8, 3)
        found.append(list(dataset.as_numpy_iterator()))
    assert len(found[0]) == len(found[1]) == 2 * 3
    for (images, labels), (others, given) in zip(*found, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, given)


def test_a_class_with_a_single_image_is_named():
    images, labels = data((3, 1, 4, 1))
    with pytest.raises(ValueError, match="1 image of class 'bee' .*1 more class"):
        names = ("ant", "bee", "cat", "dog")
        pairs.balanced_batches(images, labels, 2, 2, 0, 1, class_names=names)
    with pytest.raises(ValueError, match="at least 2 .* Received: 1 image of class 2$"):
        pairs.balanced_steps_per_epoch(np.array([0, 0, 2, 4, 4]), 2, 2)


def test_too_few_classes_are_an_error():
    images, labels = data()
    with pytest.raises(ValueError, match="classes_per_batch=8 .* Received: 6 classes"):
        pairs.balanced_batches(images, labels, 8, 2, 0, 1)
    for classes, each in ((1, 2), (2, 1)):
        with pytest.raises(ValueError, match=f"images_per_class={each}"):
            pairs.balanced_batches(images, labels, classes, each, 0, 1)
    for parts in (2, 3):
        with pytest.raises(ValueError, match=f"per_batch=3, parts={parts}"):
            pairs.balanced_batches(images, labels, 3, 2, 0, 1, parts=parts)
