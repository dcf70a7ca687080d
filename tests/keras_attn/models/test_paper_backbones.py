"""Table 1 of the class-embedding paper: parameters of all ten rows."""

import keras
import numpy as np
import pytest

from keras_attn.graph.costs import trainable_params
from keras_attn.models import BACKBONES, build_model
from tests.harness import compiled_layer, slow_on, unweighted

# Backbone, row -> constant part and part per class of the trainable parameters. The
# paper prints them with two decimals: 0.96M + 257C, 0.96M + 386C, ...
TABLE = {
    ("rn26", "baseline"): (961_504, 257),
    ("rn26", "aux"): (961_504, 386),
    ("rn26", "class_embedding"): (977_888, 516),
    ("rn38", "baseline"): (1_423_840, 257),
    ("rn38", "class_embedding"): (1_440_224, 516),
    ("wrn16", "baseline"): (1_281_248, 129),
    ("wrn16", "class_embedding"): (1_297_632, 388),
    ("dn100", "baseline"): (1_201_002, 535),
    ("dn100", "class_embedding"): (1_318_650, 1_222),
    ("dn100", "class_embedding_concat"): (1_355_178, 1_264),
}


@slow_on(
    "jax", "counts are the same on every backend, and JAX is slow to build networks"
)
@pytest.mark.parametrize("backbone, row", TABLE)
@pytest.mark.parametrize("num_classes, size", [(10, 32), (100, 84)])
@unweighted()
def test_parameters_equal_the_table(backbone, row, num_classes, size):
    constant, per_class = TABLE[backbone, row]
    model = build_model(
        backbone, row=row, input_shape=(size, size, 3), num_classes=num_classes
    )
    assert trainable_params(model) == constant + per_class * num_classes


@pytest.mark.parametrize(
    "backbone, size, stages",
    [
        ("rn26", 32, (32, 16, 8, 8)),
        ("rn26", 84, (42, 21, 11, 11)),
        ("wrn16", 32, (32, 16, 8, 8)),
        ("wrn16", 84, (42, 21, 11, 11)),
        ("dn100", 32, (16, 8, 8, 8)),
        ("dn100", 84, (42, 21, 10, 10)),
    ],
)
@unweighted()
def test_map_sizes(backbone, size, stages):
    model = build_model(backbone, input_shape=(size, size, 3))
    found = tuple(
        model.get_layer(f"stage{stage}").output.shape[1] for stage in (1, 2, 3, 4)
    )
    assert found == stages


@unweighted()
def test_resnet20_has_three_stages_and_nine_n_plus_two_layers():
    model = build_model("resnet20")
    widths = [model.get_layer(f"stage{i}").output.shape[-1] for i in (1, 2, 3)]
    assert widths == [64, 128, 256]
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    depth = sum(
        isinstance(layer, kinds) and "projection" not in layer.name
        for layer in model.layers
    )
    assert depth == 9 * 2 + 2


@pytest.mark.parametrize("backbone", ["rn26", "wrn16"])
def test_odd_and_rectangular_images(backbone):
    model = build_model(
        backbone, row="class_embedding", input_shape=(29, 43, 3), num_classes=3
    )
    outputs = compiled_layer(model)(np.zeros((2, 29, 43, 3), "float32"))
    assert outputs["logits"].shape == (2, 3)
    assert outputs["patch_logits"].shape == (2, 8, 11, 3)


def test_zero_values_and_identity_shortcut_give_the_baseline():
    """The block at its neutral weights leaves the network as it was."""
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    baseline = build_model("rn26")
    model = build_model("rn26", row="class_embedding")
    for layer in baseline.layers:
        model.get_layer(layer.name).set_weights(layer.get_weights())
    block = model.get_layer("class_embedding")
    block.values.kernel.assign(np.zeros((10, 128)))
    block.shortcut.kernel.assign(np.eye(128))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(compiled_layer(model)(images)["logits"]),
        keras.ops.convert_to_numpy(compiled_layer(baseline)(images)["logits"]),
        atol=1e-5,
    )


def test_patch_loss_alone_does_not_train_the_last_stage():
    """lambda = 1: the main loss has no weight, so stage 4 has no gradient."""
    from keras_attn.losses import mixed_patch_loss

    model = build_model("resnet20", row="class_embedding", num_classes=3)
    model.compile(keras.optimizers.SGD(0.1), **mixed_patch_loss(1.0))
    weights = {w.path: keras.ops.convert_to_numpy(w) for w in model.trainable_weights}
    labels = np.array([0, 2])
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    model.fit(images, {"logits": labels, "patch_logits": labels}, verbose=0)
    moved = {
        w.path
        for w in model.trainable_weights
        if np.abs(keras.ops.convert_to_numpy(w) - weights[w.path]).max() > 0
    }
    assert not [
        path for path in moved if path.startswith(("stage3", "final", "logits"))
    ]
    assert not [p for p in moved if "values" in p or "shortcut" in p]
    assert [path for path in moved if path.startswith("stage2")]
    assert "class_embedding/patch_logits/classifier/kernel" in moved


@unweighted()
def test_builds_on_the_callers_tensor():
    images = keras.Input((32, 32, 3), name="raw")
    scaled = keras.layers.Rescaling(1 / 255)(images)
    model = build_model("wrn16", input_tensor=scaled)
    assert model.input.name == "raw"


def test_weight_decay_penalises_every_kernel_and_nothing_else():
    model = build_model("rn26", row="class_embedding", weight_decay=0.5)
    penalty = sum(float(loss) for loss in model.losses)
    squares = sum(
        float(np.sum(keras.ops.convert_to_numpy(weight) ** 2))
        for weight in model.trainable_weights
        if weight.path.endswith("/kernel")
    )
    np.testing.assert_allclose(penalty, 0.5 * squares, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_refuses_unknown_rows(backbone):
    with pytest.raises(ValueError, match="Expected `row`"):
        build_model(backbone, row="ours")


def test_refuses_unknown_backbones_and_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'rn26'"):
        build_model("rn62")


def test_refuses_unknown_activations():
    with pytest.raises(ValueError, match="Expected `activation`"):
        build_model("resnet20", activation="relu6")
