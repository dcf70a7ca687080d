"""Layers: weights around an op, one public layer a file."""

from keras_attn.layers.class_embedding import ClassEmbedding
from keras_attn.layers.margin_softmax import MarginSoftmax
from keras_attn.layers.patch_logits import PatchLogits
from keras_attn.layers.perturbed_argmax import PerturbedArgmax

__all__ = ["ClassEmbedding", "MarginSoftmax", "PatchLogits", "PerturbedArgmax"]
