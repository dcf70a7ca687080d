"""Preprocessing of images for a network: one implementation for all uses."""

import dataclasses

import keras
from keras import ops

from keras_attn._checks import number_in, one_of
from keras_attn.graph.keras_graph import layers_of

# The usual normalisation of ImageNet, on the scale 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """The images that a network expects; it travels inside the saved model.

    Args:
        height, width: Size in pixels.
        mean, std: Statistics per channel, on the scale 0..1.
        interpolation: Filter of the resize, applied with antialiasing.
        crop_fraction: Side of the central crop relative to the resized image; 0.875
            is the usual "resize to 256, crop 224".
        class_names: Names of the classes, in the order of the logits.
        licence, source: Licence and origin of the data that the weights were learned
            from.
        thresholds: Least probability with which each label is named, of a model whose
            labels do not exclude each other; empty: 0.5.
    """

    height: int
    width: int
    mean: tuple = (0.0, 0.0, 0.0)
    std: tuple = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"
    crop_fraction: float = 1.0
    class_names: tuple = ()
    licence: str = ""
    source: str = ""
    thresholds: tuple = ()

    def __post_init__(self):
        for field in ("mean", "std", "class_names", "thresholds"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if min(self.height, self.width) < 1:
            raise ValueError(
                "Expected a positive size. "
                f"Received: height={self.height}, width={self.width}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                "Expected three means and three positive standard deviations. "
                f"Received: mean={self.mean}, std={self.std}"
            )
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        number_in("crop_fraction", self.crop_fraction, "(0, 1]")
        for each in self.thresholds:
            number_in("thresholds", each, "[0, 1]")

    def to_dict(self):
        # Earlier versions know no thresholds.
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
            if key != "thresholds" or value
        }

    @classmethod
    def from_dict(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_attn")
class ImagePreprocessing(keras.layers.Layer):
    """Fits raw images to the size that the network expects and normalises them.

    The first layer of every model that training builds, so that a saved model takes
    raw pixels and carries its `ImageSpec`.

    Args:
        spec: `ImageSpec`, or its dict.
        resize: If `False`, images keep their size and are only normalised: for
            networks that are used at several sizes.

    Input shape: `(batch, height, width, 3)`, any height and width, values 0..255 of
        any dtype.

    Output shape: `(batch, spec.height, spec.width, 3)`, or the input's own size
        without `resize`; `(images / 255 - mean) / std` in the layer's compute dtype.

    Example:

    >>> layer = ImagePreprocessing(ImageSpec(height=32, width=32))
    >>> layer(np.zeros((1, 48, 64, 3), "uint8")).shape
    (1, 32, 32, 3)
    """

    def __init__(self, spec, resize=True, **kwargs):
        # Raw pixels up to 255 do not survive a cast to half precision unharmed.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.spec = ImageSpec.from_dict(spec) if isinstance(spec, dict) else spec
        if not isinstance(self.spec, ImageSpec):
            raise ValueError(f"Expected an ImageSpec or its dict. Received: {spec}")
        self.resize = resize
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: 3})
        fraction = self.spec.crop_fraction
        # These layers of Keras also run inside tf.data on every backend.
        self.resizing = keras.layers.Resizing(
            round(self.spec.height / fraction),
            round(self.spec.width / fraction),
            interpolation=self.spec.interpolation,
            crop_to_aspect_ratio=True,
            antialias=True,
            dtype="uint8",
        )
        self.crop = keras.layers.CenterCrop(
            self.spec.height, self.spec.width, dtype="uint8"
        )

    def build(self, input_shape):
        self.resizing.build(input_shape)
        self.crop.build(input_shape)

    def fit_size(self, images):
        """Resizes to cover the size and crops the centre: 8-bit in, 8-bit out.

        Pixels kept for training and pixels that are served thus agree to the last bit.
        Takes one image or a batch; works inside `tf.data` on every backend.
        """
        if tuple(images.shape[-3:-1]) == (self.spec.height, self.spec.width):
            return images
        # Keras's default, `True`, would be passed on to the layers behind this one.
        return self.crop(self.resizing(images, training=False))

    def normalize(self, images):
        """`(images / 255 - mean) / std` in the layer's compute dtype."""
        images = ops.cast(images, "float32") / 255.0
        mean = ops.convert_to_tensor(self.spec.mean, "float32")
        std = ops.convert_to_tensor(self.spec.std, "float32")
        return ops.cast((images - mean) / std, self.compute_dtype)

    def call(self, images):
        fits = tuple(images.shape[1:3]) == (self.spec.height, self.spec.width)
        if self.resize and not fits:
            images = ops.cast(ops.round(ops.clip(images, 0, 255)), "uint8")
            images = self.fit_size(images)
        return self.normalize(images)

    def window_steps(self):
        # Windows are in pixels of the fitted image, which the network sees.
        return []

    def compute_output_shape(self, input_shape):
        if not self.resize:
            return tuple(input_shape)
        return (*input_shape[:-3], self.spec.height, self.spec.width, 3)

    def get_config(self):
        return {
            **super().get_config(),
            "spec": self.spec.to_dict(),
            "resize": self.resize,
        }


def spec_of(model: keras.Model) -> ImageSpec:
    """The `ImageSpec` that a model carries, its own before those of models inside it.

    Raises:
        ValueError: If the model has no `ImagePreprocessing` layer.
    """
    for layers in (model.layers, layers_of(model)):
        for layer in layers:
            if isinstance(layer, ImagePreprocessing):
                return layer.spec
    raise ValueError(
        f"Expected a model that carries its image spec. Received: {model.name!r}, "
        "without an ImagePreprocessing layer"
    )
