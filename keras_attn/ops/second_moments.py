"""Second moments of the descriptors of a map: outer products, covariances, roots.

A map `(batch, height, width, channels)` is taken as a set of n = height x width
descriptors per image, the rows of `X`, in any order. Everything is computed in
float32 at least, because products of half-precision numbers lose what the roots are
sensitive to, and returned so.

Literature: bilinear pooling (Lin et al., 2015), compact bilinear pooling (Gao et al.,
2016; the tensor sketch is Pham and Pagh's, 2013), kernel pooling (Cui et al., 2017),
MPN-COV (Li et al., 2017), iSQRT-COV (Li et al., 2018).
"""

import math

import keras
import numpy as np
from keras import ops

from keras_attn.ops.precision import float32_at_least
from keras_attn.ops.tracing import traced_format

# Added under the signed square root, whose derivative is infinite at zero.
ROOT_OFFSET = 1e-8
# Vectors of a smaller norm count as zero, and smaller traces as this one, so that zero
# stays zero and its gradient finite.
SMALLEST_NORM = 1e-12
SMALLEST_TRACE = 1e-12


def outer_product_mean(features):
    """`X^T X / n`: mean over the cells of `x x^T`.

    Args:
        features: `(batch, height, width, channels)`.

    Returns:
        `(batch, channels, channels)`, symmetric, in float32 at least.
    """
    return _outer_product_mean(_descriptors(features))


def covariance(features):
    """`X^T I_n X` with `I_n = (I - 1 1^T / n) / n`: the biased covariance.

    MPN-COV paper, equation (1). The mean is subtracted first; the mean of the squares
    minus the square of the mean would cancel.

    Args:
        features: `(batch, height, width, channels)`.

    Returns:
        `(batch, channels, channels)`, symmetric and positive semi-definite, in
        float32 at least.
    """
    descriptors = _descriptors(features)
    mean = ops.mean(descriptors, axis=1, keepdims=True)
    # No gradient by way of the mean: it is zero, as centred descriptors sum to zero.
    return _outer_product_mean(descriptors - ops.stop_gradient(mean))


def newton_schulz_root(matrices, iterations=5):
    """Approximate square root by the coupled Newton-Schulz iteration.

    iSQRT-COV paper, equations (2) to (5): `A = S / tr S`, `Y = A`, `Z = I`, then
    `T = (3 I - Z Y) / 2`, `Y <- Y T`, `Z <- T Z`, and in the end `sqrt(tr S) Y`.

    Eigenvalues far below the trace need many iterations: an eigenvalue `e` of `A`
    grows by at most 9/4 each. With the paper's five, a root of 256 equal eigenvalues
    is half of the exact one. Above about 15, float32 rounding of eigenvalues that are
    zero is blown up: take `eigen_root` for exact roots.

    Args:
        matrices: `(..., d, d)`, symmetric, positive semi-definite.
        iterations: Number of iterations, at least 1.

    Returns:
        As `matrices`, in float32 at least. Zero for the zero matrix, with a finite
        gradient.
    """
    matrices = float32_at_least(matrices)
    # Neither `ops.eye` nor `ops.trace`, which ONNX Runtime lacks.
    identity = ops.convert_to_tensor(np.eye(matrices.shape[-1]), matrices.dtype)
    trace = ops.sum(matrices * identity, axis=(-2, -1), keepdims=True)
    trace = ops.maximum(trace, SMALLEST_TRACE)
    normalized = matrices / trace
    # The first iteration, with Z = I, takes one product instead of three, and the
    # last needs no Z.
    step = 1.5 * identity - 0.5 * normalized
    root, inverse = ops.matmul(normalized, step), step
    for remaining in reversed(range(iterations - 1)):
        step = 1.5 * identity - 0.5 * ops.matmul(inverse, root)
        root = ops.matmul(root, step)
        if remaining:
            inverse = ops.matmul(step, inverse)
    return ops.sqrt(trace) * root


