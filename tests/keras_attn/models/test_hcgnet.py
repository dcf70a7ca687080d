import keras
import numpy as np
import pytest

from keras_attn.graph.costs import multiply_adds, trainable_params
from keras_attn.models.hcgnet import (
    gated_excitation,
    hcgnet,
    hcgnet_c,
    hybrid_module,
    transition,
)
from tests import harness
from tests.harness import unweighted
from tests.reference import operations

counting = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="building is slow elsewhere, and counts and shapes are the same",
)


@counting
@unweighted()
def test_hcgnet_c_costs_what_is_published():
    """42.2 M parameters and 7.1 G operations.

    The authors count two operations for a value that batch normalisation gives and
    one for a value that ReLU gives or a pooling takes.
    """
    model = hcgnet_c()
    assert trainable_params(model) == 42_153_208
    counts = operations.count(model, 224, 224)
    assert counts["multiply_adds"] == 6_971_626_636
    total = counts["multiply_adds"] + 2 * counts["normalized"]
    total += counts["rectified"] + counts["averaged"]
    assert round(total / 1e9, 1) == 7.1


def parameters(channels, depths, growths, classes):
    """Trainable parameters as a sum over the network's description."""

    def gates(width, ratio):
        convolutions = 2 * (2 * width + 9 * width)
        contexts = 3 * (width + 1)
        total = convolutions + contexts
        for taken, heads in ((2 * width, 2), (width, 1)):
            hidden = taken // ratio
            total += taken * hidden + hidden + 2 * hidden
            total += heads * (hidden * width + width)
        return total

    total = 9 * (3 * 32 + 32 * 32 + 32 * channels) + 2 * (32 + 32 + channels)
    for stage, (growth, depth) in enumerate(zip(growths, depths, strict=True), 1):
        for _ in range(depth):
            total += 2 * channels + channels * 4 * growth
            total += 2 * 4 * growth + 9 * growth * growth + gates(growth, 2)
            channels += growth
        if stage < len(depths):
            middle = channels - (channels - channels // 2) // 2
            total += 2 * channels + channels * middle
            total += 2 * middle + 9 * middle * (channels // 2)
            channels //= 2
            total += gates(channels, 4)
    return total + 2 * channels + channels * classes + classes


@pytest.fixture(scope="module")
def small_hcgnet():
    return hcgnet((8, 12), (2, 1), num_classes=5, input_shape=(63, 95, 3))


@counting
def test_parameters_follow_the_description(small_hcgnet):
    assert trainable_params(small_hcgnet) == parameters(64, (2, 1), (8, 12), 5)
    # The paper prints 12.9 M for HCGNet-B.
    hcgnet_b = parameters(64, (3, 6, 12, 8), (32, 48, 64, 96), 1000)
    assert hcgnet_b == 12_845_501
    assert parameters(64, (6, 12, 18, 14), (48, 56, 72, 112), 1000) == 42_153_208


@counting
def test_accounting_agrees(small_hcgnet):
    wanted = operations.count(small_hcgnet, 63, 95)["multiply_adds"]
    assert multiply_adds(small_hcgnet) == wanted


@counting
def test_modules_append_and_transitions_halve(small_hcgnet):
    layer = small_hcgnet.get_layer
    assert layer("stage1").output.shape == (None, 16, 24, 64 + 2 * 8)
    assert layer("stage2").output.shape == (None, 8, 12, 40 + 12)
    taken, _ = layer("stage1_module2_concat").input
    assert taken is layer("stage1_module1_concat").output


def test_gates_equal_their_equations():
    ratio, channels = 2, 6
    images = np.random.default_rng(0).normal(size=(3, 5, 4, channels)).astype("float32")
    inputs = keras.Input((None, None, channels))
    model = keras.Model(inputs, gated_excitation(inputs, ratio, "module"))
    harness.randomize(model)

    def weights(layer):
        return model.get_layer(f"module_{layer}").get_weights()

    def dense(x, layer):
        kernel, bias = weights(layer)
        return x @ kernel + bias

    def normalized(x, layer):
        gamma, beta, mean, variance = weights(f"{layer}_normalization")
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def depthwise(x, dilation):
        """One 3x3 window for each channel; its cells are `dilation` apart."""
        x = np.maximum(normalized(x, f"excite{dilation}"), 0)
        (kernel,) = weights(f"excite{dilation}")
        reach = ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0))
        padded = np.pad(x, reach)
        result = np.zeros_like(x)
        for i in range(3):
            for j in range(3):
                top, left = dilation * i, dilation * j
                window = padded[:, top : top + 5, left : left + 4]
                result += window * kernel[i, j, 0]
        return result

    def pooled(x, layer):
        cells = x.reshape(3, 20, channels)
        scores = np.exp(dense(cells, layer))
        return np.sum(cells * scores, 1) / np.sum(scores, 1)

    contexts = [pooled(depthwise(images, d), f"context{d}") for d in (1, 2)]
    hidden = np.tanh(normalized(dense(np.concatenate(contexts, 1), "update"), "update"))
    scores = np.exp([dense(hidden, "update1"), dense(hidden, "update2")])
    update = np.sum(scores * contexts, 0) / np.sum(scores, 0)
    hidden = dense(pooled(images, "forget_context"), "forget")
    hidden = np.tanh(normalized(hidden, "forget"))
    forget = 1 / (1 + np.exp(-dense(hidden, "forget_gate")))
    wanted = forget[:, None, None] * images + update[:, None, None]
    assert hidden.shape == (3, channels // ratio)
    np.testing.assert_allclose(harness.run(model, images), wanted, 1e-4, 1e-4)


def test_every_weight_learns():
    inputs = keras.Input((None, None, 8))
    x = hybrid_module(inputs, 4, "module", decay=1e-3)
    model = keras.Model(inputs, transition(x, "transition", decay=1e-3))
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    assert len(model.losses) == len(kernels)
    before = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
    # JAX is quicker compiled, the others are not.
    eager = keras.backend.backend() != "jax"
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=eager)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(4, 6, 4, 8))
    model.fit(images, generator.normal(size=(4, 3, 2, 6)), verbose=0)
    still = {
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if np.abs(keras.ops.convert_to_numpy(weight) - old).max() < 1e-6
    }
    # A softmax is blind to the bias of its scores, a normalisation to that before it.
    blind = ("context1/score", "context2/score", "forget_context/score")
    blind += ("update", "forget")
    names = ("module", "transition")
    assert still <= {f"{name}_{layer}/bias" for name in names for layer in blind}
