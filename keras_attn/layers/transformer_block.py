import keras
from keras import layers, ops

from keras_attn.layers.self_attention import SelfAttention

EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_attn")
class TransformerBlock(keras.layers.Layer):
    """Block of a vision transformer, normalised before each of its two branches.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", equations (2) and (3):
    `y = x + attention(norm(x))`, then `y + mlp(norm(y))` with an exact GELU between
    the two dense layers. LayerNorm's epsilon is 1e-6.

    Args:
        heads: Number of heads of the attention.
        mlp_ratio: Width of the hidden layer in widths of the tokens.
        drop_path: Share of examples for which a branch is left out in training, drawn
            for each branch (Huang et al., "Deep Networks with Stochastic Depth"); the
            others' branches are scaled to keep the mean.

    Call arguments:
        inputs: Tokens.
        output: `"tokens"`, or a part of the attention in place of them, as for
            `SelfAttention`; only what that takes is computed.
        training: Whether branches are left out.

    Input shape: `(batch, tokens, width)`.

    Output shape: as for `SelfAttention`.

    Raises:
        ValueError: For arguments out of range, or those of `SelfAttention`.

    Example:

    >>> block = TransformerBlock(3)
    >>> tokens = keras.random.normal((2, 197, 192))
    >>> block(tokens).shape, block(tokens, output="attention").shape
    ((2, 197, 192), (2, 3, 197, 197))
    """

    def __init__(self, heads, mlp_ratio=4, drop_path=0.0, **kwargs):
        if not mlp_ratio > 0:
            raise ValueError(
                f"Expected `mlp_ratio` to be positive. Received: mlp_ratio={mlp_ratio}"
            )
        if not 0 <= drop_path < 1:
            raise ValueError(
                "Expected `drop_path` to be at least 0 and less than 1. "
                f"Received: drop_path={drop_path}"
            )
        super().__init__(**kwargs)
        self.heads = heads
        self.mlp_ratio = mlp_ratio
        self.drop_path = drop_path
        self.input_spec = layers.InputSpec(ndim=3)
        policy = self.dtype_policy
        self.attention_normalization = layers.LayerNormalization(
            epsilon=EPSILON, dtype=policy, name="attention_normalization"
        )
        self.attention = SelfAttention(heads, dtype=policy, name="attention")
        self.mlp_normalization = layers.LayerNormalization(
            epsilon=EPSILON, dtype=policy, name="mlp_normalization"
        )
        self.dropped = layers.Dropout(
            drop_path, noise_shape=(None, 1, 1), dtype=policy, name="drop_path"
        )

    def build(self, input_shape):
        width = input_shape[-1]
        hidden = int(width * self.mlp_ratio)
        self.attention_normalization.build(input_shape)
        self.attention.build(input_shape)
        self.mlp_normalization.build(input_shape)
        self.expand = self._dense(hidden, "gelu", "expand")
        self.expand.build((None, None, width))
        self.reduce = self._dense(width, None, "reduce")
        self.reduce.build((None, None, hidden))
        self.input_spec = layers.InputSpec(ndim=3, axes={-1: width})

    def _dense(self, units, activation, name):
        return layers.Dense(
            units,
            activation=activation,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, inputs, output="tokens", training=None):
        normalized = self.attention_normalization(inputs)
        branch = self.attention(normalized, output=output)
        if output != "tokens":
            return branch
        tokens = ops.add(inputs, self.dropped(branch, training=training))
        branch = self.reduce(self.expand(self.mlp_normalization(tokens)))
        return ops.add(tokens, self.dropped(branch, training=training))

    def multiply_adds(self, input_shape):
        """Of the output `"tokens"`."""
        _, tokens, width = input_shape
        hidden = int(width * self.mlp_ratio)
        return self.attention.multiply_adds(input_shape) + 2 * tokens * width * hidden

    def compute_output_shape(self, input_shape, output="tokens"):
        return self.attention.compute_output_shape(input_shape, output)

    def compute_output_spec(self, inputs, output="tokens", training=None):
        return self.attention.compute_output_spec(inputs, output)

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
            "drop_path": self.drop_path,
        }