def eigen_root(matrices):
    """Square root by eigen-decomposition, without the eigenvalues that are noise.

    MPN-COV paper, equations (2) and (3): `U diag(sqrt(e)) U^T`, where eigenvalues up
    to `d` times the machine precision times the largest one count as zero.

    The gradient is that of the matrix root, `U (K * (U^T G U)) U^T` with
    `K_ij = 1 / (sqrt(e_i) + sqrt(e_j))`, which is finite for equal eigenvalues, where
    that of eigenvectors is not. Pairs of zero eigenvalues get no gradient.

    Args:
        matrices: `(..., d, d)`, symmetric, positive semi-definite.

    Returns:
        As `matrices`, in float32 at least.
    """

    @ops.custom_gradient
    def root(matrices):
        values, vectors = ops.eigh(ops.stop_gradient(matrices))
        transposed = ops.swapaxes(vectors, -1, -2)
        precision = np.finfo(keras.backend.standardize_dtype(values.dtype)).eps
        # Ascending, so the last one is the largest.
        tolerance = values.shape[-1] * float(precision) * values[..., -1:]
        kept = values > tolerance
        roots = ops.where(kept, ops.sqrt(ops.where(kept, values, 1.0)), 0.0)

        def gradient(*arguments, upstream=None):
            cotangent = _cotangent(arguments, upstream)
            cotangent = 0.5 * (cotangent + ops.swapaxes(cotangent, -1, -2))
            sums = roots[..., :, None] + roots[..., None, :]
            positive = sums > 0.0
            weights = ops.where(positive, 1.0 / ops.where(positive, sums, 1.0), 0.0)
            inner = ops.matmul(transposed, ops.matmul(cotangent, vectors))
            return ops.matmul(vectors, ops.matmul(weights * inner, transposed))

        return ops.matmul(vectors * roots[..., None, :], transposed), gradient

    return root(float32_at_least(matrices))


def upper_triangle(matrices):
    """The entries on and above the diagonal, row by row.

    Args:
        matrices: `(batch, d, d)`.

    Returns:
        `(batch, d (d + 1) / 2)`; entries off the diagonal are not scaled.
    """
    size = matrices.shape[-1]
    rows, columns = np.triu_indices(size)
    return ops.take(_flat(matrices), (rows * size + columns).astype("int32"), axis=-1)


def hash_tables(count, length, dimension, seed):
    """Bins and signs of count sketches, the same wherever they are drawn.

    They come from the raw numbers of NumPy's PCG64, which are the same in every
    version of NumPy, so that a seed is all that a saved model needs.

    Args:
        count: Number of sketches.
        length: Length of the vectors to sketch.
        dimension: Number of bins.
        seed: Integer.

    Returns:
        Two NumPy arrays `(count, length)`: int32 bins in `0..dimension - 1` and
        float32 signs, -1 or 1.
    """
    numbers = np.random.PCG64(seed).random_raw(2 * count * length)
    numbers = numbers.reshape(2, count, length)
    bins = (numbers[0] % np.uint64(dimension)).astype("int32")
    signs = np.where(numbers[1] % np.uint64(2), 1.0, -1.0).astype("float32")
    return bins, signs


def count_sketch(vectors, bins, signs, dimension):
    """Adds every entry, times its sign, to its bin.

    Args:
        vectors: `(batch, length)`.
        bins, signs: `(length,)`, from `hash_tables`.
        dimension: Number of bins.

    Returns:
        `(batch, dimension)`. In expectation over the tables, inner products are those
        of the vectors.
    """
    # Transposed, because sums of segments run along the first axis.
    signed = ops.transpose(vectors) * ops.cast(signs, vectors.dtype)[:, None]
    return ops.transpose(ops.segment_sum(signed, bins, num_segments=dimension))


def outer_product_sketch(matrices, bins, signs, dimension):
    """Count sketch of sums of `x x^T`: the same sum of the tensor sketches of `x`.

    Compact bilinear pooling paper, algorithm 2, convolves two count sketches of every
    descriptor by FFT and sums. A tensor sketch is the count sketch of `vec(x x^T)`
    with the bins `(h1(i) + h2(j)) mod D` and the signs `s1(i) s2(j)`, which is linear:
    here the outer products are summed first. That takes d^2 numbers per image instead
    of n D, no FFT, and empty bins are exactly zero.

    Args:
        matrices: `(batch, d, d)`, such as `outer_product_mean`.
        bins, signs: `(2, d)`, from `hash_tables`.
        dimension: Number of bins.

    Returns:
        `(batch, dimension)`.
    """
    pair_bins = (bins[0][:, None] + bins[1][None, :]) % dimension
    pair_signs = signs[0][:, None] * signs[1][None, :]
    return count_sketch(
        _flat(matrices), pair_bins.ravel(), pair_signs.ravel(), dimension
    )


def tensor_sketch_means(features, bins, signs, dimension):
    """Means over the cells of the tensor sketches of degree 2, 3, ... of `x`.

    Kernel pooling paper, section 3.2: the tensor sketch of degree p is the circular
    convolution of p count sketches. They are multiplied in the frequency domain, where
    the cells are averaged too, so that one inverse FFT an image and degree is enough.

    Args:
        features: `(batch, height, width, channels)`.
        bins, signs: `(highest degree, channels)`, from `hash_tables`.
        dimension: Number of bins of each sketch, at most 65,536.

    Returns:
        List of `(batch, dimension)` for degrees 2 to the highest. In expectation over
        the tables, inner products of sketches of `x` and `y` are `(x . y)^p`.
    """
    descriptors = _descriptors(features)
    product, means = None, []
    for tables in zip(bins, signs, strict=True):
        spectrum = _count_sketch_spectrum(descriptors, *tables, dimension)
        if product is None:
            product = spectrum
            continue
        (real, imaginary), (other_real, other_imaginary) = product, spectrum
        product = (
            real * other_real - imaginary * other_imaginary,
            real * other_imaginary + imaginary * other_real,
        )
        mean = tuple(ops.mean(part, axis=1) for part in product)
        inverse = _inverse_transform if traced_format() else ops.irfft
        means.append(inverse(mean, fft_length=dimension))
    return means


