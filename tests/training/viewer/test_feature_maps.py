import keras
import pytest

from keras_attn.training.viewer.feature_maps import last_feature_map
from tests.training import tiny_models as tiny
from tests.training.viewer.tiny import early_exit, shifted


def test_the_map_that_all_of_the_answer_goes_through():
    # What each branch pools comes after it, and decides only a part.
    assert last_feature_map(tiny.localizer()) == "preprocessing"
    assert last_feature_map(tiny.colour_model()) == "patch_logits"
    # Behind the warp nothing lies over the image.
    assert last_feature_map(shifted()) == "features"
    assert last_feature_map(early_exit()) is None


@pytest.mark.parametrize("head", ["dense", "beside"])
def test_plain_classifiers(head):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(images)
    y = keras.layers.Conv2D(4, 3, name="second")(x)
    pooled = keras.layers.GlobalAveragePooling2D()(y)
    if head == "beside":
        pooled += keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, {"logits": keras.layers.Dense(3)(pooled)})
    assert last_feature_map(model) == ("second" if head == "dense" else "first")
