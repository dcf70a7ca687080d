import keras
from keras import ops

from keras_attn._checks import positive_number
from keras_attn.layers._blocks import register_block
from keras_attn.layers._deformation import Deformation
from keras_attn.ops.sampling_grids import attention_field, structure_map


@register_block("attention_sampler")
@keras.saving.register_keras_serializable(package="keras_attn")
class AttentionSampler(Deformation):
    """Gives attended rows and columns more room, the same in all channels (ASN).

    Zheng et al., "Looking for the Devil in the Details: Learning Trilinear Attention
    Sampling Network" (TASN), on the map's own features: the sum of the trilinear
    attention over its channels, TASN's structure map, and the sampling grid with the
    inverse of its marginals, see `structure_map` and `attention_field` of
    `keras_attn.ops.sampling_grids`. TASN's detail branch, which takes one random
    channel of the attention, and its distillation are not part of this layer.

    As published, the attention is detached: nothing is learned here, and gradients
    reach the map only through the values that are sampled. So a new layer does what a
    trained one does. It is never the identity: uniform attention reads the place
    `i (n - 1) / n` for cell `i` of `n`.

    Args:
        scale: Factor of the features in the inner softmax, a positive number. 7 in the
            authors' first code, 2 in their later one.

    Call arguments:
        inputs: A feature map.

    Input shape: `(batch, height, width, channels)`, any height and width, after a ReLU
        in the paper; attention below zero counts as zero. Needs `channels ** 2`
        floats of memory per image.

    Output shape: a dict `{"features": (batch, height, width, channels), "fields":
        (batch, height, width, 1, 2)}`, the sampled map in the layer's compute dtype and
        the displacements `(dy, dx)` in cells, which stay on the map. Attention and
        displacements are float32 at least, under any policy.

    Convention: see `keras_attn.ops.warp`; a displacement leads from a cell of the
        output to the place that it reads.

    Raises:
        ValueError: If `scale` is not a positive number.

    Example:

    >>> features = keras.ops.relu(keras.random.normal((2, 14, 12, 32)))
    >>> outputs = AttentionSampler()(features)
    >>> outputs["features"].shape, outputs["fields"].shape
    ((2, 14, 12, 32), (2, 14, 12, 1, 2))

    Reference: [zheng2019] arXiv:1903.06150.
    """

    def __init__(self, scale=7.0, **kwargs):
        positive_number("scale", scale)
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, input_shape):
        """No weights."""

    def field(self, inputs):
        return attention_field(self.attention(inputs))

    def attention(self, inputs):
        """The structure map, `(batch, height, width)`, detached."""
        return structure_map(ops.stop_gradient(inputs), self.scale)

    def multiply_adds(self, input_shape):
        """Multiply-adds of the channels' relations, their map and the sampling."""
        _, height, width, channels = input_shape
        attention = height * width * channels * (channels + 1)
        return attention + super().multiply_adds(input_shape)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}
