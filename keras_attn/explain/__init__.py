"""Explanations of the answers of any Keras model."""

from keras_attn.explain.attention_maps import attention_maps
from keras_attn.explain.attention_rollout import attention_rollout
from keras_attn.explain.class_activation_map import class_activation_map
from keras_attn.explain.grad_cam import grad_cam, grad_cam_plus_plus
from keras_attn.explain.occlusion import occlusion
from keras_attn.explain.split import last_map

__all__ = [
    "attention_maps",
    "attention_rollout",
    "class_activation_map",
    "grad_cam",
    "grad_cam_plus_plus",
    "last_map",
    "occlusion",
]
