"""Explanations of the answers of any Keras model."""

from keras_attn.explain.attention_maps import attention_maps
from keras_attn.explain.attention_rollout import attention_rollout
from keras_attn.explain.class_activation_map import class_activation_map
from keras_attn.explain.grad_cam import grad_cam, grad_cam_plus_plus
from keras_attn.explain.gradient_rollout import gradient_rollout
from keras_attn.explain.hires_cam import hires_cam
from keras_attn.explain.integrated_gradients import integrated_gradients
from keras_attn.explain.layer_cam import layer_cam
from keras_attn.explain.legrad import legrad
from keras_attn.explain.object_heads import head_features, object_heads
from keras_attn.explain.objects import (
    boxes_of_masks,
    lost,
    patch_features,
    token_cut,
)
from keras_attn.explain.occlusion import occlusion
from keras_attn.explain.score_cam import score_cam
from keras_attn.explain.smooth_grad import smooth_grad
from keras_attn.explain.split import last_map
from keras_attn.explain.targets import pixels, similarity

__all__ = [
    "attention_maps",
    "attention_rollout",
    "boxes_of_masks",
    "class_activation_map",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient_rollout",
    "head_features",
    "hires_cam",
    "integrated_gradients",
    "last_map",
    "layer_cam",
    "legrad",
    "lost",
    "object_heads",
    "occlusion",
    "patch_features",
    "pixels",
    "score_cam",
    "similarity",
    "smooth_grad",
    "token_cut",
]
