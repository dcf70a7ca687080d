"""What single layers do to the windows of their cells.

A layer of one's own says so with a method `window_steps()`, called once the layer is
built. It returns the list of the `WindowStep`s that lead from its input to its output,
as if they were layers one after the other:

- `[]`: every output cell reads the input cell at its own place,
- `[WindowStep(kernel=5, stride=2)]`: a 5 x 5 window without padding, stride 2,
- `None` in the list, or instead of it: a global gate, such as squeeze-excitation or a
  softmax over space, which scales cells by something that depends on the whole map.
  Strictly every cell then sees the whole image; the gate is left out and the layer
  named in `ReceptiveField.ignored`.

With several inputs the steps hold for each of them; inputs without cells, such as
pooled features, are gates. All outputs that are maps have the same windows; an output
of another rank, such as logits, or of one cell made of many has none. Several paths
inside the layer are described by the one with the largest window.

    class Blur(keras.layers.Layer):
        def window_steps(self):
            return [WindowStep(kernel=3, padding="same")]

Something that cannot be changed, such as a layer of another package, can be told on
the instance: `layer.window_steps = lambda: []`.
"""

import dataclasses

import keras
from keras import layers

from keras_attn._checks import pair
from keras_attn.graph.keras_graph import is_of_applications


@dataclasses.dataclass(frozen=True)
class WindowStep:
    """What one convolution or pooling does to windows.

    Args:
        kernel, stride, dilation: Integers, or pairs (rows, columns).
        padding: `"valid"`, `"same"` (at strides above 1 it depends on the size of the
            map, see `receptive_field`), or `((before, after), (before, after))` for
            rows and columns; negative numbers crop.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> WindowStep(kernel=(3, 5), padding=((1, 1), (2, 2)))
    WindowStep(kernel=(3, 5), stride=(1, 1), dilation=(1, 1), padding=((1, 1), (2, 2)))
    """

    kernel: int | tuple = 1
    stride: int | tuple = 1
    dilation: int | tuple = 1
    padding: str | tuple = "valid"

    def __post_init__(self):
        for name in ("kernel", "stride", "dilation"):
            both = pair(name, getattr(self, name), minimum=1)
            object.__setattr__(self, name, both)
        if isinstance(self.padding, (tuple, list)):
            padding = tuple(tuple(sides) for sides in self.padding)
            object.__setattr__(self, "padding", padding)
        elif self.padding not in ("valid", "same"):
            raise ValueError(
                "Expected `padding` to be 'valid', 'same' or two pairs of integers. "
                f"Received: padding={self.padding!r}"
            )


class UnknownWindowsError(Exception):
    """Why the windows behind a layer cannot be told."""


def steps_of(operation):
    """The steps of a layer or operation, `None` standing for a global gate.

    Raises:
        UnknownWindowsError: If nothing is known about it.
    """
    if hasattr(operation, "window_steps"):
        steps = operation.window_steps()
        return [None] if steps is None else list(steps)
    for classes, rule in RULES:
        if isinstance(operation, classes):
            return rule(operation)
    # Operations that are no layers, such as `x + y`, have no public classes.
    name = type(operation).__name__
    if not isinstance(operation, keras.layers.Layer):
        if name in POINTWISE_OPERATIONS:
            return []
        if name in AXIS_OPERATIONS:
            return _over_channels_or_gate(operation)
    if name in APPLIED and is_of_applications(operation):
        return []
    raise UnknownWindowsError(
        "has windows that nobody told. Give its class a method `window_steps()` that "
        "returns a list of `WindowStep` (`[]`: cell by cell, `None`: a global gate)"
    )


def pools_everything(operation):
    """Whether the outputs have no cells of their own left."""
    if isinstance(operation, (*GLOBAL_POOLINGS, layers.Flatten)):
        return True
    if isinstance(operation, ADAPTIVE_POOLINGS):
        return tuple(operation.output_size) == (1, 1)
    if isinstance(operation, layers.Layer):
        return False
    axis = getattr(operation, "axis", None)
    spatial = {1, 2} if _channel_axis() == 3 else {2, 3}
    reduces = type(operation).__name__ in REDUCTIONS
    return reduces and isinstance(axis, (tuple, list)) and _axes(axis) >= spatial


