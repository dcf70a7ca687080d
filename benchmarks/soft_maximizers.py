"""Soft maximisers against the BatchNormalization and ReLU that they replace."""

import statistics

import keras
import numpy as np

from benchmarks import measure
from keras_attn.layers.margin_softmax import MarginSoftmax
from keras_attn.layers.perturbed_argmax import PerturbedArgmax

MAPS = (32, 32, 32, 64)
SAMPLES, QUICK_SAMPLES = 600, 12
XLA = {"tensorflow": ("off", "on"), "jax": ("on",), "torch": ("off",)}


def run(quick):
    """Measurements of both soft maximisers, with and without XLA."""
    samples = QUICK_SAMPLES if quick else SAMPLES
    measurements = []
    for number, xla in enumerate(XLA[keras.backend.backend()]):
        compiled = xla == "on"
        cases = {
            "bn_relu": gradient_step(bn_relu(), MAPS, compiled),
            "margin_softmax": gradient_step(
                [MarginSoftmax(scale=17.0)], MAPS, compiled
            ),
        }
        seconds = measure.interleaved(cases, 5 if quick else 31, warmup=3)
        measurements += measure.relative_times(seconds, "bn_relu", xla)
        if number:
            continue
        # Slow enough that one round against the other's median is precise.
        layer = PerturbedArgmax(scale=17.0, samples=samples, seed=0)
        perturbed = gradient_step([layer], MAPS, compiled)
        times = {
            **measure.interleaved(
                {f"perturbed_argmax, {samples} samples": perturbed}, 1
            ),
            "bn_relu": [statistics.median(seconds["bn_relu"])],
        }
        measurements += measure.relative_times(times, "bn_relu", xla)[:1]
    return measurements


def bn_relu():
    return [keras.layers.BatchNormalization(), keras.layers.ReLU()]


def gradient_step(layers, shape, compiled):
    """A function that takes the gradients of layers by their input and weights.

    Args:
        layers: List of Keras layers, called one after the other in training mode.
        shape: Shape of its input.
        compiled: Whether to use XLA; ignored by JAX (always) and torch (never).
    """
    random = np.random.default_rng(0)
    inputs = keras.ops.convert_to_tensor(random.normal(size=shape).astype("float32"))
    model = keras.Sequential(layers)
    model.build(shape)
    cotangent = random.normal(size=model.compute_output_shape(shape)).astype("float32")
    cotangent = keras.ops.convert_to_tensor(cotangent)
    backend = keras.backend.backend()
    gradient = _GRADIENTS[backend](model, inputs, cotangent, compiled)
    return lambda: measure.wait_for(gradient())


def _tensorflow_gradient(model, inputs, cotangent, compiled):
    import tensorflow as tf

    @tf.function(jit_compile=compiled)
    def gradients(inputs, cotangent):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = model(inputs, training=True)
        return tape.gradient(
            outputs, [inputs, *model.trainable_variables], output_gradients=cotangent
        )

    return lambda: gradients(inputs, cotangent)[0]


def _jax_gradient(model, inputs, cotangent, compiled):
    import jax

    def objective(inputs, weights, state, cotangent):
        outputs, state = model.stateless_call(weights, state, inputs, training=True)
        # The state is returned so that its update is not optimised away.
        return (outputs * cotangent).sum(), state

    gradients = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))
    weights = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]
    return lambda: gradients(inputs, weights, state, cotangent)[0][0]


def _torch_gradient(model, inputs, cotangent, compiled):
    import torch

    inputs.requires_grad_()
    weights = [variable.value for variable in model.trainable_variables]

    def gradients():
        outputs = model(inputs, training=True)
        return torch.autograd.grad(outputs, [inputs, *weights], cotangent)[0]

    return gradients


_GRADIENTS = {
    "tensorflow": _tensorflow_gradient,
    "jax": _jax_gradient,
    "torch": _torch_gradient,
}
