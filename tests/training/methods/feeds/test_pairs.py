"""Batches of several images of each class, by recipe."""

import keras
import numpy as np
import pytest

from keras_attn.training.methods.feeds import pairs
from keras_attn.training.methods.feeds.images import ImageFeed
from keras_attn.training.methods.feeds.pairs import PairFeed
from keras_attn.training.recipes.schema import Recipe

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)
COUNTS = (5, 3, 8, 4)


def recipe(**changes):
    values = {
        "batch_size": 6,
        "images_per_class": 2,
        "seed": 3,
        "epochs": 3,
        "augmentation": "translate_flip",
    }
    return Recipe("tiny", "volumetric_transformer", **{**values, **changes})


def splits(counts=COUNTS):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.ones((len(labels), 8, 8, 3), "uint8")
    images *= np.arange(1, len(labels) + 1, dtype="uint8")[:, None, None, None]
    empty = images[:0], labels[:0]
    return {"train": (images, labels), "validation": empty}


def test_batches_of_the_recipe():
    feed = PairFeed(recipe(), splits())
    assert feed.steps == 4
    found = list(feed.training(0))
    assert len(found) == 3 * feed.steps
    for images, labels in found:
        assert images.shape == (6, 8, 8, 3)
        assert (np.unique(labels, return_counts=True)[1] == (2, 2, 2)).all()
    rest = list(feed.training(2))
    for wanted, given in zip(found[2 * feed.steps :], rest, strict=True):
        np.testing.assert_array_equal(given[0], wanted[0])


def test_validation_is_that_of_whole_images():
    data = splits()
    assert PairFeed(recipe(), data).validation() is None
    data["validation"] = data["train"]
    found, wanted = (
        [labels.numpy() for _, labels in feed(recipe(), data).validation()]
        for feed in (PairFeed, ImageFeed)
    )
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(wanted))


def test_each_device_has_the_mates_of_its_images(monkeypatch):
    monkeypatch.setattr(pairs.devices, "device_count", lambda: 2)
    for _, labels in PairFeed(recipe(batch_size=8), splits()).training(0):
        for part in labels.numpy().reshape(2, 4):
            assert (np.unique(part, return_counts=True)[1] == 2).all()
    with pytest.raises(ValueError, match="images_per_class, times the 2 devices"):
        PairFeed(recipe(batch_size=6), splits())


def test_mistakes():
    with pytest.raises(ValueError, match="divisor of batch_size=7.*images_per_class=2"):
        recipe(batch_size=7)
    with pytest.raises(ValueError, match="1 image of class 'bee'"):
        feed = PairFeed(recipe(batch_size=4), splits((3, 1, 4)), ("ant", "bee", "cat"))
        feed.training(0)
    with pytest.raises(ValueError, match="Received: 4 classes"):
        PairFeed(recipe(batch_size=10), splits()).training(0)
