"""Running a function on some rows of a batch only."""

import keras
from keras import ops

from keras_attn.ops.tracing import traced_format


def can_gather():
    """`True` on backends that run operations whose shapes depend on values.

    TensorFlow (eager, in a graph, exported) and torch do. JAX wants static shapes to
    compile.
    """
    return keras.backend.backend() != "jax"


def apply_to_rows(function, selected, tensors, outputs, gather=None):
    """Applies a function to the selected rows; zeros in the other rows.

    With `gather` only the selected rows reach the function, which is not run at all
    when there are none. Without, all rows do as soon as one is selected, and what
    becomes of the others is dropped; shapes are then static.

    Args:
        function: Takes tensors with any number of rows and returns a structure of
            tensors with as many, each row of which depends on its own row only.
        selected: Boolean tensor `(rows,)`.
        tensors: List of tensors with `rows` rows, the arguments of `function`.
        outputs: Structure of `keras.KerasTensor`s, one row of each result.
        gather: Whether to leave the other rows out, or `None`: where the backend
            can, see `can_gather`. XLA on TensorFlow compiles the gathering form too,
            but pads it, so that nothing is saved. Files for LiteRT never gather, and
            files for ONNX and OpenVINO
            compute all rows always: their converters know neither the
            shapes inside of a branch nor, in ONNX Runtime, empty batches.

    Returns:
        Structure as `outputs`, of tensors `(rows, ...)`.

    Example:

    >>> selected, x = np.array([True, False, True]), np.array([4.0, -1.0, 9.0])
    >>> apply_to_rows(ops.sqrt, selected, [x], keras.KerasTensor(()))
    [2., 0., 3.]
    """
    gather = can_gather() if gather is None else gather
    count = ops.shape(selected)[0]

    def zeros():
        return keras.tree.map_structure(
            lambda output: ops.zeros((count, *output.shape), output.dtype), outputs
        )

    def gathered():
        rows = ops.nonzero(selected)[0]
        results = function(*[ops.take(tensor, rows, axis=0) for tensor in tensors])

        def put_back(result, output):
            result = ops.cast(result, output.dtype)
            return ops.scatter(rows[:, None], result, (count, *output.shape))

        return keras.tree.map_structure(put_back, results, outputs)

    def masked():
        def mask(result, output):
            shape = (-1, *(1 for _ in output.shape))
            kept = ops.reshape(selected, shape)
            result = ops.cast(result, output.dtype)
            return ops.where(kept, result, ops.zeros_like(result))

        return keras.tree.map_structure(mask, function(*tensors), outputs)

    needed = ops.any(selected)
    apply = gathered if gather else masked
    try:
        needed = bool(needed)
    except TypeError:  # Not known while a graph is traced.
        format = traced_format()
        if format in ("onnx", "openvino"):
            return masked()
        return ops.cond(needed, masked if format else apply, zeros)
    # JAX would compile a `cond` anew at every call outside of a graph.
    return apply() if needed else zeros()
