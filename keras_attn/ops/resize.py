import numpy as np
from keras import ops

SHARPNESS = -0.75


def resize_bicubic(images, size):
    """Bicubic resize whose corner pixels' centres stay in the corners.

    The resize of the early-exit experiments that followed the AnchorNet paper
    ("align corners"): output pixel `i` lies at `i (n - 1) / (m - 1)` among `n` input
    pixels and is a weighted sum of the four around it, those outside the image
    repeating the border. Cubic convolution with `a = -0.75`, without antialiasing, as
    PyTorch's `interpolate(mode="bicubic", align_corners=True)`, and the same on every
    backend.

    Args:
        images: `(batch, height, width, channels)`; height and width are known.
        size: `(rows, columns)` of the result.

    Returns:
        `(batch, rows, columns, channels)` in float32, not clipped: cubic convolution
        overshoots at edges.

    Example:

    >>> resize_bicubic(np.arange(4.0).reshape((1, 1, 4, 1)), (1, 7))[0, 0, ::2, 0]
    [0., 1., 2., 3.]
    """
    height, width, channels = images.shape[1:]
    rows = ops.convert_to_tensor(_weights(height, size[0]))
    columns = ops.convert_to_tensor(_weights(width, size[1]))
    images = ops.reshape(ops.cast(images, "float32"), (-1, height, width * channels))
    images = ops.reshape(ops.matmul(rows, images), (-1, size[0], width, channels))
    return ops.matmul(columns, images)


def _weights(inputs, outputs):
    """Matrix `(outputs, inputs)` of one axis; every row sums to 1."""
    positions = np.arange(outputs) * ((inputs - 1) / max(outputs - 1, 1))
    first = np.floor(positions).astype(int)
    matrix = np.zeros((outputs, inputs))
    for shift in (-1, 0, 1, 2):
        neighbours = np.clip(first + shift, 0, inputs - 1)
        weights = _cubic(np.abs(positions - (first + shift)))
        np.add.at(matrix, (np.arange(outputs), neighbours), weights)
    return matrix.astype("float32")


def _cubic(x):
    """Keys' cubic convolution kernel for distances `x >= 0`."""
    a = SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
