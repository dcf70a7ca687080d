import keras
from keras import ops

OUTPUTS = ("tokens", "attention", "class_attention")


@keras.saving.register_keras_serializable(package="keras_attn")
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention, with queries, keys and values from one product.

    Vaswani et al., "Attention Is All You Need", section 3.2.2, and Dosovitskiy et al.,
    "An Image is Worth 16x16 Words", appendix A, for each head of width `d`:
    `A = softmax(q k^T / sqrt(d))`, and its result `A v`; the heads' results side by
    side go through a last dense layer.

    Args:
        heads: Number of heads, which divides the width of the tokens.

    Call arguments:
        inputs: Tokens.
        output: What to compute, and nothing beyond it: `"tokens"`, `"attention"` or
            `"class_attention"`.

    Input shape: `(batch, tokens, width)`.

    Output shape: by `output`, in the layer's compute dtype,

        - `"tokens"`: as the input,
        - `"attention"`: `A`, `(batch, heads, tokens, tokens)`; every row sums to 1,
        - `"class_attention"`: the first row of `A` alone, `(batch, heads, tokens)`,
          always float32. It costs next to nothing: the one query goes through the
          keys' matrix, instead of all tokens.

    Raises:
        ValueError: If `heads` is not a positive integer that divides the width, or for
            an unknown `output`.

    Example:

    >>> layer = SelfAttention(3)
    >>> tokens = keras.random.normal((2, 197, 192))
    >>> layer(tokens).shape, layer(tokens, output="class_attention").shape
    ((2, 197, 192), (2, 3, 197))
    """

    def __init__(self, heads, **kwargs):
        if not isinstance(heads, int) or heads < 1:
            raise ValueError(
                f"Expected `heads` to be a positive integer. Received: heads={heads}"
            )
        super().__init__(**kwargs)
        self.heads = heads
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, input_shape):
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(
                "Expected `heads` to divide the width of the tokens. "
                f"Received: heads={self.heads} and tokens of shape {tuple(input_shape)}"
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

    def call(self, inputs, output="tokens"):
        _check_output(output)
        if output == "class_attention":
            return self._class_attention(inputs)
        _, tokens, width = ops.shape(inputs)
        depth = width // self.heads
        parts = self.queries_keys_values(inputs)
        parts = ops.reshape(parts, (-1, tokens, 3, self.heads, depth))
        if output == "tokens" and keras.backend.backend() == "torch":
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
        return self.projection(ops.reshape(results, (-1, tokens, width)))

    def _class_attention(self, inputs):
        """Softmax of `q (W x + b)`; `q b` is the same for all tokens and cancels."""
        width = inputs.shape[-1]
        depth = width // self.heads
        kernel = ops.cast(self.queries_keys_values.kernel, self.compute_dtype)
        bias = ops.cast(self.queries_keys_values.bias, self.compute_dtype)
        query = ops.matmul(inputs[:, 0], kernel[:, :width]) + bias[:width]
        query = ops.reshape(query * depth**-0.5, (-1, self.heads, depth))
        keys = ops.reshape(kernel[:, width : 2 * width], (width, self.heads, depth))
        query = ops.einsum("bhd,whd->bhw", query, keys)
        scores = ops.einsum("bhw,btw->bht", query, inputs)
        return ops.softmax(ops.cast(scores, "float32"))

    def multiply_adds(self, input_shape):
        """Of the output `"tokens"`."""
        _, tokens, width = input_shape
        return 4 * tokens * width**2 + 2 * tokens**2 * width

    def compute_output_shape(self, input_shape, output="tokens"):
        _check_output(output)
        batch, tokens, _ = input_shape
        return {
            "tokens": tuple(input_shape),
            "attention": (batch, self.heads, tokens, tokens),
            "class_attention": (batch, self.heads, tokens),
        }[output]

    def compute_output_spec(self, inputs, output="tokens"):
        dtype = "float32" if output == "class_attention" else self.compute_dtype
        return keras.KerasTensor(self.compute_output_shape(inputs.shape, output), dtype)

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


def _check_output(output):
    if output not in OUTPUTS:
        raise ValueError(
            f"Expected `output` to be one of {OUTPUTS}. Received: output={output!r}"
        )
