import keras
from keras import ops

from keras_attn.layers._blocks import register_block
from keras_attn.layers._deformation import Deformation
from keras_attn.ops.precision import float32_at_least
from keras_attn.ops.sampling_grids import check_gaussian, saliency_field


@register_block("saliency_sampler")
@keras.saving.register_keras_serializable(package="keras_attn")
class SaliencySampler(Deformation):
    """Enlarges what is salient, the same way in all channels (SSN).

    Recasens et al., "Learning to Zoom: a Saliency-Based Sampling Layer for Neural
    Networks", on the map's own features: a 1x1 convolution of `relu(U)` to one channel,
    softmax over the cells, and the sampling grid that this saliency attracts, see
    `keras_attn.ops.sampling_grids.saliency_field`.

    A new layer is not the identity but pulls towards whatever its random convolution
    responds to. With a kernel of zeros, or on a constant map, saliency is uniform and
    the map stays as it is.

    Args:
        fwhm: Full width of the attracting Gaussian at half its maximum, in cells: a
            number, a pair (rows, columns), or `None` for 13/31 of the map's size.
        padding: Cells of border on each side, an integer, a pair, or `None` for one
            less than the map's size. The Gaussian reaches as far.
        kernel_regularizer: Regularizer of the convolution's kernel.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width.

    Output shape: a dict `{"features": (batch, height, width, channels), "fields":
        (batch, height, width, 1, 2)}`, the sampled map in the layer's compute dtype and
        the displacements `(dy, dx)` in cells, which stay on the map. Saliency and
        displacements are float32 at least, under any policy.

    Convention: see `keras_attn.ops.warp`; a displacement leads from a cell of the
        output to the place that it reads.

    Raises:
        ValueError: For a bad `fwhm` or `padding`.

    Example:

    >>> outputs = SaliencySampler()(keras.random.normal((2, 14, 12, 32)))
    >>> outputs["features"].shape, outputs["fields"].shape
    ((2, 14, 12, 32), (2, 14, 12, 1, 2))

    Reference: [recasens2018] arXiv:1809.03355.
    """

    def __init__(self, fwhm=None, padding=None, kernel_regularizer=None, **kwargs):
        check_gaussian(fwhm, padding)
        super().__init__(**kwargs)
        self.fwhm = _kept(fwhm)
        self.padding = _kept(padding)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        self.respond = keras.layers.Dense(
            1,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="respond",
        )
        self.respond.build(input_shape)

    def field(self, inputs):
        return saliency_field(self.saliency(inputs), self.fwhm, self.padding)

    def saliency(self, inputs):
        """Saliency of every cell, `(batch, height, width)`, of sum one."""
        scores = float32_at_least(self.respond(ops.relu(inputs))[..., 0])
        # By hand, since `ops.softmax` over two axes needs a known batch size.
        weights = ops.exp(scores - ops.max(scores, axis=(1, 2), keepdims=True))
        return weights / ops.sum(weights, axis=(1, 2), keepdims=True)

    def multiply_adds(self, input_shape):
        """Multiply-adds of the convolution, the Gaussian sums and the sampling."""
        _, height, width, channels = input_shape
        cells = height * width
        sums = cells * (2 * width + 3 * height)
        return cells * channels + sums + super().multiply_adds(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "fwhm": self.fwhm,
            "padding": self.padding,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _kept(value):
    """A pair as a tuple; saved files have lists."""
    return tuple(value) if isinstance(value, list) else value
