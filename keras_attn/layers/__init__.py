"""Layers: weights around an op, one public layer a file."""

from keras_attn.layers.class_embedding import ClassEmbedding
from keras_attn.layers.patch_logits import PatchLogits

__all__ = ["ClassEmbedding", "PatchLogits"]
