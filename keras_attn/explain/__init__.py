"""Why a model answers as it does, for any Keras model."""

from keras_attn.explain.grad_cam import grad_cam

__all__ = ["grad_cam"]
