import keras
from keras import ops

from keras_attn._checks import one_of, pair
from keras_attn.layers._maps import MapLayer
from keras_attn.ops.attention_maps import (
    AGGREGATES,
    NORMALIZATIONS,
    aggregate_heads,
    normalize_map,
)
from keras_attn.ops.precision import float32_at_least
from keras_attn.ops.resize import INTERPOLATIONS, upsample


@keras.saving.register_keras_serializable(package="keras_attn")
class AttentionMap(MapLayer):
    """Attention of the class token as a map over the patches.

    Wang, "Refining Residual Mappings Using Regions of High Attention", section 3: the
    first row of a transformer's attention without its first entry, in the order of the
    patches, then aggregated, normalised and enlarged by the arguments, in their order;
    see `keras_attn.ops.attention_maps`.

    Args:
        aggregate: `None` for one channel per head, or `"mean"`, `"sum"`, `"max"`,
            `"min"` for one channel.
        normalize: `None` for the attention itself, `"minmax"` or `"scale"`.
        factor: Factor of the size of the map, an integer or `(rows, columns)`;
            the patch size makes it as large as the image.
        interpolation: `"nearest"` or `"bilinear"`.
        heads: Indices of the heads to take; `None`: all.

    Call arguments:
        inputs: List of the attention of the class token and the map of patches.

    Input shape: a list of the attention `(batch, heads, 1 + rows * columns)` and the
        map of patches `(batch, rows, columns, width)`, of which only the shape counts.

    Output shape: `(batch, factor * rows, factor * columns, channels)`, in
        the layer's compute dtype; give it `dtype="float32"` where that is a half type.

    Convention: cells are in row-major order, as the patches are in `PatchEmbedding`.

    Raises:
        ValueError: For an unknown name or a factor that is not positive.

    Example:

    >>> attention = keras.ops.softmax(keras.random.normal((2, 3, 1 + 4 * 5)))
    >>> AttentionMap("mean", factor=8)([attention, np.zeros((2, 4, 5, 192))]).shape
    (2, 32, 40, 1)

    Reference: [wang].
    """

    def __init__(
        self,
        aggregate=None,
        normalize=None,
        factor=1,
        interpolation="nearest",
        heads=None,
        **kwargs,
    ):
        one_of("aggregate", aggregate, (None, *AGGREGATES))
        one_of("normalize", normalize, (None, *NORMALIZATIONS))
        one_of("interpolation", interpolation, INTERPOLATIONS)
        factor = pair("factor", factor, 1)
        super().__init__(**kwargs)
        self.aggregate = aggregate
        self.normalize = normalize
        self.factor = factor
        self.interpolation = interpolation
        self.heads = None if heads is None else [int(head) for head in heads]

    def call(self, inputs):
        attention, patches = inputs
        if self.heads is not None:
            attention = ops.take(attention, self.heads, axis=1)
        _, rows, columns, _ = ops.shape(patches)
        maps = ops.transpose(float32_at_least(attention[:, :, 1:]), (0, 2, 1))
        maps = ops.reshape(maps, (-1, rows, columns, attention.shape[1]))
        if self.aggregate is not None:
            maps = aggregate_heads(maps, self.aggregate)
        if self.normalize is not None:
            maps = normalize_map(maps, self.normalize)
        maps = upsample(maps, self.factor, self.interpolation)
        return ops.cast(maps, self.compute_dtype)

    def multiply_adds(self, *input_shapes):
        return 0

    def compute_output_shape(self, input_shape):
        (batch, heads, _), (_, rows, columns, _) = input_shape
        rows, columns = (
            None if size is None else size * factor
            for size, factor in zip((rows, columns), self.factor, strict=True)
        )
        heads = heads if self.heads is None else len(self.heads)
        return (batch, rows, columns, heads if self.aggregate is None else 1)

    def get_config(self):
        # Models of all heads have the digests that their caches were made with.
        chosen = {} if self.heads is None else {"heads": self.heads}
        return {
            **super().get_config(),
            "aggregate": self.aggregate,
            "normalize": self.normalize,
            "factor": self.factor,
            "interpolation": self.interpolation,
            **chosen,
        }
