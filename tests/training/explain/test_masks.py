import keras
import numpy as np
import pytest

from keras_attn.models.masked_resnet import end_to_end, masked_resnet
from keras_attn.models.vit import attention_map_model, vit
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.explain.masks import (
    MaskExplanation,
    mask_limits,
    picture,
    sheet,
)
from keras_attn.training.explain.masks import explain as explain_images
from keras_attn.training.trained import Trained

SIZE = (16, 24)
NAMES = ("a", "b", "c")
SPEC = ImageSpec(*SIZE, class_names=NAMES)


@pytest.fixture(scope="module")
def transformer():
    images = keras.Input((*SIZE, 3))
    normalized = ImagePreprocessing(SPEC, name="preprocessing")(images)
    model = vit((8, 2, 2), 4, input_tensor=normalized)
    for weight in model.weights:
        weight.assign(keras.random.normal(weight.shape, stddev=0.7, seed=3))
    return model


@pytest.fixture(scope="module")
def model(transformer):
    maps = attention_map_model(transformer, "mean", "minmax")
    images = keras.Input((*SIZE, 3), name="images")
    normalized = ImagePreprocessing(SPEC, name="preprocessing")(images)
    network = masked_resnet(num_classes=3, stem="native", input_tensor=normalized)
    return end_to_end(maps, network)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return random.integers(0, 256, (2, *SIZE, 3)).astype("uint8")


@pytest.fixture(scope="module")
def explained(model, images):
    return explain_images(Trained(model, None), images, ["first", "second"])


def test_explains_what_the_model_answers(model, transformer, images, explained):
    outputs = model.predict(images, verbose=0)
    heads = attention_map_model(transformer).predict(images, verbose=0)
    for i, each in enumerate(explained):
        logits = np.exp(outputs["logits"][i])
        np.testing.assert_allclose(each.probabilities, logits / logits.sum(), 1e-5)
        assert each.top(1) == [logits.argmax()]
        np.testing.assert_allclose(
            each.attention, outputs["attention_map"][i, ..., 0], atol=1e-5
        )
        np.testing.assert_allclose(each.heads, heads[i], atol=1e-6)
        mean = heads[i].mean(axis=-1)
        scaled = (mean - mean.min()) / (mean.max() - mean.min())
        np.testing.assert_allclose(each.attention, scaled, atol=1e-4)
        assert [mask.shape[-1] for mask in each.masks] == [16, 32, 64]
        np.testing.assert_allclose(each.masks[1], outputs["mask_2"][i], atol=1e-5)


def test_correlation_of_masks_with_the_map():
    attention = np.array([[0.0, 1.0], [0.0, 1.0]])
    masks = [
        np.stack([attention, attention], axis=-1),
        1 - attention[..., None],
        attention.T[..., None],
        np.full((2, 2, 3), 0.5),
    ]
    each = MaskExplanation(
        np.zeros((4, 4, 3), "uint8"), np.ones(1), ("a",), "t", attention, None, masks
    )
    found = [each.correlation(block) for block in range(4)]
    np.testing.assert_allclose(found[:3], [1, -1, 0], atol=1e-9)
    assert found[3] is None


def test_deep_networks_show_some_blocks_up_to_the_last():
    each = MaskExplanation(None, None, (), "", None, None, [None] * 27)
    shown = each.shown()
    assert len(shown) == 6 and shown[0] == 0 and shown[-1] == 26


def test_picture_shows_heads_and_masks(explained):
    figure = picture(explained[0], [2, 0])
    titles = [axis.get_title() for axis in figure.axes]
    assert [title for title in titles if title.startswith("head")] == [
        "head 1",
        "head 2",
    ]
    drawn = {axis.get_title().split(":")[0]: axis for axis in figure.axes}
    for block, mask in enumerate(explained[0].masks, 1):
        values = drawn[f"mask {block}"].images[-1].get_array()
        np.testing.assert_allclose(values, mask.mean(axis=-1), atol=1e-6)
    np.testing.assert_allclose(
        drawn["attention map"].images[-1].get_array(), explained[0].attention
    )
    assert "c:" in figure.axes[2].texts[0].get_text()


def test_sheet_has_a_row_an_image(explained):
    figure = sheet(explained, [[0], [1]])
    titles = [axis.get_title() for axis in figure.axes]
    assert sum(title == "attention map" for title in titles) == 2
    assert sum(title.startswith("mask 3") for title in titles) == 2
    assert titles[0].startswith("first\na: ")


def test_networks_without_a_map(images):
    inputs = keras.Input((*SIZE, 3), name="images")
    pixels = ImagePreprocessing(SPEC, name="preprocessing")(inputs)
    maps = keras.ops.zeros_like(pixels[..., :1])
    model = masked_resnet(
        num_classes=3, strength=0, input_tensor=pixels, map_tensor=maps
    )
    (each, _) = explain_images(Trained(model, None), images)
    assert each.title == "image 1"
    assert each.attention is None and each.heads is None
    assert each.correlation(0) is None
    titles = [axis.get_title() for axis in picture(each, [0]).axes]
    assert "no attention map" in titles and "mask 1: mean 0.50" in titles
    sheet([each], [[0]])


def test_one_scale_fits_all_masks(explained):
    means = [mask.mean(axis=-1) for each in explained for mask in each.masks]
    lowest = min(mean.min() for mean in means)
    highest = max(mean.max() for mean in means)
    assert mask_limits(explained) == (lowest, highest)


@pytest.mark.parametrize("strength", [None, 1.0])
def test_refuses_other_networks(strength, images):
    model = masked_resnet(strength=strength, input_shape=(*SIZE, 3))
    with pytest.raises(ValueError, match="Expected a model from images alone"):
        explain_images(Trained(model, None), images)
