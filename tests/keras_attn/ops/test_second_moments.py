import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.ops import second_moments
from tests.harness import check_gradients, gradients, to_numpy
from tests.reference import second_moments as reference

MAP = (2, 7, 3, 5)
# Of two sketches of 5 numbers in 8192 bins, seed 7.
BINS = [[2699, 2709, 6498, 1858, 4421], [1844, 3184, 1757, 6494, 6433]]
SIGNS = [[-1, 1, -1, -1, -1], [1, 1, 1, 1, -1]]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def positive_definite(size=5, count=2, seed=0):
    """Covariances of `3 size` normal vectors of unequal scales."""
    x = normal(count, 3 * size, size, seed=seed) * np.linspace(0.5, 2, size)
    return (np.swapaxes(x, 1, 2) @ x / (3 * size)).astype("float32")


def dot(tensor, array):
    return ops.sum(ops.multiply(tensor, array))


# ---- products and covariances ------------------------------------------------------


def test_outer_products_are_averaged_over_the_cells():
    x = normal(*MAP)
    wanted = np.einsum("bhwi,bhwj->bij", x, x) / 21
    found = to_numpy(second_moments.outer_product_mean(x))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_covariance_is_the_biased_one_also_far_from_zero():
    x = normal(*MAP) + 100.0
    found = to_numpy(second_moments.covariance(x))
    for image, matrix in zip(x, found, strict=True):
        np.testing.assert_allclose(matrix, reference.covariance(image), atol=1e-4)
        wanted = np.cov(image.reshape(-1, 5), rowvar=False, bias=True)
        np.testing.assert_allclose(matrix, wanted, atol=1e-4)


def test_covariance_is_that_of_torch():
    torch = pytest.importorskip("torch")
    x = normal(*MAP)
    found = to_numpy(second_moments.covariance(x))
    wanted = torch.cov(torch.tensor(x[0].reshape(-1, 5).T), correction=0)
    np.testing.assert_allclose(found[0], wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["outer_product_mean", "covariance"])
def test_gradients_of_the_products_against_differences(name):
    check_gradients(getattr(second_moments, name), MAP)


# ---- Newton-Schulz -----------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_newton_schulz_is_the_published_recursion(iterations):
    matrices = positive_definite()
    found = to_numpy(second_moments.newton_schulz_root(matrices, iterations))
    for matrix, root in zip(matrices, found, strict=True):
        wanted = reference.newton_schulz_root(matrix, iterations)
        np.testing.assert_allclose(root, wanted, rtol=1e-4, atol=1e-5)


def test_twenty_iterations_give_the_root():
    matrices = positive_definite()
    found = to_numpy(second_moments.newton_schulz_root(matrices, 20))
    np.testing.assert_allclose(found @ found, matrices, atol=1e-5)
    wanted = [reference.eigen_root(matrix) for matrix in matrices]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    linalg = pytest.importorskip("scipy.linalg")
    np.testing.assert_allclose(found[0], linalg.sqrtm(matrices[0]), atol=1e-5)


