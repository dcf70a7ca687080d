import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.ops import soft_maximizers
from keras_attn.ops.soft_maximizers import margin_softmax, perturbed_argmax
from tests.harness import gradients, to_numpy
from tests.reference import soft_maximizers as reference

PIXELS = 1600  # times 200 samples: one chunk


def normal(*shape, scale=1.0, seed=0):
    values = np.random.default_rng(seed).normal(0, scale, shape)
    return values.astype("float32")


# ---- margin softmax ------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("margin", [-3.0, 0.5, 40.0])
def test_margin_softmax_is_a_softmax_with_one_more_entry(axis, margin):
    activations = normal(2, 5, 7, 3, scale=30)
    np.testing.assert_allclose(
        to_numpy(margin_softmax(activations, margin, 0.7, axis)),
        reference.margin_softmax(activations, margin, 0.7, axis),
        rtol=1e-4,
        atol=1e-7,
    )


def test_margin_softmax_jacobian():
    a, margin, epsilon = normal(5), 0.4, 1.7

    def output(k):
        return lambda x: margin_softmax(x, margin, epsilon)[k]

    jacobian = [gradients(output(k), a)[0] for k in range(5)]
    p = reference.margin_softmax(a, margin, epsilon)
    expected = reference.margin_softmax_jacobian(p, epsilon)
    np.testing.assert_allclose(jacobian, expected, atol=1e-6)


def test_margin_softmax_limits():
    a = normal(3, 5)
    vanishing = to_numpy(margin_softmax(a - 1e6, 2.5))
    np.testing.assert_array_equal(vanishing, np.zeros_like(a))
    ordinary = to_numpy(margin_softmax(a, -1e6))
    np.testing.assert_allclose(ordinary, to_numpy(ops.softmax(a)), rtol=1e-5)
    hard = to_numpy(margin_softmax(np.float32([[3, 1, 2], [-1, -2, 0.4]]), 0.5, 1e5))
    np.testing.assert_array_equal(hard, [[1, 0, 0], [0, 0, 0]])


