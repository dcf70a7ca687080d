"""Losses."""

from keras_attn.losses.patch_crossentropy import PatchCrossentropy, mixed_patch_loss

__all__ = ["PatchCrossentropy", "mixed_patch_loss"]
