"""What a model costs: trainable parameters and multiply-adds."""

import math

import keras
from keras import layers

CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)


def trainable_params(model):
    """Number of trainable scalars (batch-norm scale and offset counted)."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def multiply_adds(model):
    """Multiply-adds for one example, of convolution and dense layers only.

    Every application of a layer counts. A layer made of other layers counts them at
    the cells of its own input, unless it has a method `multiply_adds(input_shape)`.

    Args:
        model: Functional or sequential model with fixed spatial sizes.

    Raises:
        ValueError: If a spatial size is unknown.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> multiply_adds(keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs)))
    3888
    """
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)
    counts = []

    def count_and_call(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        shapes = [tensor.shape for tensor in keras.tree.flatten(args)]
        counts.append(_layer_multiply_adds(layer, shapes[0]))
        return outputs

    # Counting on a clone leaves the model's own graph untouched.
    keras.models.clone_model(model, call_function=count_and_call)
    return sum(counts)


def _layer_multiply_adds(layer, input_shape):
    if hasattr(layer, "multiply_adds"):
        return layer.multiply_adds(input_shape)
    if isinstance(layer, keras.Model):
        return multiply_adds(layer)
    if isinstance(layer, layers.Dense):
        return _cells(input_shape[1:-1], layer) * math.prod(layer.kernel.shape)
    if isinstance(layer, CONVOLUTIONS):
        # A kernel holds (taps..., inputs / groups, filters), so it is used in full
        # at every output cell.
        output_shape = layer.compute_output_shape(input_shape)
        last = layer.data_format == "channels_last"
        cells = output_shape[1:-1] if last else output_shape[2:]
        return _cells(cells, layer) * math.prod(layer.kernel.shape)
    sublayers = layer._flatten_layers(include_self=False, recursive=False)
    return sum(_layer_multiply_adds(sublayer, input_shape) for sublayer in sublayers)


def _cells(sizes, layer):
    if None in sizes:
        raise ValueError(
            "Expected a model with fixed spatial sizes. "
            f"Received: layer {layer.name!r} with a map of size {tuple(sizes)}"
        )
    return math.prod(sizes)
