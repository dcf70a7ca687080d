"""Prompt-CAM against NumPy, on a tiny transformer with random weights."""

import keras
import numpy as np
import pytest
from scipy.special import erf, softmax

from keras_attn.explain import attention_maps, grad_cam
from keras_attn.models import prompt_cam, vit
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from tests.harness import randomize, to_numpy

SHAPE, CLASSES, HEADS = (16, 24, 3), 3, 2


def backbone():
    # With a head of other classes, behind its preprocessing, inside another model.
    inner = vit((8, 3, HEADS), 8, SHAPE, num_classes=5)
    inputs = keras.Input(SHAPE)
    pixels = ImagePreprocessing(ImageSpec(*SHAPE[:2]), name="preprocessing")(inputs)
    model = keras.Model(inputs, inner(pixels)["logits"])
    randomize(model)
    return model


@pytest.fixture(scope="module")
def models():
    """Variant and number of blocks -> model, all of the same transformer."""
    shared = backbone()
    models = {}
    for variant, blocks in (("deep", None), ("deep", 1), ("shallow", 2)):
        models[variant, blocks] = prompt_cam(shared, CLASSES, variant, blocks)
        for layer in models[variant, blocks].layers:
            if layer.trainable and layer.weights:
                randomize(layer)
    return models


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype("float32")


def norm(x, gamma, beta):
    spread = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return (x - x.mean(-1, keepdims=True)) / spread * gamma + beta


def block(x, weights):
    """One block in NumPy: tokens, and attention `(batch, heads, tokens, tokens)`."""
    width = x.shape[-1]
    w = [to_numpy(each).astype("float64") for each in weights]
    parts = norm(x, w[0], w[1]) @ w[2] + w[3]
    parts = parts.reshape(*x.shape[:2], 3, HEADS, width // HEADS)
    q, k, v = np.moveaxis(parts, 2, 0)
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(width // HEADS)
    attention = softmax(scores, axis=-1)
    x = x + np.einsum("bhts,bshd->bthd", attention, v).reshape(x.shape) @ w[4] + w[5]
    hidden = norm(x, w[6], w[7]) @ w[8] + w[9]
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    return x + hidden @ w[10] + w[11], attention


def wanted(model, images, variant, blocks):
    x = images
    for name in ("preprocessing", "patches", "positions"):
        x = model.get_layer(name)(x)
    x = to_numpy(x).astype("float64")
    for number in range(1, 4):
        first = 4 - (blocks or 3)
        if number >= first and (variant == "deep" or number == first):
            prompts = to_numpy(model.get_layer(f"prompts_{number}").prompts)
            x = np.concatenate([np.repeat(prompts[None], len(x), 0), x], axis=1)
        x, attention = block(x, model.get_layer(f"block_{number}").weights)
        if first <= number < 3 and variant == "deep":
            x = x[:, CLASSES:]
    gamma, beta = map(to_numpy, model.get_layer("normalization").weights)
    kernel = to_numpy(model.get_layer("logits").kernel)
    logits = norm(x[:, :CLASSES], gamma, beta) @ kernel
    maps = attention[:, :, :CLASSES, CLASSES + 1 :].reshape(2, HEADS, CLASSES, 2, 3)
    return logits, maps.swapaxes(1, 2)


@pytest.mark.parametrize(
    "variant, blocks", [("deep", None), ("deep", 1), ("shallow", 2)]
)
def test_equals_numpy(models, images, variant, blocks):
    model = models[variant, blocks]
    found = {name: to_numpy(each) for name, each in model(images).items()}
    logits, maps = wanted(model, images, variant, blocks)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(found["prompt_attention"], maps, atol=1e-5)
    assert logits.std() > 0.01 and maps.std() > 0.001
    prompts = 1 if variant == "shallow" else blocks or 3
    assert len(model.trainable_weights) == prompts + 1


def test_other_explanations_take_it(models, images):
    model = models["deep", None]
    maps = to_numpy(model(images)["prompt_attention"])
    found = to_numpy(attention_maps(model, images, query=1))
    np.testing.assert_allclose(found, maps[:, 1], atol=1e-5)
    found = to_numpy(grad_cam(model, images, output="logits", target=[0, 1, 2]))
    assert found.shape == (2, 3, *SHAPE[:2]) and found.std() > 0.01


def test_saved_and_exported(models, images, tmp_path):
    model = models["deep", None]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    answers = [to_numpy(each(images)["logits"]) for each in (model, loaded)]
    np.testing.assert_allclose(*answers, atol=1e-6)
    if keras.backend.backend() == "tensorflow":
        model.export(tmp_path / "model", verbose=False)
        served = keras.layers.TFSMLayer(tmp_path / "model", call_endpoint="serve")
        for name, answer in served(images).items():
            np.testing.assert_allclose(answer, to_numpy(model(images)[name]), atol=1e-5)


def test_half_precision_ends_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = prompt_cam(vit((8, 1, HEADS), 8, SHAPE), CLASSES)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {each.dtype for each in model.outputs} == {"float32"}


def test_refuses_other_models_and_too_many_blocks():
    inputs = keras.Input(SHAPE)
    other = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
    with pytest.raises(ValueError, match="Expected a model with a transformer inside"):
        prompt_cam(other, CLASSES)
    with pytest.raises(ValueError, match="at most 3, .*blocks=4"):
        prompt_cam(vit((8, 3, HEADS), 8, SHAPE), CLASSES, blocks=4)
    with pytest.raises(ValueError, match="Did you mean 'shallow'"):
        prompt_cam(vit((8, 1, HEADS), 8, SHAPE), CLASSES, "shalow")
