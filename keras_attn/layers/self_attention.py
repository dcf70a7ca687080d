import keras
from keras import ops

from keras_attn._checks import one_of, positive_integer
from keras_attn.layers._configs import renamed
from keras_attn.ops.precision import float32_at_least, float_dtype

# A functional model cannot ask for more outputs of a layer than its first call gave
# (Keras 3.15), so scores alone are an output of their own.
OUTPUTS = ("tokens", "attention", "class_attention")


@keras.saving.register_keras_serializable(package="keras_attn")
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention, with queries, keys and values from one product.

    Vaswani et al., "Attention Is All You Need", section 3.2.2, and Dosovitskiy et al.,
    "An Image is Worth 16x16 Words", appendix A, for each head of width `d`:
    `A = softmax(q k^T / sqrt(d))` and the result `A v`; a last dense layer takes the
    results of all heads side by side.

    Args:
        num_heads: Number of heads, which divides the width of the tokens.

    Call arguments:
        inputs: Tokens.
        return_attention_scores: Whether to return `(tokens, scores)`.
        output: `"tokens"`, or a part of the attention in place of them, and nothing
            beyond it: `"attention"` for `A` alone, `"class_attention"` for its first
            row, the attention of the class token. That row costs next to nothing: the
            one query goes through the keys' matrix, instead of all tokens.

    Input shape: `(batch, tokens, width)`.

    Output shape: as the input, in the layer's compute dtype; the scores `A` are
        `(batch, num_heads, tokens, tokens)`, every row of which sums to 1, the class
        attention is `(batch, num_heads, tokens)`, float32 at least.

    Returns:
        Tokens; `(tokens, scores)` with `return_attention_scores`; or the part of the
        attention that `output` names.

    Raises:
        ValueError: If `num_heads` is not a positive integer that divides the width, or
            for an unknown `output`.

    Example:

    >>> layer = SelfAttention(3)
    >>> tokens = keras.random.normal((2, 197, 192))
    >>> layer(tokens).shape, layer(tokens, output="class_attention").shape
    ((2, 197, 192), (2, 3, 197))
    >>> _, scores = layer(tokens, return_attention_scores=True)
    >>> scores.shape
    (2, 3, 197, 197)

    Reference: [vaswani2017] arXiv:1706.03762, section 3.2.2; [dosovitskiy2020]
        arXiv:2010.11929, appendix A.
    """

    def __init__(self, num_heads, **kwargs):
        num_heads = positive_integer("num_heads", num_heads)
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, input_shape):
        width = input_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                "Expected `num_heads` to divide the width of the tokens. Received: "
                f"num_heads={self.num_heads} and tokens of shape {tuple(input_shape)}"
            )
        self.queries_keys_values = self._dense(3 * width, "queries_keys_values")
        self.queries_keys_values.build((None, None, width))
        self.projection = self._dense(width, "projection")
        self.projection.build((None, None, width))
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: width})

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, inputs, return_attention_scores=False, output="tokens"):
        one_of("output", output, OUTPUTS)
        if output == "class_attention":
            return self._class_attention(inputs)
        _, tokens, width = ops.shape(inputs)
        depth = width // self.num_heads
        parts = self.queries_keys_values(inputs)
        parts = ops.reshape(parts, (-1, tokens, 3, self.num_heads, depth))
        fused = keras.backend.backend() == "torch" and not return_attention_scores
        if fused and output == "tokens":
            # Its fused kernel needs neither the memory nor the time for `A` itself.
            queries, keys, values = ops.unstack(parts, 3, axis=2)
            results = ops.dot_product_attention(queries, keys, values)
            return self.projection(ops.reshape(results, (-1, tokens, width)))
        queries, keys, values = ops.unstack(ops.transpose(parts, (2, 0, 3, 1, 4)), 3)
        # Scaled before the product, which is the larger of the two.
        scores = ops.matmul(queries * depth**-0.5, ops.swapaxes(keys, 2, 3))
        attention = ops.softmax(scores)
        if output == "attention":
            return attention
        results = ops.transpose(ops.matmul(attention, values), (0, 2, 1, 3))
        results = self.projection(ops.reshape(results, (-1, tokens, width)))
        return (results, attention) if return_attention_scores else results

    def _class_attention(self, inputs):
        """Softmax of `q (W x + b)`; `q b` is the same for all tokens and cancels."""
        if self.queries_keys_values.quantization_mode:
            # Its kernel has another scale.
            attention = self.call(inputs, output="attention")
            return ops.cast(attention[:, :, 0], "float32")
        width = inputs.shape[-1]
        depth = width // self.num_heads
        kernel = ops.cast(self.queries_keys_values.kernel, self.compute_dtype)
        bias = ops.cast(self.queries_keys_values.bias, self.compute_dtype)
        query = ops.matmul(inputs[:, 0], kernel[:, :width]) + bias[:width]
        query = ops.reshape(query * depth**-0.5, (-1, self.num_heads, depth))
        keys = ops.reshape(kernel[:, width : 2 * width], (width, self.num_heads, depth))
        query = ops.einsum("bhd,whd->bhw", query, keys)
        scores = ops.einsum("bhw,btw->bht", query, inputs)
        return ops.softmax(float32_at_least(scores))

    def multiply_adds(self, input_shape):
        """Multiply-adds without those of the class attention."""
        _, tokens, width = input_shape
        return 4 * tokens * width**2 + 2 * tokens**2 * width

    def compute_output_shape(
        self, input_shape, return_attention_scores=False, output="tokens"
    ):
        one_of("output", output, OUTPUTS)
        batch, tokens, _ = input_shape
        shapes = {
            "tokens": tuple(input_shape),
            "attention": (batch, self.num_heads, tokens, tokens),
            "class_attention": (batch, self.num_heads, tokens),
        }
        if return_attention_scores and output == "tokens":
            return shapes["tokens"], shapes["attention"]
        return shapes[output]

    def compute_output_spec(
        self, inputs, return_attention_scores=False, output="tokens"
    ):
        dtype = self.compute_dtype
        if output == "class_attention":
            dtype = float_dtype(dtype)
        shape = self.compute_output_shape(inputs.shape, return_attention_scores, output)
        if return_attention_scores and output == "tokens":
            return tuple(keras.KerasTensor(each, dtype) for each in shape)
        return keras.KerasTensor(shape, dtype)

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}

    @classmethod
    def from_config(cls, config):
        return cls(**renamed(config, {"heads": "num_heads"}))
