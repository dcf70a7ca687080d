import keras
from keras import ops

from keras_attn._checks import one_of, positive_integer
from keras_attn.layers._blocks import register_block
from keras_attn.layers._maps import MapLayer
from keras_attn.layers.patch_logits import PatchLogits
from keras_attn.ops.pooling import standardize_window

MERGES = ("add", "concatenate")


@register_block("class_embedding")
@keras.saving.register_keras_serializable(package="keras_attn")
class ClassEmbedding(MapLayer):
    """Adds to every cell the embedding of the classes that its region matches.

    Class embedding paper, section 3.3 and figure 2. With `f` the input:

    1. `x_g`: average of `f` over a window centred at each cell (valid cells only),
    2. `a = x_g W + b`: the region's class scores, `patch_logits`,
    3. `f' = ReLU(BN(a)) V`: the matching classes' embedding vectors, the rows of
       `V` (`values`), mixed by the scores,
    4. `f_out = f S + f'`: the paper's shortcut, a per-cell linear map (`shortcut`).

    With `merge="concatenate"` step 4 is `f_out = [f ; f']` and there is no shortcut
    map. No activation follows; the next pre-activation block normalises.

    Train the patch logits with the image's label at every cell,
    `keras_attn.losses.PatchCrossentropy`; gradients of the main loss reach them too.

    Args:
        num_classes: Number of classes, at least 1.
        filters: Width of the class vectors. `None`: the input's width. With
            `merge="add"` it is also the output's width.
        window: `(rows, columns)` of the window, an integer for both, or `None` for
            half of the map, whatever its size.
        merge: `"add"` or `"concatenate"`.
        use_bias: Whether the value and shortcut maps have biases. Without them a cell
            that matches no class receives the zero vector. The classifier always has
            a bias.
        return_patch_logits: If `False`, only the features are returned.
        kernel_initializer: Initializer of the three kernels.
        kernel_regularizer: Regularizer of the three kernels.

    Call arguments:
        inputs: A feature map.
        training: Whether the batch normalisation uses the statistics of the batch.

    Input shape: `(batch, height, width, channels)`; height and width may be unknown.

    Output shape: a dict `{"features": (batch, height, width, width_out),
        "patch_logits": (batch, height, width, num_classes)}` with `width_out` equal
        to `filters`, or `channels + filters` when concatenating; or the features
        alone. Both have the layer's compute dtype.

    Raises:
        ValueError: For numbers that are not positive integers, an unknown `merge` or a
            bad window.

    Example:

    >>> features = keras.random.normal((2, 8, 8, 128))
    >>> outputs = ClassEmbedding(num_classes=10)(features)
    >>> outputs["features"].shape, outputs["patch_logits"].shape
    ((2, 8, 8, 128), (2, 8, 8, 10))

    Reference: [gorgun2022] arXiv:2210.00992, section 3.3.
    """

    def __init__(
        self,
        num_classes,
        filters=None,
        window=None,
        merge="add",
        use_bias=False,
        return_patch_logits=True,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        num_classes = positive_integer("num_classes", num_classes)
        filters = positive_integer("filters", filters, optional=True)
        one_of("merge", merge, MERGES)
        standardize_window(window)
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.filters = filters
        self.merge = merge
        self.use_bias = use_bias
        self.return_patch_logits = return_patch_logits
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self.patch_logits = PatchLogits(
            num_classes,
            window,
            kernel_initializer=self.kernel_initializer,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="patch_logits",
        )
        self.window = self.patch_logits.window
        self.normalization = keras.layers.BatchNormalization(
            momentum=0.9, dtype=self.dtype_policy, name="normalization"
        )

    def build(self, input_shape):
        channels = input_shape[-1]
        self.patch_logits.build(input_shape)
        scores_shape = self.patch_logits.compute_output_shape(input_shape)
        self.normalization.build(scores_shape)
        self.values = self._linear(self.filters or channels, "values")
        self.values.build(scores_shape)
        if self.merge == "add":
            self.shortcut = self._linear(self.filters or channels, "shortcut")
            self.shortcut.build(input_shape)

    def _linear(self, units, name):
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, inputs, training=None):
        patch_logits = self.patch_logits(inputs)
        matches = ops.relu(self.normalization(patch_logits, training=training))
        embedding = self.values(matches)
        if self.merge == "add":
            features = self.shortcut(inputs) + embedding
        else:
            features = ops.concatenate([inputs, embedding], axis=-1)
        if not self.return_patch_logits:
            return features
        return {"features": features, "patch_logits": patch_logits}

    def compute_output_shape(self, input_shape):
        channels = input_shape[-1]
        filters = self.filters or channels
        width = filters if self.merge == "add" else channels + filters
        features = (*input_shape[:-1], width)
        if not self.return_patch_logits:
            return features
        patch_logits = self.patch_logits.compute_output_shape(input_shape)
        return {"features": features, "patch_logits": patch_logits}

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "filters": self.filters,
            "window": self.window,
            "merge": self.merge,
            "use_bias": self.use_bias,
            "return_patch_logits": self.return_patch_logits,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    @classmethod
    def from_config(cls, config):
        # Keras's reader of `.h5` files takes "add" for its function of that name.
        merge = config.get("merge", "add")
        return cls(**{**config, "merge": getattr(merge, "__name__", merge)})
