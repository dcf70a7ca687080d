"""Losses."""

from keras_attn.losses.consistency import ConsistencyLoss
from keras_attn.losses.dino import dino_loss, next_center, teacher_entropy
from keras_attn.losses.patch_crossentropy import PatchCrossentropy, mixed_patch_loss

__all__ = [
    "ConsistencyLoss",
    "PatchCrossentropy",
    "dino_loss",
    "mixed_patch_loss",
    "next_center",
    "teacher_entropy",
]
