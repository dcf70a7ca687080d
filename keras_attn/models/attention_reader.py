"""Attention maps of any functional transformer as a layer, for models that export."""

import keras
from keras import ops

from keras_attn.graph.attention import attention_rows, read_again
from keras_attn.graph.keras_graph import graph_of


@keras.saving.register_keras_serializable(package="keras_attn")
class AttentionReader(keras.layers.Layer):
    """Attention of one query of one or several blocks of a model that it holds.

    Args:
        model: Functional transformer with one input.
        number, query, heads, grid: See `keras_attn.graph.attention.read_again`; of
            several blocks a list of numbers. `read_attention` finds them.

    Input shape: that of the model.

    Output shape: two tensors, as `AttentionMap` takes them: the attention `(batch,
        heads, 1 + rows * columns)`, whose first entry is that of all tokens that are no
        patches, and the same as maps `(batch, rows, columns, heads)`, float32.
    """

    def __init__(self, model, number, query, heads, grid, **kwargs):
        super().__init__(**kwargs)
        self.model, self.number, self.query = model, number, query
        self.heads, self.grid = heads, tuple(grid)

    def build(self, input_shape):
        pass

    def call(self, inputs):
        given = keras.tree.pack_sequence_as(self.model.input, [inputs])
        maps = read_again(
            lambda: self.model(given, training=False),
            self.number,
            self.query,
            self.grid,
        )
        flat = ops.reshape(maps, (-1, self.heads, self.grid[0] * self.grid[1]))
        others = 1 - ops.sum(flat, axis=-1, keepdims=True)
        attention = ops.concatenate([others, flat], axis=-1)
        return attention, ops.transpose(maps, (0, 2, 3, 1))

    def compute_output_spec(self, inputs):
        rows, columns = self.grid
        shapes = (self.heads, 1 + rows * columns), (rows, columns, self.heads)
        batch = inputs.shape[0]
        return tuple(keras.KerasTensor((batch, *each), "float32") for each in shapes)

    def get_config(self):
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "number": self.number,
            "query": self.query,
            "heads": self.heads,
            "grid": self.grid,
        }

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})


def read_attention(model, blocks):
    """New input, the outputs of an `AttentionReader` of it, the heads of each block.

    The model runs once, on one black image, which shows where its attention is.

    Args:
        model: Functional transformer with one input of known size.
        blocks: List, see `block` of `keras_attn.explain.attention_maps`.
    """
    graph = graph_of(model)
    shapes = [tuple(each.shape) for each in graph.inputs] if graph else []
    if len(shapes) != 1 or None in shapes[0][1:] or len(shapes[0]) != 4:
        raise ValueError(
            "Expected a model of vit(), or a functional one of images of known size; "
            "`keras_attn.explain.attention_maps` reads others as well. "
            f"Received: {model} with inputs {shapes}"
        )
    is_first = keras.config.image_data_format() == "channels_first"
    shape, dtype = shapes[0], graph.inputs[0].dtype
    black = keras.tree.pack_sequence_as(
        graph.input, [ops.zeros((1, *shape[1:]), dtype)]
    )
    size = shape[2:] if is_first else shape[1:3]
    found = [
        attention_rows(
            lambda: model(black, training=False), 1, size, block, is_first=is_first
        )
        for block in blocks
    ]
    counts = [each.patches.shape[1] for each in found]
    numbers = [each.number for each in found]
    reader = AttentionReader(
        model,
        numbers if numbers[1:] else numbers[0],
        found[0].query,
        sum(counts),
        found[0].patches.shape[2:],
        name="attention_reader",
    )
    inputs = keras.Input(batch_shape=shape, dtype=dtype)
    return inputs, *reader(inputs), counts
