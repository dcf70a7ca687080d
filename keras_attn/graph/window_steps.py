"""Changes of the windows of cells by single layers.

A layer of one's own describes them with a method `window_steps()`, see `Windowed`.

    class Blur(keras.layers.Layer):
        def window_steps(self):
            return [WindowStep(kernel=3, padding="same")]

A layer that cannot be changed, such as one of another package, takes the method on the
instance: `layer.window_steps = lambda: []`.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import keras
from keras import layers

from keras_attn._checks import pair
from keras_attn.graph.keras_graph import private_name


@dataclasses.dataclass(frozen=True)
class WindowStep:
    """Change of windows by one convolution or pooling.

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


@runtime_checkable
class Windowed(Protocol):
    """A layer that describes what its output cells see of its input.

    With several inputs the steps hold for each of them; inputs without cells, such as
    pooled features, are gates. All outputs that are maps have the same windows; an
    output of another rank, such as logits, or of one cell made of many has none.
    Several paths inside the layer are described by the one with the largest window.
    """

    def window_steps(self) -> list[WindowStep | None] | None:
        """The steps from input to output, as if they were layers one after the other.

        Called once the layer is built.

        Returns:
            - `[]`: every output cell reads the input cell at its own place,
            - `[WindowStep(kernel=5, stride=2)]`: a 5 x 5 window without padding,
              stride 2,
            - `None` in the list, or instead of it: a global gate, such as
              squeeze-excitation or a softmax over space, which scales cells by
              something that depends on the whole map. Strictly every cell then sees
              the whole image; the gate is left out and the layer named in
              `ReceptiveField.ignored`.
        """


class UnknownWindowsError(Exception):
    """Reason why the windows behind a layer are unknown."""


def steps_of(operation):
    """The steps of a layer or operation, `None` standing for a global gate.

    Raises:
        UnknownWindowsError: If nothing is known about it.
    """
    if isinstance(operation, Windowed):
        steps = operation.window_steps()
        return [None] if steps is None else list(steps)
    rule = next((rule for kinds, rule in RULES if isinstance(operation, kinds)), None)
    rule = rule or PRIVATE_RULES.get(private_name(operation))
    if rule is None:
        raise UnknownWindowsError(
            "has an unknown receptive field. Define `window_steps()` on its class: a "
            "list of `WindowStep` (`[]`: cell by cell, `None`: a global gate)"
        )
    return rule(operation)


def pools_everything(operation):
    """`True` if the outputs have no cells of their own left."""
    if isinstance(operation, (*GLOBAL_POOLINGS, layers.Flatten)):
        return True
    if isinstance(operation, ADAPTIVE_POOLINGS):
        return tuple(operation.output_size) == (1, 1)
    if private_name(operation) not in REDUCTIONS:
        return False
    spatial = {1, 2} if _channel_axis() == 3 else {2, 3}
    axis = operation.axis
    return isinstance(axis, (tuple, list)) and _axes(axis) >= spatial


def adds_up(operation):
    """`True` if an input without cells is a term of its own, not a gate."""
    adding = (*MERGES, layers.Concatenate)
    if isinstance(operation, adding):
        return not isinstance(operation, layers.Multiply)
    return private_name(operation) in ADDITIONS


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
    padding = tuple(tuple(-cut for cut in sides) for sides in layer.cropping)
    return [WindowStep(padding=padding)]


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
    """Nothing for normalisations by cell; a gate for those over cells."""
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


def _operations(names):
    return {f"ops.{name}" for name in names.split()}


# Classes that Keras does not export, by name; see `private_name`.
REDUCTIONS = _operations("Max Mean Min Sum")
ADDITIONS = _operations("Add Maximum Minimum Subtract")
# Of InceptionResNetV2: the first input and a multiple of the second.
ADDITIONS |= {"applications.CustomScaleLayer"}
POINTWISE = ADDITIONS | _operations(
    "Absolute Cast Clip Divide Elu Exp Gelu HardSigmoid HardSilu LeakyRelu Log"
    " Multiply Negative Relu Relu6 Sigmoid Silu Softplus Sqrt Square Tanh TrueDivide"
)
PRIVATE_RULES = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(
        REDUCTIONS | _operations("LogSoftmax Softmax"), _over_channels_or_gate
    ),
    # Of ConvNeXt.
    "applications.LayerScale": _pointwise,
    "applications.StochasticDepth": _pointwise,
}