def test_five_iterations_halve_the_root_of_256_equal_eigenvalues():
    y, z = 1 / 256, 1.0
    for _ in range(5):
        y, z = y * (3 - z * y) / 2, z * (3 - z * y) / 2
    root = to_numpy(second_moments.newton_schulz_root(np.eye(256)[None]))[0]
    np.testing.assert_allclose(root, 16 * y * np.eye(256), atol=1e-5)
    assert 0.4 < 16 * y < 0.6


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_newton_schulz_gradient_is_the_published_backward_pass(iterations):
    """Published for symmetric cotangents; of others only the symmetric part counts."""
    matrices, cotangent = positive_definite(), normal(2, 5, 5, seed=1)
    symmetric = cotangent + np.swapaxes(cotangent, 1, 2)

    def found(cotangent):
        (gradient,) = gradients(
            lambda x: dot(second_moments.newton_schulz_root(x, iterations), cotangent),
            matrices,
        )
        return gradient

    wanted = [
        reference.newton_schulz_gradient(matrix, g, iterations)
        for matrix, g in zip(matrices, symmetric, strict=True)
    ]
    np.testing.assert_allclose(found(symmetric), wanted, rtol=1e-3, atol=1e-4)
    skewed = found(cotangent)
    skewed = skewed + np.swapaxes(skewed, 1, 2)
    np.testing.assert_allclose(skewed, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_newton_schulz_gradient_against_differences(iterations):
    check_gradients(
        lambda x: second_moments.newton_schulz_root(x, iterations), positive_definite()
    )


# ---- eigen-decomposition -----------------------------------------------------------


def test_eigen_root_is_the_root():
    matrices = positive_definite()
    found = to_numpy(second_moments.eigen_root(matrices))
    wanted = [reference.eigen_root(matrix) for matrix in matrices]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    linalg = pytest.importorskip("scipy.linalg")
    np.testing.assert_allclose(found[0], linalg.sqrtm(matrices[0]), atol=1e-5)


def test_eigen_root_gradient_against_differences():
    """Of symmetric matrices alone, which are all that it takes."""

    def root(x):
        return second_moments.eigen_root(ops.matmul(x, ops.swapaxes(x, 1, 2)))

    check_gradients(root, (2, 5, 7))


def test_eigen_root_gradient_at_equal_and_at_zero_eigenvalues():
    """At `4 I` it is a quarter of the cotangent; among zeros there is none."""
    cotangent = normal(2, 5, 5, seed=1)
    cotangent = cotangent + np.swapaxes(cotangent, 1, 2)
    matrices = np.stack([4 * np.eye(5), np.diag([4, 9, 0, 0, 1e-7])]).astype("float32")
    (gradient,) = gradients(
        lambda x: dot(second_moments.eigen_root(x), cotangent), matrices
    )
    np.testing.assert_allclose(gradient[0], cotangent[0] / 4, atol=1e-6)
    roots = np.array([2.0, 3.0, 0, 0, 0])
    sums = roots[:, None] + roots
    weights = np.divide(1, sums, out=np.zeros((5, 5)), where=sums > 0)
    np.testing.assert_allclose(gradient[1], cotangent[1] * weights, atol=1e-6)
    found = to_numpy(second_moments.eigen_root(matrices))[1]
    np.testing.assert_allclose(found, np.diag(roots), atol=1e-6)


def test_upper_triangle_is_read_row_by_row():
    matrices = normal(2, 5, 5)
    found = to_numpy(second_moments.upper_triangle(matrices))
    wanted = [reference.upper_triangle(matrix) for matrix in matrices]
    np.testing.assert_array_equal(found, wanted)


# ---- sketches ----------------------------------------------------------------------


def test_hash_tables_never_change():
    bins, signs = second_moments.hash_tables(2, 5, 8192, seed=7)
    np.testing.assert_array_equal(bins, BINS)
    np.testing.assert_array_equal(signs, SIGNS)
    bins, signs = second_moments.hash_tables(3, 2000, 7, seed=0)
    counts = np.stack([np.bincount(row, minlength=7) for row in bins])
    assert bins.dtype == "int32" and counts.shape == (3, 7)
    assert np.all(np.abs(counts - 2000 / 7) < 100)
    assert set(np.unique(signs)) == {-1.0, 1.0} and np.all(abs(signs.mean(1)) < 0.1)


def test_count_sketch_adds_signed_entries():
    bins, signs = second_moments.hash_tables(1, 5, 7, seed=1)
    vectors = normal(2, 5)
    found = second_moments.count_sketch(vectors, bins[0], signs[0], 7)
    wanted = [reference.count_sketch(x, bins[0], signs[0], 7) for x in vectors]
    np.testing.assert_allclose(to_numpy(found), wanted, atol=1e-6)


def test_sketch_of_outer_products_is_the_sum_of_tensor_sketches():
    bins, signs = second_moments.hash_tables(2, 5, 25, seed=1)
    x = normal(*MAP)
    products = second_moments.outer_product_mean(x)
    found = to_numpy(second_moments.outer_product_sketch(products, bins, signs, 25))
    for image, sketch in zip(x, found, strict=True):
        cells = reference.descriptors(image)
        wanted = [reference.tensor_sketch(cell, bins, signs, 25) for cell in cells]
        np.testing.assert_allclose(sketch, np.mean(wanted, axis=0), atol=1e-6)


@pytest.mark.parametrize("dimension", [8, 7])
def test_tensor_sketches_of_all_degrees(dimension):
    bins, signs = second_moments.hash_tables(3, 5, dimension, seed=1)
    x = normal(*MAP)
    found = second_moments.tensor_sketch_means(x, bins, signs, dimension)
    assert len(found) == 2
    for degree, sketches in enumerate(found, start=2):
        tables = bins[:degree], signs[:degree], dimension
        for image, sketch in zip(x, to_numpy(sketches), strict=True):
            cells = reference.descriptors(image)
            wanted = [reference.tensor_sketch(cell, *tables) for cell in cells]
            np.testing.assert_allclose(sketch, np.mean(wanted, axis=0), atol=1e-5)


def test_expected_inner_products_are_squared():
    """The mean over all the tables that there are for two channels and two bins."""
    x = np.array([[0.3, -1.2], [0.7, 0.4]])
    products = (x[:, :, None] * x[:, None, :]).astype("float32")
    rows = list(itertools.product([0, 1], repeat=2))
    found = []
    for bins in itertools.product(rows, repeat=2):
        for signs in itertools.product(rows, repeat=2):
            tables = np.array(bins), 2.0 * np.array(signs, "float32") - 1
            sketch = second_moments.outer_product_sketch(products, *tables, 2)
            first, second = to_numpy(sketch)
            found.append(first @ second)
    np.testing.assert_allclose(np.mean(found), (x[0] @ x[1]) ** 2, atol=1e-5)


# ---- numerics ----------------------------------------------------------------------


def test_signed_sqrt_and_norm_have_finite_gradients_at_zero():
    x = np.zeros((2, 25), "float32")
    x[0, :3] = 4.0, 0.0, -9.0

    def normalized_root(x):
        return second_moments.l2_normalize(second_moments.signed_sqrt(x))

    wanted = np.zeros((2, 25))
    wanted[0, :3] = np.array([2.0, 0.0, -3.0]) / np.sqrt(13)
    np.testing.assert_allclose(to_numpy(normalized_root(x)), wanted, atol=1e-6)
    (gradient,) = gradients(lambda x: ops.sum(normalized_root(x)), x)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[1], 0.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_computed_in_float32(dtype):
    """The square of 300 is no float16."""
    x = ops.cast(300.0 + 30.0 * normal(*MAP), dtype)
    for function in (second_moments.outer_product_mean, second_moments.covariance):
        found = function(x)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        wanted = to_numpy(function(ops.cast(x, "float32")))
        np.testing.assert_array_equal(to_numpy(found), wanted)
