"""Attention maps of KerasHub's transformers, tiny, against NumPy."""

import keras
import numpy as np
import pytest

from keras_attn.explain import (
    attention_maps,
    grad_cam,
    gradient_rollout,
    head_features,
    last_map,
    legrad,
    object_heads,
)
from keras_attn.models import attention_map_model, prompt_cam
from tests.harness import to_numpy
from tests.reference.hub_transformers import attentions, forward

hub = pytest.importorskip("keras_hub")

SIZES = dict(patch_size=8, num_layers=2, num_heads=2, hidden_dim=16)
# Model, its arguments, epsilon, tokens before the patches, base of rotary positions.
FAMILIES = {
    "vit": ("ViTBackbone", dict(mlp_dim=12), (16, 24), 1e-6, 1, None),
    "deit": ("DeiTBackbone", dict(intermediate_dim=12), (16, 24), 1e-6, 2, None),
    "dinov2": (
        "DINOV2Backbone",
        dict(
            intermediate_dim=12,
            num_register_tokens=4,
            position_embedding_shape=(16, 16, 3),
        ),
        (16, 16),
        1e-6,
        5,
        None,
    ),
    "dinov3": ("DINOV3Backbone", dict(intermediate_dim=12), (16, 24), 1e-5, 5, 100.0),
}


def family(name):
    kind, options, size, *rest = FAMILIES[name]
    model = getattr(hub.models, kind)(image_shape=(*size, 3), **SIZES, **options)
    random = np.random.default_rng(0)
    model.set_weights([0.3 * random.standard_normal(w.shape) for w in model.weights])
    images = random.standard_normal((2, *size, 3)).astype("float32")
    return model, images, *rest


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_numpy(name):
    model, images, epsilon, prefix, rotary = family(name)
    weights = {weight.path: to_numpy(weight) for weight in model.weights}
    wanted = attentions(weights, images, 2, epsilon, rotary)
    grid = images.shape[1] // 8, images.shape[2] // 8

    def check(found, rows, atol=1e-5):
        rows = rows[..., prefix:].reshape(2, 2, *grid)
        np.testing.assert_allclose(to_numpy(found), rows, atol=atol)
        assert rows.std() > 1e-3

    check(attention_maps(model, images), wanted[1][:, :, 0])
    check(
        attention_maps(model, images, 0, (1, 1)), wanted[0][:, :, prefix + grid[1] + 1]
    )
    maps = attention_map_model(model)
    check(np.moveaxis(to_numpy(maps(images)), -1, 1), wanted[1][:, :, 0])
    mean = attention_map_model(model, "mean", factor=8)
    assert mean.output.shape == (None, *images.shape[1:3], 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_of_objects(name):
    model, images, *_ = family(name)
    assert set(object_heads(model, images)) <= {(0, 0), (0, 1), (1, 0), (1, 1)}
    features = head_features(model, images, [(0, 0), (1, 1)])
    grid = images.shape[1] // 8, images.shape[2] // 8
    assert features.shape == (2, *grid, 2 * 3 * 8)
    assert features.std(axis=(1, 2)).min() > 1e-3


def test_windows_without_a_class_token_are_refused():
    model = hub.models.SwinTransformerBackbone(
        image_shape=(32, 32, 3),
        patch_size=4,
        embed_dim=8,
        depths=(1,),
        num_heads=(2,),
        window_size=4,
    )
    images = np.zeros((2, 32, 32, 3), "float32")
    with pytest.raises(ValueError, match=r"\(8, 2, 16, 16\).*within windows"):
        attention_maps(model, images)


def test_the_model_of_maps_is_exported_and_saved(tmp_path):
    model, images, *_ = family("dinov3")
    maps = attention_map_model(model, "mean", "minmax")
    wanted = to_numpy(maps(images))
    maps.save(tmp_path / "maps.keras")
    loaded = keras.saving.load_model(tmp_path / "maps.keras")
    np.testing.assert_allclose(to_numpy(loaded(images)), wanted, atol=1e-6)
    if keras.backend.backend() == "tensorflow":
        maps.export(tmp_path / "maps", verbose=False)
        served = keras.layers.TFSMLayer(tmp_path / "maps", call_endpoint="serve")
        np.testing.assert_allclose(to_numpy(served(images)), wanted, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_class_on_the_tokens_of_a_backbone(name):
    backbone, images, *_ = family(name)
    inputs = keras.Input(images.shape[1:])
    given = keras.tree.pack_sequence_as(backbone.input, [inputs])
    scores = keras.layers.Dense(3, activation="softmax")(backbone(given)[:, 0])
    model = keras.Model(inputs, scores)
    random = np.random.default_rng(2)
    model.layers[-1].set_weights([random.standard_normal((16, 3)), np.zeros(3)])
    layer = last_map(model)
    assert layer.startswith(f"{backbone.name}/") and layer[-1] == "1"
    maps = [
        to_numpy(method(model, images, target=[0, 1, 2]))
        for method in (grad_cam, legrad, gradient_rollout)
    ]
    named = layer.removeprefix(f"{backbone.name}/")
    maps.append(to_numpy(grad_cam(model, images, named, target=[0, 1, 2])))
    for each in maps:
        assert each.shape == (2, 3, *images.shape[1:3]) and each.std() > 0.05
    np.testing.assert_array_equal(maps[0], maps[-1])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("variant, blocks", [("deep", 2), ("deep", 1), ("shallow", 2)])
def test_prompts_equal_numpy(name, variant, blocks):
    backbone, images, epsilon, prefix, rotary = family(name)
    # Inside another model, as in a classifier.
    inputs = keras.Input(images.shape[1:])
    given = keras.tree.pack_sequence_as(backbone.input, [2 * inputs])
    classifier = keras.Model(inputs, keras.layers.Dense(5)(backbone(given)[:, 0]))
    model = prompt_cam(classifier, 3, variant, blocks)
    *prompts, kernel = model.trainable_weights
    assert len(prompts) == (blocks if variant == "deep" else 1)
    random = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(random.standard_normal(weight.shape))
    found = {name: to_numpy(each) for name, each in model(images).items()}

    weights = {weight.path: to_numpy(weight) for weight in backbone.weights}
    places = range(2 - blocks, 2 - blocks + len(prompts))
    added = dict(zip(places, map(to_numpy, prompts), strict=True))
    attention, tokens = forward(weights, 2 * images, 2, epsilon, rotary, added)
    np.testing.assert_allclose(
        found["logits"], tokens[:, :3] @ to_numpy(kernel), atol=1e-4
    )
    maps = attention[-1][:, :, :3, 3 + prefix :].swapaxes(1, 2)
    grid = images.shape[1] // 8, images.shape[2] // 8
    wanted = maps.reshape(2, 3, 2, *grid)
    np.testing.assert_allclose(found["prompt_attention"], wanted, atol=1e-5)
    assert wanted.std() > 1e-3


def test_prompts_are_saved(tmp_path):
    backbone, images, *_ = family("dinov3")
    model = prompt_cam(backbone, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    answers = [to_numpy(each(images)["logits"]) for each in (model, loaded)]
    np.testing.assert_allclose(*answers, atol=1e-6)
    assert len(loaded.trainable_weights) == len(model.trainable_weights) == 3
    with pytest.raises(ValueError, match="at most 2, .*blocks=3"):
        prompt_cam(backbone, 3, blocks=3)
