"""Soft maximisers: differentiable selections of the best of K activations.

All of them relax the same problem (class embedding paper, section 3.1). Over
`p >= 0`, `q >= 0`, `q + sum(p) = 1`, maximise `q mu + <p, a>`: the solution `p` is
one-hot at the largest activation, or zero when the margin `mu` is larger than every
activation.

Symbols of the paper: `a` is `activations`, `mu` is `margin`, `epsilon` is
`inverse_temperature`, and the number of draws of an empirical expectation is
`samples`.
"""

from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_attn._checks import one_of, positive_integer
from keras_attn.ops.precision import float_dtype

# Elements of one chunk of noise. Small enough for a CPU's cache, large enough to
# keep a GPU busy.
CHUNK_ELEMENTS = 2**20
# What an unknown dimension (the batch, while tracing) counts in that budget.
UNKNOWN_DIMENSION = 32
# Relative difference up to which two perturbed activations both win. Two meet this
# closely in about one of 100,000 samples.
TIE = 4e-6


def margin_softmax(
    activations, margin: float, inverse_temperature: float = 1.0, axis: int = -1
):
    """Softmax with one more, constant logit whose own probability is dropped.

    `p_k = exp(epsilon a_k) / (exp(epsilon mu) + sum_j exp(epsilon a_j))`, the
    solution of the entropy-regularised problem (class embedding paper,
    proposition 3.2). Its Jacobian is `epsilon (diag(p) - p p^T)`.

    Args:
        activations: Tensor of any shape and float dtype. Half types are computed
            in float32.
        margin: Number, the constant competitor `mu`.
        inverse_temperature: Positive number `epsilon`.
        axis: Axis of the K competing activations.

    Returns:
        Tensor of the shape and dtype of `activations`, with values in 0..1 and a
        sum of at most 1 along `axis`; all zero where every activation lies far
        below the margin.

    Example:

    >>> margin_softmax(np.array([0.0, np.log(2.0)]), margin=0.0)
    [0.25, 0.5]
    """
    activations, dtype = _widened(activations)
    logits = activations * inverse_temperature
    threshold = margin * inverse_temperature
    # Without the largest exponent every term is at most 1. It cancels in the
    # quotient, so it needs no gradient.
    peak = ops.max(logits, axis=axis, keepdims=True)
    peak = ops.stop_gradient(ops.maximum(peak, threshold))
    weights = ops.exp(logits - peak)
    total = ops.exp(threshold - peak) + ops.sum(weights, axis=axis, keepdims=True)
    return ops.cast(weights / total, dtype)


