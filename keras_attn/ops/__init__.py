"""The papers' equations as pure functions on tensors: no weights, no state."""

from keras_attn.ops.pooling import window_average
from keras_attn.ops.soft_maximizers import margin_softmax, perturbed_argmax

__all__ = ["margin_softmax", "perturbed_argmax", "window_average"]
