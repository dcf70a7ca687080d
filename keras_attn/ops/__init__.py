"""The papers' equations as pure functions on tensors: no weights, no state."""

from keras_attn.ops.pooling import window_average

__all__ = ["window_average"]