def perturbed_argmax(
    activations,
    margin: float,
    inverse_temperature: float = 1.0,
    samples: int = 600,
    seed: int | keras.random.SeedGenerator | None = None,
    axis: int = -1,
    chunk_size: int | None = None,
    control_variate: bool = False,
    noise: Literal["normal", "gumbel"] = "normal",
):
    """Mean of one-hot argmaxes of noisy activations, with a gradient estimate.

    Forward, with `z_n` and `z'_n` standard normal, the solutions of the perturbed
    problem (class embedding paper, problem P2):
    `p = mean_n onehot(argmax [a + z_n / epsilon ; mu + z'_n / epsilon])`, restricted
    to the K activations. Backward, from the same noise (proposition 3.1), for the
    cotangent `g`: `(epsilon / N) sum_n z_n <p_n, g>`. The argmax itself is never
    differentiated, and the margin is a constant.

    The noise of all samples together would be `samples` times the size of
    `activations`. It is drawn in chunks, from seeds that are kept, and drawn again
    in the backward pass.

    Args:
        activations: Tensor of any shape and float dtype. Half types are computed
            in float32.
        margin: Number, the constant competitor `mu`.
        inverse_temperature: Positive number `epsilon`; the noise has the standard
            deviation `1 / epsilon`.
        samples: Number N of draws.
        seed: Integer, or a `keras.random.SeedGenerator` from which one seed is
            drawn per call; `None` for Keras's global generator.
        axis: Axis of the K competing activations.
        chunk_size: Number of samples drawn at once, or `None` to choose it by the
            size of `activations`. It changes which noise is drawn.
        control_variate: If True, the gradient uses `p_n - p_0` instead of `p_n`,
            where `p_0` is the unperturbed solution: the same expectation with a
            lower variance.
        noise: "normal", or "gumbel", for which the expectation of the result and of
            its gradient are those of `margin_softmax`.

    Returns:
        Tensor of the shape and dtype of `activations`: multiples of `1 / samples`
        in 0..1 whose sum along `axis` is at most 1, but for rare ties, where both
        count.

    Raises:
        ValueError: If `samples` or `chunk_size` is not positive, or `noise` unknown.

    Example:

    >>> perturbed_argmax(np.array([2.0, 9.0, 1.0]), margin=0.0, samples=10, seed=1)
    [0.0, 1.0, 0.0]
    """
    positive_integer("samples", samples)
    positive_integer("chunk_size", chunk_size, optional=True)
    one_of("noise", noise, sorted(_NOISES))
    activations, dtype = _widened(activations)
    logits = ops.moveaxis(activations, axis, -1) * inverse_temperature
    threshold = margin * inverse_temperature
    chunk_size = min(chunk_size or _chunk_size(logits.shape), samples)
    chunks = -(-samples // chunk_size)
    # Kept for the backward pass: for each chunk a seed (of two words) for z and one
    # for z', so that chunks of one call never share noise with those of the next.
    seeds = keras.random.randint((chunks, 2, 2), 0, 2**31 - 1, seed=seed)
    draw, score = _NOISES[noise]

    def sum_over_samples(function, like):
        """Sum of `function(z, one-hot argmax)` over all samples, chunk by chunk."""

        def chunk_sum(index, size):
            shape = ops.shape(like)
            z = draw((size, *shape), seeds[index, 0], like.dtype)
            margin_z = draw((size, *shape[:-1], 1), seeds[index, 1], like.dtype)
            winners = _winners(like + z, threshold + margin_z)
            return ops.reshape(ops.sum(function(z, winners), axis=0), shape)

        full, rest = divmod(samples, chunk_size)
        total = chunk_sum(0, chunk_size)
        if full > 1:  # In eager JAX a loop is compiled anew at every call.
            total = ops.fori_loop(
                1, full, lambda i, total: total + chunk_sum(i, chunk_size), total
            )
        return total + chunk_sum(full, rest) if rest else total

    @ops.custom_gradient
    def estimate(logits):
        # Otherwise an eager TensorFlow tape keeps every chunk's intermediates.
        logits = ops.stop_gradient(logits)
        mean = sum_over_samples(lambda z, winners: winners, logits) / samples

        def gradient(*arguments, upstream=None):
            # Torch hands over the inputs too, and the cotangent by name.
            cotangent = arguments[0] if upstream is None else upstream
            offset = 0.0
            if control_variate:
                unperturbed = _winners(logits, threshold)
                offset = ops.sum(unperturbed * cotangent, axis=-1, keepdims=True)

            def contribution(z, winners):
                value = ops.sum(winners * cotangent, axis=-1, keepdims=True)
                return score(z) * (value - offset)

            return sum_over_samples(contribution, logits) / samples

        return mean, gradient

    return ops.cast(ops.moveaxis(estimate(logits), -1, axis), dtype)


def _winners(logits, threshold):
    """One-hot argmax along the last axis, zero where the threshold is larger.

    Comparing with the maximum is several times faster than indexing with the argmax.
    """
    best = ops.maximum(ops.max(logits, axis=-1, keepdims=True), threshold)
    # XLA computes the logits once for the maximum and once for the comparison, and
    # may round them differently; without the slack some samples have no winner.
    slack = TIE * (1.0 + ops.abs(best))
    return ops.cast(logits >= best - slack, logits.dtype)


def _draw_normal(shape, seed, dtype):
    return keras.random.normal(shape, dtype=dtype, seed=_FixedSeed(seed))


def _draw_gumbel(shape, seed, dtype):
    smallest = float(np.finfo("float32").tiny)
    uniform = keras.random.uniform(shape, smallest, dtype=dtype, seed=_FixedSeed(seed))
    return -ops.log(-ops.log(uniform))


# Name -> how to draw it, and minus the gradient of its log density, which weighs
# the samples in the gradient estimate.
_NOISES = {
    "normal": (_draw_normal, lambda z: z),
    "gumbel": (_draw_gumbel, lambda z: 1.0 - ops.exp(-z)),
}


class _FixedSeed(keras.random.SeedGenerator):
    """Hands a seed that is a tensor to `keras.random`, which takes none."""

    def __init__(self, value):
        # A raw key of JAX is unsigned; the others take the integers as they are.
        jax = keras.backend.backend() == "jax"
        self.value = ops.cast(value, "uint32") if jax else value

    def next(self, ordered=True):
        return self.value


def _chunk_size(shape):
    """Samples whose noise is about `CHUNK_ELEMENTS` numbers for this shape."""
    known = (UNKNOWN_DIMENSION if size is None else size for size in shape)
    return max(1, CHUNK_ELEMENTS // max(1, int(np.prod(list(known)))))


def _widened(activations):
    """The tensor in a dtype fit for exponentials, and the dtype to return."""
    activations = ops.convert_to_tensor(activations)
    dtype = keras.backend.standardize_dtype(activations.dtype)
    wide = float_dtype(activations)
    if not keras.backend.is_float_dtype(dtype):
        dtype = wide
    return ops.cast(activations, wide), dtype