def test_margin_softmax_has_finite_gradients_at_extreme_activations():
    a = np.float32([1e30, -1e30, 0.0])
    (gradient,) = gradients(lambda x: margin_softmax(x, 2.5)[0], a)
    np.testing.assert_array_equal(gradient, np.zeros(3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_computed_in_float32(dtype):
    a = ops.cast(normal(5, 3, scale=20), dtype)
    exact = to_numpy(margin_softmax(ops.cast(a, "float32"), 2.5))
    half = margin_softmax(a, 2.5)
    assert keras.backend.standardize_dtype(half.dtype) == dtype
    np.testing.assert_array_equal(to_numpy(half), to_numpy(ops.cast(exact, dtype)))
    half = perturbed_argmax(a, 2.5, samples=7, seed=1)
    assert keras.backend.standardize_dtype(half.dtype) == dtype
    wide = perturbed_argmax(ops.cast(a, "float32"), 2.5, samples=7, seed=1)
    np.testing.assert_allclose(to_numpy(half), to_numpy(wide), atol=0.003)


# ---- perturbed argmax: the same noise in NumPy ---------------------------------


def same_noise(shape, samples, chunk_size, seed):
    """The noise of a call, (samples, *shape) and (samples, *shape[:-1], 1)."""
    chunks = math.ceil(samples / chunk_size)
    seeds = keras.random.randint((chunks, 2, 2), 0, 2**31 - 1, seed=seed)
    draw, _ = soft_maximizers._NOISES["normal"]
    parts = []
    for chunk in range(chunks):
        size = min(chunk_size, samples - chunk * chunk_size)
        shapes = (size, *shape), (size, *shape[:-1], 1)
        parts.append([draw(shapes[i], seeds[chunk, i], "float32") for i in range(2)])
    return [np.concatenate([to_numpy(part[i]) for part in parts]) for i in range(2)]


@pytest.mark.parametrize(
    ("samples", "chunk_size", "control_variate"), [(7, 3, False), (6, 3, True)]
)
def test_forward_and_backward_use_the_same_noise(samples, chunk_size, control_variate):
    a, cotangent, epsilon = normal(5, 3), normal(5, 3, seed=1), 1.7
    z, margin_z = same_noise(a.shape, samples, chunk_size, seed=9)

    def forward(x):
        return perturbed_argmax(
            x, 0.2, epsilon, samples, 9, -1, chunk_size, control_variate
        )

    np.testing.assert_allclose(
        to_numpy(forward(a)),
        reference.perturbed_argmax(a, 0.2, epsilon, z, margin_z),
        rtol=1e-6,
    )
    (vjp,) = gradients(lambda x: ops.sum(ops.multiply(forward(x), cotangent)), a)
    expected = reference.perturbed_argmax_vjp(
        a, 0.2, epsilon, z, margin_z, cotangent, control_variate
    )
    np.testing.assert_allclose(vjp, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [3, 7, None])
def test_a_remainder_uses_exactly_the_samples_asked_for(chunk_size):
    p = perturbed_argmax(normal(5, 3), -1e9, 1.0, 7, 1, -1, chunk_size)
    np.testing.assert_allclose(to_numpy(p).sum(axis=-1), 1.0, rtol=1e-6)


def test_chunks_and_calls_have_noise_of_their_own():
    generator = keras.random.SeedGenerator(3)
    calls = [
        to_numpy(perturbed_argmax(np.zeros((7, 5)), -9.0, 1.0, 1, generator))
        for _ in range(5)
    ]
    assert len({call.tobytes() for call in calls}) == 5
    z, margin_z = same_noise((7, 5), 5, 1, seed=3)
    assert len({sample.tobytes() for sample in z}) == 5
    assert abs(np.corrcoef(z[..., 0].ravel(), margin_z.ravel())[0, 1]) < 0.6


def test_axis():
    a = normal(2, 3, 5)
    moved = to_numpy(perturbed_argmax(np.swapaxes(a, 1, 2), 0.2, samples=5, seed=2))
    direct = to_numpy(perturbed_argmax(a, 0.2, samples=5, seed=2, axis=1))
    np.testing.assert_array_equal(direct, np.swapaxes(moved, 1, 2))


# ---- perturbed argmax: expectations --------------------------------------------


def mean_output(a, margin, epsilon, **options):
    """Forward value for one vector, averaged over many pixels."""
    tiled = np.tile(np.float32(a), (PIXELS, 1))
    p = perturbed_argmax(tiled, margin, epsilon, 200, 5, **options)
    return to_numpy(p).mean(axis=0)


def mean_jacobian(a, margin, epsilon, **options):
    """Estimated Jacobian (rows: outputs) for one vector, averaged over pixels."""
    tiled = np.tile(np.float32(a), (PIXELS, 1))

    def output(k):
        return lambda x: ops.sum(
            perturbed_argmax(x, margin, epsilon, 200, 5, **options)[:, k]
        )

    rows = [gradients(output(k), tiled)[0] for k in range(len(a))]
    return np.stack([row.mean(axis=0) for row in rows])


@pytest.mark.parametrize(("a", "epsilon"), [(3.0, 1.0), (2.0, 0.5)])
def test_one_activation_against_the_margin_is_the_normal_distribution(a, epsilon):
    expected = 0.5 * (1 + math.erf(epsilon * (a - 2.5) / 2))
    assert abs(mean_output([a], 2.5, epsilon)[0] - expected) < 0.004


def test_gumbel_noise_gives_the_margin_softmax_and_its_jacobian():
    a, margin, epsilon = [0.3, -0.4, 1.1], 0.2, 1.4
    p = reference.margin_softmax(a, margin, epsilon)
    found = mean_output(a, margin, epsilon, noise="gumbel")
    np.testing.assert_allclose(found, p, atol=0.004)
    jacobian = mean_jacobian(a, margin, epsilon, noise="gumbel")
    expected = reference.margin_softmax_jacobian(p, epsilon)
    np.testing.assert_allclose(jacobian, expected, atol=0.015)


@pytest.mark.parametrize("control_variate", [False, True])
def test_jacobian_against_central_differences_and_symmetry(control_variate):
    a, margin, epsilon, step = np.array([0.3, -0.4, 1.1]), 0.2, 1.4, 0.1
    differences = [
        mean_output(a + shift, margin, epsilon)
        - mean_output(a - shift, margin, epsilon)
        for shift in step * np.eye(3)
    ]
    expected = np.stack(differences, axis=1) / (2 * step)
    jacobian = mean_jacobian(a, margin, epsilon, control_variate=control_variate)
    np.testing.assert_allclose(jacobian, expected, atol=0.015)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=0.015)


def test_control_variate_lowers_the_variance():
    a = np.tile(np.float32([3.0, 0.0, 0.0]), (500, 1))
    plain, reduced = [
        gradients(
            lambda x, on=on: ops.sum(
                perturbed_argmax(x, 0.0, 1.0, 20, 5, control_variate=on)[:, 0]
            ),
            a,
        )[0]
        for on in (False, True)
    ]
    assert np.all(reduced.std(axis=0) < 0.5 * plain.std(axis=0))


def test_cold_limit_is_the_hard_selection():
    p = perturbed_argmax(np.float32([[3, 1, 2], [-1, -2, 0.4]]), 0.5, 1e5, 3, 0)
    np.testing.assert_allclose(to_numpy(p), [[1, 0, 0], [0, 0, 0]], rtol=1e-6)


# ---- compilation, memory, errors -----------------------------------------------


def value_and_gradient(x):
    """Output and gradient of one activation and a single sample."""

    def output(x):
        return perturbed_argmax(x, 0.0, 1.0, 1, seed=9)

    if keras.backend.backend() == "jax":
        import jax

        return output(x), jax.grad(lambda x: ops.sum(output(x)))(x)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = output(x)
    return value, tape.gradient(value, x)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch runs eagerly")
def test_compiled_passes_share_their_noise():
    """XLA may draw other numbers than eager execution, but the same in both passes.

    The gradient of a single sample is `z p`: it vanishes exactly where `p` does.
    """
    a = ops.zeros((97, 1))
    if keras.backend.backend() == "jax":
        import jax

        compiled = [jax.jit(value_and_gradient)]
    else:
        import tensorflow as tf

        unknown_batch = [tf.TensorSpec([None, 1])]
        compiled = [
            tf.function(value_and_gradient, input_signature=unknown_batch),
            tf.function(value_and_gradient, jit_compile=True),
        ]
    for function in compiled:
        value, gradient = map(to_numpy, function(a))
        assert set(np.unique(value)) == {0.0, 1.0}
        np.testing.assert_array_equal(gradient != 0, value == 1)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch runs eagerly")
def test_compiled_chunks_are_the_eager_ones():
    """Two chunks and a remainder, and every sample keeps its winner under XLA."""
    a = normal(97, 3)

    def output(x):
        return perturbed_argmax(x, -1e9, 1.7, 7, 9, chunk_size=3)

    if keras.backend.backend() == "jax":
        import jax

        compiled = jitted = jax.jit(output)
    else:
        import tensorflow as tf

        compiled = tf.function(output, input_signature=[tf.TensorSpec([None, 3])])
        # XLA on TensorFlow draws other numbers than the rest of TensorFlow.
        jitted = tf.function(output, jit_compile=True)
    np.testing.assert_allclose(to_numpy(compiled(a)), to_numpy(output(a)), rtol=1e-6)
    np.testing.assert_allclose(to_numpy(jitted(a)).sum(axis=-1), 1.0, rtol=1e-6)


MEMORY_SCRIPT = """
import keras, numpy as np
from keras import ops
from keras_attn.ops.soft_maximizers import perturbed_argmax
from tests.harness import gradients

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1024

def loss(samples):
    return lambda x: ops.sum(ops.square(perturbed_argmax(x, 0.0, 1.0, samples, 1)))

a = np.zeros((4, 16, 16, 64), "float32")
gradients(loss(1), a)
before = peak()
gradients(loss(600), a)
print("peak growth in MB:", peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_memory_does_not_grow_with_the_samples():
    """All 600 samples at once take 480 to 660 MB here; XLA's compiler takes 200."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": keras.backend.backend(),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split()[-1]) < 350, result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "`samples` to be a positive integer.*samples=0"),
        ({"chunk_size": 0}, "Expected `chunk_size`.*chunk_size=0"),
        ({"noise": "cauchy"}, "Expected `noise` to be one of .*noise='cauchy'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        perturbed_argmax(normal(2, 3), 0.0, **options)
