import keras
from keras import layers, ops

from keras_attn._checks import number_in, positive_integer, positive_number
from keras_attn.layers._configs import renamed
from keras_attn.layers.self_attention import SelfAttention
from keras_attn.ops.activations import exact_gelu

EPSILON = 1e-6


class _TokenDense(layers.Dense):
    """`Dense` of all tokens of a batch as one matrix.

    TensorFlow on the CPU then computes product, bias and GELU in one operation.
    """

    def call(self, inputs, training=None):
        matrix = ops.reshape(inputs, (-1, inputs.shape[-1]))
        outputs = super().call(matrix, training=training)
        return ops.reshape(outputs, (-1, *ops.shape(inputs)[1:-1], self.units))


@keras.saving.register_keras_serializable(package="keras_attn")
class TransformerBlock(keras.layers.Layer):
    """Block of a vision transformer, normalised before each of its two branches.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", equations (2) and (3):
    `y = x + attention(norm(x))`, then `y + mlp(norm(y))` with an exact GELU between
    the two dense layers. LayerNorm's epsilon is 1e-6.

    Args:
        num_heads: Number of heads of the attention.
        mlp_ratio: Width of the hidden layer in widths of the tokens.
        drop_path: Share of examples for which a branch is left out in training, drawn
            for each branch (Huang et al., "Deep Networks with Stochastic Depth"); the
            others' branches are scaled to keep the mean.

    Call arguments:
        inputs: Tokens.
        return_attention_scores: Whether to return `(tokens, scores)`.
        output: `"tokens"`, or `"attention"` or `"class_attention"` in place of them, as
            for `SelfAttention`; only what that takes is computed.
        training: Whether branches are left out.

    Input shape: `(batch, tokens, width)`.

    Output shape: as the input, in the layer's compute dtype; scores are `(batch,
        num_heads, tokens, tokens)`, the class attention is `(batch, num_heads,
        tokens)`, always float32.

    Returns:
        Tokens; `(tokens, scores)` with `return_attention_scores`; or the part of the
        attention that `output` names.

    Raises:
        ValueError: For arguments out of range, or those that `SelfAttention` refuses.

    Example:

    >>> block = TransformerBlock(3)
    >>> tokens = keras.random.normal((2, 197, 192))
    >>> block(tokens).shape, block(tokens, output="class_attention").shape
    ((2, 197, 192), (2, 3, 197))

    Reference: [dosovitskiy2020] arXiv:2010.11929, equations (2) and (3); [huang2016]
        arXiv:1603.09382.
    """

    def __init__(self, num_heads, mlp_ratio=4, drop_path=0.0, **kwargs):
        num_heads = positive_integer("num_heads", num_heads)
        positive_number("mlp_ratio", mlp_ratio)
        number_in("drop_path", drop_path, "[0, 1)")
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.drop_path = drop_path
        self.input_spec = layers.InputSpec(ndim=3)
        policy = self.dtype_policy
        self.attention_normalization = layers.LayerNormalization(
            epsilon=EPSILON, dtype=policy, name="attention_normalization"
        )
        self.attention = SelfAttention(num_heads, dtype=policy, name="attention")
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
        self.expand = self._dense(hidden, exact_gelu, "expand")
        self.expand.build((None, None, width))
        self.reduce = self._dense(width, None, "reduce")
        self.reduce.build((None, None, hidden))
        self.input_spec = layers.InputSpec(ndim=3, axes={-1: width})

    def _dense(self, units, activation, name):
        return _TokenDense(
            units,
            activation=activation,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name=name,
        )

    def call(
        self, inputs, return_attention_scores=False, output="tokens", training=None
    ):
        normalized = self.attention_normalization(inputs)
        branch = self.attention(
            normalized, return_attention_scores=return_attention_scores, output=output
        )
        if output != "tokens":
            return branch
        branch, scores = branch if return_attention_scores else (branch, None)
        tokens = ops.add(inputs, self.dropped(branch, training=training))
        branch = self.reduce(self.expand(self.mlp_normalization(tokens)))
        tokens = ops.add(tokens, self.dropped(branch, training=training))
        return (tokens, scores) if return_attention_scores else tokens

    def multiply_adds(self, input_shape):
        """Multiply-adds without those of the class attention."""
        _, tokens, width = input_shape
        hidden = int(width * self.mlp_ratio)
        return self.attention.multiply_adds(input_shape) + 2 * tokens * width * hidden

    def compute_output_shape(
        self, input_shape, return_attention_scores=False, output="tokens"
    ):
        return self.attention.compute_output_shape(
            input_shape, return_attention_scores, output
        )

    def compute_output_spec(
        self, inputs, return_attention_scores=False, output="tokens", training=None
    ):
        return self.attention.compute_output_spec(
            inputs, return_attention_scores, output
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "drop_path": self.drop_path,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**renamed(config, {"heads": "num_heads"}))
