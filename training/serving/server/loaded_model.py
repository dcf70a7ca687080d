"""A loaded SavedModel and the inputs and outputs of its signatures."""

import dataclasses
import pathlib
import re
from typing import TYPE_CHECKING

import numpy as np

from keras_attn.training.serving.server.errors import (
    ServingError,
    from_tensorflow,
    invalid,
)
from keras_attn.training.serving.server.tensors import array_of

if TYPE_CHECKING:
    import tensorflow as tf

DEFAULT_SIGNATURE = "serving_default"
DECODERS = re.compile("Decode(Image|Jpeg|Png|Gif|Bmp|WebP|AndCropJpeg)")
WARMUP = "assets.extra/tf_serving_warmup_requests"
# As TensorFlow Serving.
MAX_WARMUP_REQUESTS = 1000


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One named input or output.

    Args:
        dtype: Its type.
        shape: Sizes, `None` where any; or `None` for any rank.
    """

    dtype: "tf.DType"
    shape: tuple | None

    @property
    def batched(self):
        return bool(self.shape) and self.shape[0] is None

    def accepts(self, shape):
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            wanted is None or wanted == size
            for wanted, size in zip(self.shape, shape, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Signature:
    """One function of a SavedModel.

    Args:
        name: Its key.
        inputs, outputs: Dicts from names to `TensorSpec`.
    """

    name: str
    inputs: dict
    outputs: dict

    @property
    def batched(self):
        """True if requests can be joined along the first axis."""
        tensors = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.inputs) and all(tensor.batched for tensor in tensors)

    def check(self, inputs):
        """Raises unless the arrays fit the signature's inputs."""
        if set(inputs) != set(self.inputs):
            raise invalid(
                f"Expected the inputs {', '.join(sorted(self.inputs))}. "
                f"Received: {', '.join(sorted(inputs)) or 'none'}"
            )
        for name, spec in self.inputs.items():
            array = inputs[name]
            kind = "object" if spec.dtype.name == "string" else spec.dtype.name
            if array.dtype.name != kind:
                received = "string" if array.dtype.hasobject else array.dtype.name
                raise invalid(
                    f"Expected {name} of type {spec.dtype.name}. Received: {received}"
                )
            if not spec.accepts(array.shape):
                raise invalid(
                    f"Expected {name} of shape {_text(spec.shape)}. "
                    f"Received: {_text(array.shape)}"
                )

    def batch_size(self, inputs):
        """The common first size of the inputs, or `None` if they are not joined."""
        if not self.batched:
            return None
        sizes = {array.shape[0] for array in inputs.values()}
        if len(sizes) > 1:
            raise invalid(
                f"Expected inputs of one batch size. Received: {sorted(sizes)}"
            )
        return sizes.pop()


def _text(shape):
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    return f"({sizes})"


class SavedModel:
    """One version of a model.

    Args:
        name: Name of the model.
        version: Number of the version.
        folder: Folder of the SavedModel.

    Raises:
        Exception: An error of any type, for a damaged folder.
    """

    def __init__(self, name, version, folder):
        import tensorflow as tf

        self.name = name
        self.version = version
        self.signature_defs = _signature_defs(pathlib.Path(folder))
        self.signatures = {
            key: Signature(key, _specs(found.inputs), _specs(found.outputs))
            for key, found in self.signature_defs.items()
        }
        self._loaded = tf.saved_model.load(str(folder), tags=["serve"])
        self._functions = {
            key: self._loaded.signatures[key]
            for key in self.signatures
            if key in self._loaded.signatures
        }
        # Names of the signatures that decode images.
        self.decoding = {
            key for key, function in self._functions.items() if _decodes(function)
        }
        self._warm_up(pathlib.Path(folder) / WARMUP)

    def signature(self, name=""):
        """`Signature` of a name, or the default one."""
        name = name or DEFAULT_SIGNATURE
        if name not in self._functions:
            known = ", ".join(sorted(self._functions)) or "none"
            raise invalid(
                f'Serving signature name: "{name}" not found in signature def. '
                f"Expected one of: {known}"
            )
        return self.signatures[name]

    def run(self, signature, inputs, cancellation=None):
        """Outputs of a signature.

        Args:
            signature: `Signature`.
            inputs: Dict of arrays that `signature.check` accepts.
            cancellation: TensorFlow's `CancellationManager`, which ends it between two
                operations.

        Returns:
            Dict of arrays.

        Raises:
            ServingError: An error of TensorFlow.
        """
        import tensorflow as tf

        function = self._functions[signature.name]
        specs = signature.inputs
        if cancellation is not None:
            function = cancellation.get_cancelable_function(function)
        try:
            tensors = {
                name: tf.constant(array, specs[name].dtype)
                for name, array in inputs.items()
            }
            outputs = function(**tensors)
            return {name: _array(value) for name, value in outputs.items()}
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error

    def _warm_up(self, path):
        """Runs recorded requests, so that the first answer is not a slow one."""
        if not path.exists():
            return
        import tensorflow as tf
        from tensorflow_serving.apis import prediction_log_pb2

        for record in tf.data.TFRecordDataset(str(path)).take(MAX_WARMUP_REQUESTS):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            request = log.predict_log.request
            if not log.HasField("predict_log"):
                continue
            inputs = {
                key: array_of(tensor, max_bytes=2**31)
                for key, tensor in request.inputs.items()
            }
            signature = self.signature(request.model_spec.signature_name)
            signature.check(inputs)
            self.run(signature, inputs)


def _decodes(function):
    graph = function.graph.as_graph_def()
    bodies = (graph.node, *(inner.node_def for inner in graph.library.function))
    return any(DECODERS.fullmatch(node.op) for body in bodies for node in body)


def _array(tensor):
    value = tensor.numpy()
    # A single string comes as bytes, which NumPy would cut at a zero.
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def _signature_defs(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    if not path.is_file():
        raise ServingError("NOT_FOUND", f"{path} does not exist (yet)")
    contents = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in contents.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            # The graph's initialiser is no signature that can be called.
            return {
                key: value
                for key, value in graph.signature_def.items()
                if not key.startswith("__saved_model")
            }
    raise ServingError("NOT_FOUND", f"{path} has no graph with the tag 'serve'")


def _specs(infos):
    import tensorflow as tf

    return {
        name: TensorSpec(tf.dtypes.as_dtype(info.dtype), _shape(info.tensor_shape))
        for name, info in infos.items()
    }


def _shape(proto):
    if proto.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in proto.dim)