def _inverse_transform(spectrum, fft_length):
    """`ops.irfft` as two products with small matrices, for formats without FFTs.

    With `D = A B`, `k = A k2 + k1` and `n = B n1 + n2`, the exponent `k n / D` is
    `k2 n2 / B + k1 n2 / D + k1 n1 / A` but for whole numbers (Cooley and Tukey, 1965).
    """
    a = next(n for n in range(math.isqrt(fft_length), 0, -1) if fft_length % n == 0)
    b = fft_length // a

    def turns(first, second, parts):
        angles = np.outer(np.arange(first), np.arange(second)) % parts
        angles = angles * (2 * np.pi / parts)
        return np.cos(angles).astype("float32"), np.sin(angles).astype("float32")

    # Each frequency stands for its mirror image too, but for the first and the middle.
    weights = np.full(fft_length // 2 + 1, 2 / fft_length, "float32")
    weights[[0, -1] if fft_length % 2 == 0 else 0] /= 2
    missing = fft_length - len(weights)
    real, imaginary = (
        ops.reshape(ops.pad(part * weights, [[0, 0], [0, missing]]), (-1, b, a))
        for part in spectrum
    )
    cosine, sine = turns(b, b, b)
    real, imaginary = (
        ops.matmul(cosine, real) - ops.matmul(sine, imaginary),
        ops.matmul(sine, real) + ops.matmul(cosine, imaginary),
    )
    cosine, sine = turns(b, a, fft_length)
    real, imaginary = (
        real * cosine - imaginary * sine,
        real * sine + imaginary * cosine,
    )
    cosine, sine = turns(a, a, a)
    values = ops.matmul(real, cosine) - ops.matmul(imaginary, sine)
    return ops.reshape(ops.swapaxes(values, 1, 2), (-1, fft_length))


def _count_sketch_spectrum(vectors, bins, signs, dimension):
    """Real and imaginary part of the real FFT of the count sketches of vectors.

    As a product with a row `s exp(-2 pi i h k / D)` for each entry, since the sketches
    themselves, mostly empty, take much more memory and their FFTs more time.
    """
    frequencies = np.arange(dimension // 2 + 1, dtype="int32")
    turns = ops.multiply(ops.cast(bins[:, None], "int32"), frequencies) % dimension
    phases = ops.cast(turns, vectors.dtype) * (2 * np.pi / dimension)
    signs = ops.cast(signs, vectors.dtype)[:, None]
    real = ops.matmul(vectors, signs * ops.cos(phases))
    return real, ops.matmul(vectors, -signs * ops.sin(phases))


def signed_sqrt(values):
    """`sign(x) sqrt(|x| + 1e-8)`; zero, with gradient zero, at zero."""
    return ops.sign(values) * ops.sqrt(ops.abs(values) + ROOT_OFFSET)


def l2_normalize(values):
    """Divides by the Euclidean norm along the last axis.

    Vectors of a norm below 1e-12 become zero and get no gradient, instead of one that
    is larger by the reciprocal of the norm.
    """
    squares = ops.sum(ops.square(values), axis=-1, keepdims=True)
    positive = squares > SMALLEST_NORM**2
    scale = ops.where(positive, ops.rsqrt(ops.where(positive, squares, 1.0)), 0.0)
    return values * scale


def _descriptors(features):
    """`(batch, cells, channels)`, in float32 at least."""
    features = float32_at_least(features)
    return ops.reshape(features, (ops.shape(features)[0], -1, features.shape[-1]))


def _outer_product_mean(descriptors):
    @ops.custom_gradient
    def mean(descriptors):
        descriptors = ops.stop_gradient(descriptors)
        count = ops.cast(ops.shape(descriptors)[1], descriptors.dtype)

        def gradient(*arguments, upstream=None):
            # One product instead of one for either factor.
            cotangent = _cotangent(arguments, upstream)
            cotangent = (cotangent + ops.swapaxes(cotangent, 1, 2)) / count
            return ops.matmul(descriptors, cotangent)

        transposed = ops.swapaxes(descriptors, 1, 2)
        return ops.matmul(transposed, descriptors) / count, gradient

    return mean(descriptors)


def _cotangent(arguments, upstream):
    """The cotangent of a custom gradient; torch passes the inputs too."""
    return arguments[0] if upstream is None else upstream


def _flat(matrices):
    size = matrices.shape[-1]
    return ops.reshape(matrices, (ops.shape(matrices)[0], size * size))
