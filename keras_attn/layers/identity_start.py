import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_attn")
class IdentityStart(keras.layers.Layer):
    """Fades a block in: a new layer returns the map in front of the block, exactly.

    ReZero: `x + scale * (y - x)` for the map `x` in front of a block and its features
    `y`, with one trained number `scale`, which starts at zero. At 1 the block's own
    equation holds. The block itself learns from the second step on.

    Args:
        initializer: Initializer of `scale`.

    Call arguments:
        inputs: `[x, y]`.

    Input shape: two tensors of one shape.

    Output shape: that of both.

    Example:

    >>> x = keras.random.normal((2, 7, 7, 16))
    >>> y = SqueezeExcitation()(x)
    >>> bool(ops.all(IdentityStart()([x, y]) == x))
    True

    Reference: [bachlechner2020] arXiv:2003.04887.
    """

    def __init__(self, initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        self.scale = self.add_weight(
            name="scale", shape=(), initializer=self.initializer
        )

    def call(self, inputs):
        before, after = inputs
        return before + ops.cast(self.scale, after.dtype) * (after - before)

    def window_steps(self):
        return []

    def multiply_adds(self, input_shape):
        return 0

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "initializer": keras.initializers.serialize(self.initializer),
        }
