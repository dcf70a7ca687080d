import keras

from keras_attn._checks import pair
from keras_attn.layers._maps import MapLayer
from keras_attn.ops.patches import crop_patches


@keras.saving.register_keras_serializable(package="keras_attn")
class CropPatches(MapLayer):
    """Crops boxes at native resolution, see `keras_attn.ops.crop_patches`.

    Pixels outside the image, and outside a box that is smaller than `size`, are zero;
    so is the whole patch of an absent box.

    Args:
        size: Side of the patches in pixels, an integer or `(rows, columns)`.

    Call arguments:
        inputs: List `[images, boxes]`.

    Input shape: a list of images `(batch, height, width, channels)` and boxes
        `(batch, K, 4)`.

    Output shape: `(batch, K, rows, columns, channels)`. Float images are returned in
        the layer's compute dtype, others in their own.

    Convention: boxes are `(y0, x0, y1, x1)`, half-open pixel coordinates of the image,
        -1 where absent.

    Raises:
        ValueError: For a size that is not positive.

    Example:

    >>> images = np.zeros((2, 224, 224, 3), "float32")
    >>> boxes = np.array([[[8, 0, 71, 63]], [[-1, -1, -1, -1]]])
    >>> CropPatches(63)([images, boxes]).shape
    (2, 1, 63, 63, 3)

    Reference: [yang2020] arXiv:2002.03737, section 4.4.
    """

    def __init__(self, size, **kwargs):
        size = pair("size", size, minimum=1)
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs):
        images, boxes = inputs
        return crop_patches(images, boxes, self.size)

    def compute_output_shape(self, input_shape):
        images, boxes = input_shape
        return (images[0], boxes[1], *self.size, images[3])

    def compute_output_spec(self, inputs):
        # The base class expects the compute dtype, whatever the images are.
        images, boxes = inputs
        shape = self.compute_output_shape([images.shape, boxes.shape])
        return keras.KerasTensor(shape, images.dtype)

    def get_config(self):
        return {**super().get_config(), "size": self.size}
