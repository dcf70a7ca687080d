"""All methods fulfil their protocol, and their feeds theirs."""

import keras
import numpy as np
import pytest

from keras_attn.preprocessing import ImageSpec
from keras_attn.training.methods import method_of
from keras_attn.training.methods.feeds.protocol import Feed
from keras_attn.training.methods.protocol import Method
from keras_attn.training.recipes.options import method_names
from keras_attn.training.recipes.schema import Recipe
from tests.training import tiny_models

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)
SIZE = 40


@pytest.mark.parametrize("name", method_names())
def test_methods(name):
    assert isinstance(method_of(Recipe("x", name)), Method)


def test_what_lacks_a_part_is_no_method():
    class Partial(Method):
        classifies = True

    with pytest.raises(TypeError, match="abstract"):
        Partial()
    assert not isinstance(keras, Method)


@pytest.mark.parametrize("name", ["class_embedding", "attention_masked_residual"])
def test_methods_without_published_weights_refuse_them(name):
    recipe = Recipe("x", name, initial="imagenet")
    with pytest.raises(ValueError, match=f"recipe of {name} .* initial='imagenet'"):
        method_of(recipe).check(recipe)


@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        ("class_embedding", {}, "ImageFeed"),
        ("anchornet", {"localizer": "localizer.keras"}, "PatchFeed"),
        ("volumetric_transformer", {"images_per_class": 2}, "PairFeed"),
        ("attention_masked_residual", {"mask_target": "none"}, "MapFeed"),
        ("dino", {"patch_size": 8, "local_views": 0}, "ViewFeed"),
    ],
)
def test_feeds(name, changes, kind, tmp_path):
    if "localizer" in changes:
        path = tiny_models.save_localizer(tmp_path, size=(SIZE, SIZE))
        changes = {"localizer": str(path)}
    images = np.zeros((8, SIZE, SIZE, 3), "uint8")
    labels = np.arange(8, dtype="int32") % 2
    splits = {"train": (images, labels), "validation": (images[:0], labels[:0])}
    recipe = Recipe("x", name, image_size=SIZE, batch_size=4, **changes)
    spec = ImageSpec(SIZE, SIZE, class_names=("ant", "bee"))
    feed = method_of(recipe).make_feed(recipe, splits, spec)
    assert type(feed).__name__ == kind
    assert isinstance(feed, Feed) and feed.steps >= 2
    assert not isinstance(splits, Feed)
