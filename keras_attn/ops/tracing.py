"""The kind of file that a model is being traced for."""

import contextlib
import contextvars
import sys
from types import FrameType

# Modules that trace a model to write a file, as Keras's `model.export` does.
WRITERS = {
    "keras.src.export.onnx": "onnx",
    "tf2onnx.convert": "onnx",
    "keras.src.export.litert": "litert",
    "keras.src.export.openvino": "openvino",
}
NAMES = {"onnx": "ONNX", "litert": "LiteRT", "openvino": "OpenVINO"}
_format: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "format", default=None
)


@contextlib.contextmanager
def traced_for(format: str):
    """Context in which models are traced for a format, one of `NAMES`."""
    token = _format.set(format)
    try:
        yield
    finally:
        _format.reset(token)


def traced_format():
    """The format that a model is being traced for, or `None`.

    Keras does not pass it on to layers, so for its own `model.export` the caller is
    looked up.
    """
    frame: FrameType | None = sys._getframe()
    format = _format.get()
    while frame and not format:
        format = WRITERS.get(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return format


def refuse_portable(layer, reason: str):
    """Raises ValueError where a layer is traced for a format that cannot hold it."""
    if format := traced_format():
        raise ValueError(
            f"{NAMES[format]} cannot express {type(layer).__name__}, which {reason}. "
            f"Received: the layer {layer.name!r}; a SavedModel holds it."
        )
