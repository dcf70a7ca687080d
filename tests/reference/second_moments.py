"""Second-order pooling in plain NumPy and float64, one image or matrix at a time."""

import math

import numpy as np


def descriptors(image):
    """`(cells, channels)` of a map `(height, width, channels)`."""
    return np.asarray(image, "float64").reshape(-1, image.shape[-1])


def covariance(image):
    """`X^T I_n X` with the centring matrix written out."""
    x = descriptors(image)
    n = len(x)
    centring = (np.eye(n) - np.ones((n, n)) / n) / n
    return x.T @ centring @ x


def upper_triangle(matrix):
    size = len(matrix)
    return np.array([matrix[i, j] for i in range(size) for j in range(i, size)])


def signed_sqrt(values):
    return np.sign(values) * np.sqrt(np.abs(values) + 1e-8)


def normalized(values):
    norm = np.linalg.norm(values)
    return values / norm if norm else values


# ---- roots -----------------------------------------------------------------------


def newton_schulz_states(matrix, iterations):
    """All `(Y_k, Z_k)`, k = 0..N, of iSQRT-COV's equations (3) and (4)."""
    matrix = np.asarray(matrix, "float64")
    identity = np.eye(len(matrix))
    states = [(matrix / np.trace(matrix), identity)]
    for _ in range(iterations):
        y, z = states[-1]
        states.append((y @ (3 * identity - z @ y) / 2, (3 * identity - z @ y) @ z / 2))
    return states


def newton_schulz_root(matrix, iterations):
    return np.sqrt(np.trace(matrix)) * newton_schulz_states(matrix, iterations)[-1][0]


def newton_schulz_gradient(matrix, cotangent, iterations):
    """The backward pass written out in iSQRT-COV, equations (6) to (9)."""
    matrix = np.asarray(matrix, "float64")
    states = newton_schulz_states(matrix, iterations)
    three, trace = 3 * np.eye(len(matrix)), np.trace(matrix)
    by_trace = np.sum(cotangent * states[-1][0]) / (2 * np.sqrt(trace))
    dy, dz = np.sqrt(trace) * cotangent, np.zeros_like(matrix)
    for y, z in reversed(states[1:-1]):
        dy, dz = (
            (dy @ (three - y @ z) - z @ dz @ z - z @ y @ dy) / 2,
            ((three - y @ z) @ dz - y @ dy @ y - dz @ z @ y) / 2,
        )
    a = states[0][0]
    da = (dy @ (three - a) - dz - a @ dy) / 2
    by_trace -= np.sum(da * matrix) / trace**2
    return da / trace + by_trace * np.eye(len(matrix))


def eigen_root(matrix):
    values, vectors = np.linalg.eigh(np.asarray(matrix, "float64"))
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


# ---- sketches --------------------------------------------------------------------


def count_sketch(vector, bins, signs, dimension):
    sketch = np.zeros(dimension)
    for value, place, sign in zip(vector, bins, signs, strict=True):
        sketch[place] += sign * value
    return sketch


def tensor_sketch(vector, bins, signs, dimension):
    """Circular convolution of the count sketches of all the tables, by FFT."""
    spectrum = np.ones(dimension, "complex128")
    for tables in zip(bins, signs, strict=True):
        spectrum = spectrum * np.fft.fft(count_sketch(vector, *tables, dimension))
    return np.fft.ifft(spectrum).real


# ---- whole descriptors -----------------------------------------------------------


def bilinear(image):
    x = descriptors(image)
    products = sum(np.outer(cell, cell) for cell in x) / len(x)
    return normalized(signed_sqrt(products.ravel()))


def compact_bilinear(image, bins, signs, dimension):
    x = descriptors(image)
    sketches = [tensor_sketch(cell, bins, signs, dimension) for cell in x]
    return normalized(signed_sqrt(np.mean(sketches, axis=0)))


def kernel(image, weights, bins, signs, dimension):
    series = []
    for cell in descriptors(image):
        cell = normalized(cell)
        powers = [np.ones(1), cell]
        for p in range(2, len(weights)):
            powers.append(tensor_sketch(cell, bins[:p], signs[:p], dimension))
        weighted = [a * power for a, power in zip(weights, powers, strict=True)]
        series.append(np.concatenate(weighted))
    return normalized(signed_sqrt(np.mean(series, axis=0)))


def gaussian_kernel_weights(gamma, degree):
    return [
        math.sqrt(math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p))
        for p in range(degree + 1)
    ]
