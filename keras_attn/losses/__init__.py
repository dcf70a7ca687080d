"""Losses."""

from keras_attn.losses.consistency import ConsistencyLoss
from keras_attn.losses.patch_crossentropy import PatchCrossentropy, mixed_patch_loss

__all__ = ["ConsistencyLoss", "PatchCrossentropy", "mixed_patch_loss"]