def adds_up(operation):
    """Whether an input without cells would be no gate but a term of its own."""
    adding = (*MERGES, layers.Concatenate)
    if isinstance(operation, adding) and not isinstance(operation, layers.Multiply):
        return True
    plain = not isinstance(operation, layers.Layer)
    return plain and type(operation).__name__ in ADDING_OPERATIONS


# ---- rules -----------------------------------------------------------------------


def _pointwise(layer):
    return []


def _gate(layer):
    return [None]


def _convolution(layer):
    return [
        WindowStep(layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    ]


def _pooling(layer):
    return [WindowStep(layer.pool_size, layer.strides, padding=layer.padding)]


def _zero_padding(layer):
    return [WindowStep(padding=layer.padding)]


def _cropping(layer):
    return [WindowStep(padding=[[-cut for cut in sides] for sides in layer.cropping])]


def _dense(layer):
    if _channel_axis() != 3:
        raise UnknownWindowsError("mixes columns, not channels, of channels_first maps")
    return []


def _concatenation(operation):
    if _axes(operation.axis) != {_channel_axis()}:
        raise UnknownWindowsError(
            f"concatenates along axis {operation.axis}, not along channels"
        )
    return []


def _over_channels_or_gate(operation):
    """Normalisations by cell are no concern; those over cells are gates."""
    axis = getattr(operation, "axis", -1)
    return [] if _axes(axis) == {_channel_axis()} else [None]


def _axes(axis):
    axis = axis if isinstance(axis, (tuple, list)) else (axis,)
    return {one % 4 for one in axis}


def _channel_axis():
    return 3 if keras.config.image_data_format() == "channels_last" else 1


def _wrapped(layer):
    return steps_of(layer.layer)


GLOBAL_POOLINGS = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
# Part of Keras from 3.13 on.
ADAPTIVE_POOLINGS = tuple(
    getattr(layers, name)
    for name in ("AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D")
    if hasattr(layers, name)
)
MERGES = (
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
)
RULES = (
    (
        (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D),
        _convolution,
    ),
    ((layers.MaxPooling2D, layers.AveragePooling2D), _pooling),
    (layers.ZeroPadding2D, _zero_padding),
    (layers.Cropping2D, _cropping),
    (layers.Concatenate, _concatenation),
    (layers.Dense, _dense),
    (layers.GroupNormalization, _gate),
    (
        (
            layers.LayerNormalization,
            layers.RMSNormalization,
            layers.Softmax,
            layers.UnitNormalization,
        ),
        _over_channels_or_gate,
    ),
    (layers.SpectralNormalization, _wrapped),
    (
        (
            *MERGES,
            layers.Activation,
            layers.ActivityRegularization,
            layers.AlphaDropout,
            layers.BatchNormalization,
            layers.Dropout,
            layers.ELU,
            layers.GaussianDropout,
            layers.GaussianNoise,
            layers.Identity,
            layers.InputLayer,
            layers.LeakyReLU,
            layers.Normalization,
            layers.PReLU,
            layers.ReLU,
            layers.Rescaling,
            layers.SpatialDropout2D,
            # At inference these leave the images alone.
            layers.RandomBrightness,
            layers.RandomContrast,
            layers.RandomFlip,
            layers.RandomRotation,
            layers.RandomTranslation,
            layers.RandomZoom,
        ),
        _pointwise,
    ),
)
REDUCTIONS = {"Max", "Mean", "Min", "Sum"}
AXIS_OPERATIONS = {"LogSoftmax", "Softmax", *REDUCTIONS}
ADDING_OPERATIONS = {"Add", "Maximum", "Minimum", "Subtract"}
POINTWISE_OPERATIONS = ADDING_OPERATIONS | {
    *("Absolute", "Cast", "Clip", "Divide", "Elu", "Exp", "Gelu", "HardSigmoid"),
    *("HardSilu", "Identity", "LeakyRelu", "Log", "Multiply", "Negative", "Relu"),
    *("Relu6", "Sigmoid", "Silu", "Softplus", "Sqrt", "Square", "Tanh", "TrueDivide"),
}
# Layers that keras.applications keeps to itself (ConvNeXt).
APPLIED = {"LayerScale", "StochasticDepth"}
