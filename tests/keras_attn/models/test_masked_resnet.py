import zlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.graph.costs import trainable_params
from keras_attn.models.masked_resnet import end_to_end, masked_resnet
from tests.harness import gradients, slow_on, to_numpy
from tests.reference.masked_resnet import resnet8

pytestmark = slow_on("jax")
SHAPE = (16, 24, 3)
BLOCKS = [f"stage{stage}_block1" for stage in (1, 2, 3)]


def build(**options):
    """Networks that share a layer share its weights."""
    model = masked_resnet(**{"num_classes": 5, "input_shape": SHAPE, **options})
    for variable in model.variables:
        random = np.random.default_rng(zlib.crc32(variable.path.encode()))
        if variable.name == "kernel":
            spread = np.sqrt(2 / np.prod(variable.shape[:-1]))
            variable.assign(random.normal(0, spread, variable.shape))
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        else:
            variable.assign(random.normal(0, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    return {
        "images": random.normal(size=(3, *SHAPE)).astype("float32"),
        "attention_map": random.uniform(size=(3, *SHAPE[:2], 1)).astype("float32"),
    }


@pytest.fixture(scope="module")
def plain(inputs):
    model = build(strength=None)
    return model, to_numpy(model(inputs["images"])["logits"])


def set_masks(model, logit):
    """Every mask is the sigmoid of this number."""
    for name in BLOCKS:
        layer = model.get_layer(f"{name}_attention_conv2_normalization")
        layer.gamma.assign(ops.zeros_like(layer.gamma))
        layer.beta.assign(logit * ops.ones_like(layer.beta))


# ---- the layout ------------------------------------------------------------------


@pytest.mark.parametrize("classes, branch", [(10, 78_378), (100, 84_228)])
def test_parameters_of_resnet8(classes, branch):
    alone = masked_resnet(num_classes=classes, strength=None)
    assert trainable_params(alone) == branch
    both = masked_resnet(num_classes=classes, strength=0)
    assert trainable_params(both) == branch + 74_464
    assert both.get_layer("stem").output.shape == (None, 56, 56, 16)
    assert both.output["mask_3"].shape == (None, 14, 14, 64)


def test_parameters_of_resnet50():
    """The published network's, but for the smaller window of the stem."""
    model = masked_resnet(50, 1000, block="bottleneck", strength=None)
    assert trainable_params(model) == 25_557_032 - (7 * 7 - 4 * 4) * 3 * 64


def test_depth_and_native_stem():
    model = masked_resnet(14, 7, stem="native", input_shape=(32, 24, 3))
    shapes = [model.output[f"mask_{i}"].shape for i in range(1, 7)]
    sizes = [(32, 24, 16)] * 2 + [(16, 12, 32)] * 2 + [(8, 6, 64)] * 2
    assert shapes == [(None, *size) for size in sizes]
    assert model.output["logits"].shape == (None, 7)


def test_bottleneck_blocks():
    model = masked_resnet(14, block="bottleneck", input_shape=(32, 64, 3))
    assert len(model.output) == 1 + 4
    assert model.output["mask_1"].shape == (None, 8, 16, 256)
    assert model.output["mask_4"].shape == (None, 1, 2, 2048)
    attention = model.get_layer("stage1_block1_attention_conv3").kernel
    assert attention.shape == model.get_layer("stage1_block1_conv3").kernel.shape


# ---- what it computes ------------------------------------------------------------


@pytest.mark.parametrize("target", ["shortcut", "branch", "literal"])
def test_equals_the_numpy_version(target, inputs):
    model = build(strength=0.4, target=target)
    found = model(inputs)
    logits, masks = resnet8(model, **inputs, strength=0.4, target=target)
    np.testing.assert_allclose(to_numpy(found["logits"]), logits, 1e-4, 1e-4)
    for number, mask in enumerate(masks, 1):
        np.testing.assert_allclose(to_numpy(found[f"mask_{number}"]), mask, 1e-4, 1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_strength_zero_is_bitwise_the_plain_network(training, inputs, plain):
    model = build(strength=0)
    wanted = plain[0].stateless_call(
        *state(plain[0]), inputs["images"], training=training
    )[0]
    found = model.stateless_call(*state(model), inputs, training=training)[0]
    np.testing.assert_array_equal(to_numpy(found["logits"]), to_numpy(wanted["logits"]))


def state(model):
    return (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )


@pytest.mark.parametrize("strength, learns", [(0, False), (0.5, True), (1, True)])
def test_whether_the_attention_branch_learns(strength, learns, inputs):
    model = build(strength=strength)
    weights, others = state(model)

    def loss(*values):
        outputs, _ = model.stateless_call(list(values), others, inputs)
        return ops.sum(ops.square(outputs["logits"]))

    found = gradients(loss, *map(to_numpy, weights))
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        if "attention" in variable.path:
            moved = gradient is not None and bool(np.any(gradient))
            assert moved == learns, variable.path
        else:
            assert np.any(gradient), variable.path


@pytest.mark.parametrize("strength", [0.3, 1])
@pytest.mark.parametrize("target", ["shortcut", "branch"])
def test_open_masks_give_the_plain_network(strength, target, inputs, plain):
    model = build(strength=strength, target=target)
    set_masks(model, 40)
    found = to_numpy(model(inputs)["logits"])
    np.testing.assert_array_equal(found, plain[1])


def test_shut_masks_leave_no_shortcut(inputs):
    model = build(strength=1)
    set_masks(model, -200)
    wanted = [f"{name}_conv2_normalization" for name in BLOCKS]
    names = [*wanted, *(f"{name}_out" for name in BLOCKS)]
    outputs = {name: model.get_layer(name).output for name in names}
    found = keras.Model(model.input, outputs)(inputs)
    for name in BLOCKS:
        branch = to_numpy(found[f"{name}_conv2_normalization"])
        np.testing.assert_array_equal(
            to_numpy(found[f"{name}_out"]), np.maximum(branch, 0)
        )


# ---- the map ---------------------------------------------------------------------


def test_a_stem_window_lies_inside_one_cell_of_the_map():
    model = masked_resnet(map_shape=(28, 28, 1))
    stem = keras.Model(
        model.input["attention_map"], model.get_layer("attention_stem_relu").output
    )
    maps = np.random.default_rng(1).uniform(size=(1, 28, 28, 1))
    found = to_numpy(stem(maps))
    assert found.shape == (1, 56, 56, 16)
    cells = found[:, ::2, ::2]
    np.testing.assert_array_equal(found, cells.repeat(2, axis=1).repeat(2, axis=2))
    assert np.unique(cells[..., cells.max((0, 1, 2)) > 0]).size > 28 * 28


def test_a_small_map_is_enlarged_inside(inputs):
    full, small = build(), build(map_shape=(4, 3, 1))
    maps = inputs["attention_map"][:, :4, :3]
    enlarged = maps.repeat(4, axis=1).repeat(8, axis=2)
    wanted = full({**inputs, "attention_map": enlarged})["logits"]
    found = small({**inputs, "attention_map": maps})["logits"]
    np.testing.assert_allclose(to_numpy(found), to_numpy(wanted), 1e-6)
    smooth = build(map_shape=(4, 3, 1), interpolation="bilinear")
    found = smooth({**inputs, "attention_map": maps})["logits"]
    assert np.abs(to_numpy(found) - to_numpy(wanted)).max() > 1e-4


def test_controls_keep_the_parameters_and_change_the_map(inputs):
    true = build()
    changed = {
        "constant": np.ones_like(inputs["attention_map"]),
        "shuffled": inputs["attention_map"][[2, 0, 1]],
    }
    for control, maps in changed.items():
        model = build(control=control)
        assert trainable_params(model) == trainable_params(true)
        wanted = to_numpy(true({**inputs, "attention_map": maps})["logits"])
        np.testing.assert_allclose(to_numpy(model(inputs)["logits"]), wanted, 1e-6)
        assert np.abs(to_numpy(true(inputs)["logits"]) - wanted).max() > 1e-4


def test_save_and_load(inputs, tmp_path):
    model = build(
        strength=0.5, target="branch", control="shuffled", map_shape=(8, 12, 1)
    )
    inputs = {**inputs, "attention_map": inputs["attention_map"][:, ::2, ::2]}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found, wanted = loaded(inputs), model(inputs)
    assert list(found) == list(wanted) == ["logits", "mask_1", "mask_2", "mask_3"]
    for name, value in wanted.items():
        np.testing.assert_array_equal(to_numpy(found[name]), to_numpy(value))


# ---- from images alone -----------------------------------------------------------


def generator():
    images = keras.Input(SHAPE)
    maps = keras.layers.Conv2D(1, 4, 4, activation="sigmoid", name="head")(images)
    # The name that generators from transformers have.
    return keras.Model(images, maps, name="attention_map")


def test_end_to_end_is_the_network_on_the_generated_map(inputs, tmp_path):
    maps, network = generator(), build()
    model = end_to_end(maps, network)
    found = model(inputs["images"])
    attention = to_numpy(maps(inputs["images"]))
    np.testing.assert_array_equal(to_numpy(found["attention_map"]), attention)
    enlarged = attention.repeat(4, axis=1).repeat(4, axis=2)
    wanted = network({**inputs, "attention_map": enlarged})
    np.testing.assert_allclose(
        to_numpy(found["logits"]), to_numpy(wanted["logits"]), 1e-6
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = to_numpy(loaded(inputs["images"])["logits"])
    np.testing.assert_array_equal(again, to_numpy(found["logits"]))


@pytest.mark.parametrize("fixed", [False, True])
def test_end_to_end_trains_the_generator(fixed, inputs):
    maps, network = generator(), build()
    maps.trainable = not fixed
    model = end_to_end(maps, network)
    before = maps.get_weights(), network.get_layer("stem").get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), {"logits": loss}, run_eagerly=True)
    model.fit(inputs["images"], {"logits": np.arange(3)}, verbose=0)
    assert np.any(network.get_layer("stem").get_weights()[0] != before[1][0])
    moved = [
        np.any(new != old)
        for new, old in zip(maps.get_weights(), before[0], strict=True)
    ]
    assert moved == [not fixed] * 2


def test_a_map_tensor_from_the_images_needs_no_second_input(inputs):
    images = keras.Input(SHAPE, name="images")
    maps = generator()(images)
    model = build(input_tensor=images, map_tensor=maps)
    assert len(model.inputs) == 1
    assert model(inputs["images"])["mask_1"].shape == (3, 4, 6, 16)


# ---- bad input -------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"depth": 10}, "`depth` to be 6 n"),
        ({"depth": 2}, "`depth` to be 6 n"),
        ({"depth": 8, "block": "bottleneck"}, "`depth` to be one of"),
        ({"stem": "7x7"}, "`stem` to be one of"),
        ({"block": "wide"}, "`block` to be one of"),
        ({"control": "random"}, "`control` to be one of"),
        ({"interpolation": "cubic"}, "`interpolation` to be one of"),
        ({"strength": 1.1}, r"`strength` to be a number in \[0, 1\]"),
        ({"input_shape": (18, 24, 3)}, "divisible by 4"),
        ({"map_shape": (5, 6, 1)}, "whose size divides"),
        ({"map_shape": (32, 48, 1)}, "whose size divides"),
    ],
)
def test_refuses_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_end_to_end_refuses_models_that_do_not_fit(plain):
    network = build()
    with pytest.raises(ValueError, match="with the inputs 'images' and"):
        end_to_end(generator(), plain[0])
    images = keras.Input(SHAPE)
    wide = keras.Model(images, keras.layers.Conv2D(2, 4, 4)(images), name="wide")
    with pytest.raises(ValueError, match="Expected `map_model` to give maps"):
        end_to_end(wide, network)
