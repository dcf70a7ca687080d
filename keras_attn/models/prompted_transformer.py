"""Class prompts in a transformer whose blocks are inside a layer, as no graph shows."""

import keras
from keras import ops

from keras_attn.graph.attention import Watch
from keras_attn.graph.keras_graph import layers_of
from keras_attn.layers.class_prompts import ClassPrompts


@keras.saving.register_keras_serializable(package="keras_attn")
class PromptedTransformer(keras.layers.Layer):
    """A transformer that it holds, with prompts in its last blocks.

    Args:
        model: Functional model from images to tokens; it runs as in inference.
        encoder: Index of its layer with the blocks; KerasHub changes names in loading.
        blocks: Names of the layers inside that one which get prompts, the last ones.
        num_classes, variant: See `keras_attn.models.prompt_cam`.
        num_heads: Heads of the last block.

    Input shape: that of the model.

    Output shape: `(batch, num_classes, width)`, the prompts, and their attention in the
        last block, `(batch, num_heads, num_classes, num_classes + tokens)`, float32.
    """

    def __init__(
        self, model, encoder, blocks, num_classes, variant, num_heads, **kwargs
    ):
        super().__init__(**kwargs)
        # KerasHub does not save whether a model learns.
        model.trainable = False
        self.model, self.encoder, self.blocks = model, encoder, list(blocks)
        self.num_classes, self.variant = num_classes, variant
        self.num_heads = num_heads
        policy = model.layers[encoder].dtype_policy
        prompted = self.blocks if variant == "deep" else self.blocks[:1]
        self.prompts = [
            ClassPrompts(num_classes, dtype=policy, name=f"prompts_{name}")
            for name in prompted
        ]

    def build(self, input_shape):
        for each in self.prompts:
            each.build(self.model.output.shape)

    def call(self, inputs):
        encoder = self.model.layers[self.encoder]
        around = f"{self.model.name}/{encoder.name}/"
        inside = layers_of(encoder, recursive=False)
        layers = {
            around + each.name: each for each in inside if each.name in self.blocks
        }
        prompts = dict(zip(layers, self.prompts, strict=False))
        *_, last = layers
        attention = []

        def on_attention(found):
            attention[:] = [found.rows(list(range(self.num_classes)))]

        def instead(path, args, kwargs):
            if path not in layers:
                return None
            tokens, *others = args
            if path in prompts:
                tokens = prompts[path](tokens)
            if "num_prefix_tokens" in kwargs:
                # Rotary positions begin behind them.
                prefix = kwargs["num_prefix_tokens"] + self.num_classes
                kwargs = {**kwargs, "num_prefix_tokens": prefix}
            result = layers[path](tokens, *others, **kwargs)
            if self.variant == "shallow" or path == last:
                return result
            if isinstance(result, tuple):
                return result[0][:, self.num_classes :], *result[1:]
            return result[:, self.num_classes :]

        given = keras.tree.pack_sequence_as(self.model.input, [inputs])
        with Watch(on_attention, instead=instead):
            tokens = self.model(given, training=False)
        # In a TensorFlow graph their number may have been lost on the way.
        shape = -1, self.num_classes, self.model.output.shape[-1]
        return ops.reshape(tokens[:, : self.num_classes], shape), attention[-1]

    def compute_output_spec(self, inputs):
        batch, (_, tokens, width) = inputs.shape[0], self.model.output.shape
        scores = self.num_heads, self.num_classes, self.num_classes + tokens
        return (
            keras.KerasTensor(
                (batch, self.num_classes, width), self.model.output.dtype
            ),
            keras.KerasTensor((batch, *scores), "float32"),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "encoder": self.encoder,
            "blocks": self.blocks,
            "num_classes": self.num_classes,
            "variant": self.variant,
            "num_heads": self.num_heads,
        }

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})


def find_transformer(graph, backbone):
    """A transformer whose blocks are inside one of its layers, in a flat graph.

    The whole model runs once, on a black image, which shows where its attention is.

    Returns:
        Names of the blocks, index of the layer around them, the transformer, its heads,
        the key of its input and the grid `(rows, columns)`; `None` if there is none.
    """
    shapes = [tuple(each.shape) for each in graph.function.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:]:
        return None
    is_first = keras.config.image_data_format() == "channels_first"
    size = shapes[0][2:] if is_first else shapes[0][1:3]
    found = []

    def on_attention(attention):
        grid = attention.grid(size)
        if grid is not None and attention.shape[2] == attention.shape[3]:
            found.append((attention.path, attention.shape[1], grid))

    black = ops.zeros((1, *shapes[0][1:]), graph.function.inputs[0].dtype)
    given = keras.tree.pack_sequence_as(graph.function.input, [black])
    with Watch(on_attention, is_first=is_first):
        backbone(given, training=False)
    for step in graph.steps:
        prefix = f"{backbone.name}/{step.path}/"
        around_all = found and all(path.startswith(prefix) for path, *_ in found)
        if step.operation is None or not around_all:
            continue
        names = [path.removeprefix(prefix).split("/")[0] for path, *_ in found]
        inside = [
            each.name
            for each in layers_of(step.operation, recursive=False)
            if each.name in names
            and not isinstance(each, keras.layers.MultiHeadAttention)
        ]
        around = step.path.split("/")[:-1]
        model, keys = graph.function, graph.inputs
        for name in around:
            model = model.get_layer(name)
        if around:
            path = "/".join(around)
            keys = next(
                [key for _, key in each.sources]
                for each in graph.steps
                if each.path == path and each.operation is None
            )
        # One attention in each block.
        if inside == names and len(keys) == 1 and len(model.output.shape) == 3:
            index = model.layers.index(step.operation)
            return inside, index, model, found[-1][1], keys[0], found[-1][2]
    return None
