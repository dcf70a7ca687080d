import keras
from keras import ops

from keras_attn._checks import pair, positive_integer
from keras_attn.layers._maps import MapLayer


@keras.saving.register_keras_serializable(package="keras_attn")
class PatchEmbedding(MapLayer):
    """Vectors of the patches that tile an image.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", equation (1): `x_p E`, the
    same as a convolution whose stride is the size of its kernel.

    Args:
        width: Length of the vectors.
        patch_size: Side of the patches, an integer or `(rows, columns)`.

    Call arguments:
        inputs: A batch of images.

    Input shape: `(batch, height, width, channels)`, height and width divisible by the
        patch. They may be unknown until the layer is called.

    Output shape: `(batch, rows, columns, width)` in the layer's compute dtype, one
        vector per patch.

    Raises:
        ValueError: If an argument is not positive, or patches do not tile the image.

    Example:

    >>> PatchEmbedding(192, 16)(keras.random.normal((2, 224, 96, 3))).shape
    (2, 14, 6, 192)

    Reference: [dosovitskiy2020] arXiv:2010.11929, equation (1).
    """

    def __init__(self, width, patch_size, **kwargs):
        width = positive_integer("width", width)
        patch_size = pair("patch_size", patch_size, 1)
        super().__init__(**kwargs)
        self.width = width
        self.patch_size = patch_size
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        channels = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.patch_size, channels, self.width),
            # That of PyTorch's convolutions, which DINO leaves as it is.
            initializer=keras.initializers.VarianceScaling(
                1 / 3, distribution="uniform"
            ),
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.width,), initializer="zeros"
        )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})

    def call(self, inputs):
        # As a product of matrices it is faster than a convolution on CPUs.
        rows, columns = self._grid(ops.shape(inputs))
        height, width = self.patch_size
        channels = inputs.shape[-1]
        patches = ops.reshape(inputs, (-1, rows, height, columns, width, channels))
        patches = ops.transpose(patches, (0, 1, 3, 2, 4, 5))
        area = height * width * channels
        patches = ops.reshape(patches, (-1, rows, columns, area))
        kernel = ops.reshape(self.kernel, (area, self.width))
        return ops.add(ops.matmul(patches, kernel), self.bias)

    def _grid(self, input_shape):
        """Numbers of rows and columns of patches."""
        sides = zip(input_shape[1:3], self.patch_size, strict=True)
        if any(isinstance(side, int) and side % patch for side, patch in sides):
            raise ValueError(
                "Expected images whose height and width are divisible by those of the "
                f"patch. Received: patch_size={self.patch_size} and images of "
                f"{input_shape[1]} x {input_shape[2]} pixels"
            )
        return tuple(
            None if side is None else side // patch
            for side, patch in zip(input_shape[1:3], self.patch_size, strict=True)
        )

    def multiply_adds(self, input_shape):
        rows, columns = self._grid(input_shape)
        height, width = self.patch_size
        return rows * columns * height * width * input_shape[-1] * self.width

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self._grid(input_shape), self.width)

    def get_config(self):
        return {
            **super().get_config(),
            "width": self.width,
            "patch_size": self.patch_size,
        }
