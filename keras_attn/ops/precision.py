"""The dtypes that computations take: float32 at least, and int32 for indices."""

import keras
from keras import ops


def float_dtype(*tensors):
    """`"float64"` if one of the tensors (or dtypes) is that, else `"float32"`.

    Not `keras.backend.result_type`, which has no float64 on JAX and torch.
    """
    dtypes = [
        keras.backend.standardize_dtype(getattr(each, "dtype", each))
        for each in tensors
    ]
    return "float64" if "float64" in dtypes else "float32"


def float32_at_least(values):
    """The tensor in float32, or in float64 if it is that.

    Example:

    >>> float32_at_least(np.ones(2, "float16")).dtype
    float32
    """
    values = ops.convert_to_tensor(values)
    return ops.cast(values, float_dtype(values))
