import keras
import numpy as np
import pytest

from keras_attn.graph.costs import multiply_adds, trainable_params
from keras_attn.models import (
    VIT_SIZES,
    attention_map,
    attention_map_model,
    attention_of,
    vit,
)
from tests.harness import randomize, slow_on, to_numpy, unweighted

SIZE = (12, 2, 3)
SHAPE = (16, 24, 3)

pytestmark = slow_on("jax")


@pytest.fixture(scope="module")
def model():
    model = vit(SIZE, 8, SHAPE, num_classes=5)
    randomize(model)
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, *SHAPE)).astype("float32")


@pytest.mark.parametrize(
    "size, parameters",
    [("base", 85_807_872), ("small", 21_670_272), ("tiny", 5_526_720)],
)
@unweighted()
def test_parameters_of_the_authors(size, parameters):
    width, depth, heads = VIT_SIZES[size]
    short = vit((width, 1, heads), 8)
    others = (depth - 1) * trainable_params(short.get_layer("block_1"))
    assert depth == 12 and trainable_params(short) + others == parameters


@unweighted()
def test_sizes_by_name():
    tiny = vit("tiny", 16, (16, 32, 3))
    assert tiny.output["embedding"].shape == (None, 192)
    assert tiny.get_layer("block_12").num_heads == 3


def test_named_outputs(model, images):
    outputs = model(images)
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == {"embedding": (3, 12), "tokens": (3, 7, 12), "logits": (3, 5)}
    tokens = to_numpy(outputs["tokens"])
    np.testing.assert_array_equal(to_numpy(outputs["embedding"]), tokens[:, 0])


def test_costs_what_its_products_cost(model):
    block = 12 * 7 * 12**2 + 2 * 7**2 * 12
    assert multiply_adds(model) == 6 * 192 * 12 + 2 * block + 12 * 5


def test_map_is_a_row_of_the_attention(model, images):
    for block in (0, -1, "block_1"):
        maps = to_numpy(attention_map_model(model, block=block)(images))
        attention = to_numpy(attention_of(model, block)(images))
        wanted = attention[:, :, 0, 1:].reshape(3, 3, 2, 3).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(maps, wanted, atol=1e-6)
    assert np.abs(maps - attention[:, :, 0, 1:].mean()).max() > 1e-3


def test_map_runs_no_more_than_one_row_of_the_last_block(model):
    """The last block's MLP, its values and the last norm have no part in the map."""
    maps = attention_map_model(model)
    names = {layer.name for layer in maps.layers}
    assert "normalization" not in names and "block_2" in names
    changed = keras.models.clone_model(model)
    changed.set_weights(model.get_weights())
    block = changed.get_layer("block_2")
    kernel = to_numpy(block.attention.queries_keys_values.kernel)
    kernel[:, 24:] = np.nan
    block.attention.queries_keys_values.kernel.assign(kernel)
    block.expand.kernel.assign(np.full(block.expand.kernel.shape, np.nan))
    images = np.ones((1, *SHAPE), "float32")
    wanted = to_numpy(maps(images))
    found = to_numpy(attention_map_model(changed)(images))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_maps_of_many_images_in_one_call(model, images):
    maps = attention_map(model, images, batch_size=2, factor=8)
    assert maps.shape == (3, 16, 24, 1) and maps.dtype == "float32"
    np.testing.assert_allclose(maps.min(axis=(1, 2, 3)), 0.0, atol=1e-6)
    np.testing.assert_allclose(maps.max(axis=(1, 2, 3)), 1.0, atol=1e-6)
    raw = attention_map(model, images, aggregate=None, normalize=None)
    wanted = to_numpy(attention_map_model(model)(images))
    np.testing.assert_allclose(raw, wanted, atol=1e-6)


def test_one_model_for_images_of_any_size(model, images):
    open_model = vit(SIZE, 8, (None, None, 3), 5, position_size=SHAPE[:2])
    open_model.set_weights(model.get_weights())
    found, wanted = (to_numpy(one(images)["logits"]) for one in (open_model, model))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert open_model(images[:, :8, :16])["tokens"].shape == (3, 3, 12)
    maps = attention_map_model(open_model)
    assert maps(images[:, :8, :16]).shape == (3, 1, 2, 3)


def test_saved_and_loaded(model, images, tmp_path):
    maps = attention_map_model(model, "mean", "minmax", factor=8)
    maps.save(tmp_path / "maps.keras")
    loaded = keras.saving.load_model(tmp_path / "maps.keras")
    np.testing.assert_allclose(
        to_numpy(loaded(images)), to_numpy(maps(images)), atol=1e-6
    )
    model.save(tmp_path / "vit.keras")
    again = attention_of(keras.saving.load_model(tmp_path / "vit.keras"), "block_1")
    wanted = to_numpy(attention_of(model, 0)(images))
    np.testing.assert_allclose(to_numpy(again(images)), wanted, atol=1e-6)


def test_behind_preprocessing(model, images):
    raw = keras.Input(SHAPE)
    whole = vit(SIZE, 8, num_classes=5, input_tensor=keras.layers.Rescaling(2.0)(raw))
    whole.set_weights(model.get_weights())
    found = to_numpy(attention_map_model(whole)(images / 2))
    wanted = to_numpy(attention_map_model(model)(images))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_drop_path_grows_with_depth():
    model = vit((12, 3, 2), 8, SHAPE, drop_path=0.2)
    rates = [model.get_layer(f"block_{i}").drop_path for i in (1, 2, 3)]
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2])


def test_refuses_bad_arguments(model):
    with pytest.raises(ValueError, match="Did you mean 'small'"):
        vit("smal")
    with pytest.raises(ValueError, match="Expected `size`"):
        vit((12, 0, 3))
    with pytest.raises(ValueError, match=r"patch_size=\(16, 16\).* 40 x 32"):
        vit(SIZE, 16, (40, 32, 3))
    with pytest.raises(ValueError, match="of the 2 blocks, such as .* block=2"):
        attention_of(model, 2)
    with pytest.raises(ValueError, match="block='block_9'"):
        attention_map_model(model, block="block_9")
    inputs = keras.Input((5,))
    with pytest.raises(ValueError, match=r"Expected a model of vit\(\)"):
        attention_of(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
