"""keras-attn: attention and localisation for image classifiers, in Keras 3."""

from keras_attn import layers, losses, models, ops
from keras_attn.accounting import multiply_adds, trainable_params
from keras_attn.calibration import estimate_margin_and_scale
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec, spec_of
from keras_attn.surgery import insert
from keras_attn.version import __version__

__all__ = [
    "ImagePreprocessing",
    "ImageSpec",
    "__version__",
    "estimate_margin_and_scale",
    "insert",
    "layers",
    "losses",
    "models",
    "multiply_adds",
    "ops",
    "spec_of",
    "trainable_params",
]
