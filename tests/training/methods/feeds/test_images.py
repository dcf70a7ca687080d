"""Batches of whole images, by recipe."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_attn.preprocessing import ImageSpec, spec_of
from keras_attn.training import methods
from keras_attn.training.methods import method_of
from keras_attn.training.methods.feeds.images import ImageFeed
from keras_attn.training.recipes.schema import Recipe

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)
SPEC = ImageSpec(
    32, 32, mean=(0.3, 0.5, 0.7), std=(0.02, 0.05, 0.1), class_names=("ant", "bee")
)


def splits(count=60):
    images, labels = np.zeros((count, 32, 32, 3), "uint8"), np.arange(count) % 2
    return {"train": (images, labels), "validation": (images[:0], labels[:0])}


def test_noise_has_the_statistics_that_the_network_normalises_with():
    recipe = Recipe("noisy", image_size=32, batch_size=60, augmentation="erase(1)")
    for images, _ in ImageFeed(recipe, splits(), SPEC).training(0).take(1):
        noise = images.numpy()[images.numpy().any(-1)] / 255
    assert len(noise) > 1000
    np.testing.assert_allclose(noise.mean(0), SPEC.mean, atol=0.01)
    np.testing.assert_allclose(noise.std(0), SPEC.std, rtol=0.05)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("class_embedding", {"backbone": "resnet20", "row": "baseline"}),
        ("anchornet", {"backbone": "anchornet", "row": "full"}),
        ("volumetric_transformer", {"backbone": "small_resnet", "row": "backbone"}),
    ],
)
def test_the_feed_has_the_statistics_of_the_model(method, changes):
    recipe = Recipe("noisy", method=method, image_size=112, **changes)
    spec = dataclasses.replace(SPEC, height=112, width=112)
    feed = method_of(recipe).make_feed(recipe, splits(), spec)
    model = method_of(recipe).make_model(recipe, spec)
    assert (feed.spec.mean, feed.spec.std) == (spec_of(model).mean, spec_of(model).std)


@pytest.mark.parametrize(
    ("method", "backbone"),
    [("anchornet", "resnet50"), ("volumetric_transformer", "vgg19")],
)
def test_the_feed_has_the_statistics_of_published_weights(method, backbone):
    recipe = Recipe("noisy", method=method, backbone=backbone, initial="imagenet")
    feed = methods.method_of(recipe).make_feed(recipe, splits(), SPEC)
    assert feed.spec.mean != SPEC.mean and feed.spec.class_names == SPEC.class_names
