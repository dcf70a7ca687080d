import keras
from keras import ops

from keras_attn._checks import positive_integer, positive_number
from keras_attn.layers._blocks import register_block
from keras_attn.layers._configs import renamed
from keras_attn.layers._maps import MapLayer
from keras_attn.layers._warp_estimator import WarpEstimator
from keras_attn.ops.precision import float32_at_least, float_dtype
from keras_attn.ops.sampling import limit_to_map, warp
from keras_attn.ops.warp_candidates import expected_displacement

EPSILON = 1e-5
FORMER_NAMES = {"features": "estimator_filters", "channels": "squeezed_channels"}


def _for_map(shape):
    """The default groups and window, as far as the map has channels and cells."""
    *sizes, channels = shape[1:]
    return {
        "groups": max(each for each in range(1, 33) if channels % each == 0),
        "window": max(3, min((min(size or 11, 11) - 1) // 2 * 2 + 1 for size in sizes)),
    }


@register_block("volumetric_transformer", _for_map)
@keras.saving.register_keras_serializable(package="keras_attn")
class VolumetricTransformer(MapLayer):
    """Warps groups of channels, each to the usual places of the parts that it sees.

    Volumetric Transformer Networks, section 3.3, for a map `U` whose channels form `C`
    groups `c` of consecutive ones:

    1. `X_c`: the largest and the mean channel of the group, normalised to mean 0 and
       variance 1 over both and all cells (a group norm without scale and offset),
    2. `E_c`: an encoder and decoder whose convolutions all groups share, and whose
       squeeze and expansion matrices mix the groups; its last layer starts at zero,
    3. `P_c(i, j) = softmax over j of (U_c^max(j) + U_c^avg(j) + E_c(i, j)) / beta` for
       the candidates `j` in a window around the cell `i`, on maps not normalised,
    4. `G_c(i) = sum over j of P_c(i, j) (j - i)`, the field of the group,
    5. `V_k(i) = U_k(i + G_c(i))` for the channels `k` of the group, see
       `keras_attn.ops.warp` for the convention of fields and the sampling.

    A new layer does not leave the map as it is: it pulls every cell towards the
    strongest responses of the group in its window and, near the border, inwards, as
    there are no candidates outside the map.

    The paper leaves open the widths of the estimator, its resampling and the padding of
    the map; the defaults here have 790,761 trainable parameters.

    Args:
        groups: Number `C` of groups, a divisor of the number of channels; or `None`,
            an ablation of the paper: every channel is a group of its own, seen by the
            estimator as it is, not normalised. That takes much time and memory.
        window: Odd number of rows and columns of the window of candidates.
        temperature: Positive number `beta`.
        estimator_filters: Widths of the estimator's encoder, one per level; the decoder
            has the same in reverse order.
        squeezed_channels: Numbers of channels that the groups are squeezed to, one per
            level; `None`: half as many at each level. Only if `mix_channels`.
        mix_channels: `False`, an ablation: no squeeze and no expansion, the estimator
            sees every group by itself.
        probabilistic: `False`, an ablation: the estimator's last layer returns the
            field itself, which is cut off where it would lead out of the map. A new
            layer then leaves the map as it is; window and temperature play no part.
        kernel_regularizer: Regularizer of all kernels and mixing matrices.

    Call arguments:
        inputs: A feature map.
        training: Whether the estimator's batch normalisations use the statistics of the
            batch.

    Input shape: `(batch, height, width, channels)`, height and width at least as large
        as the window. They may be unknown, and vary, on TensorFlow.

    Output shape: a dict `{"features": (batch, height, width, channels), "fields":
        (batch, height, width, C, 2)}`: `V` in the layer's compute dtype, and `G`,
        `(dy, dx)` in cells, float32 at least, in which softmax and coordinates are
        computed.

    Convention: see `keras_attn.ops.warp`; a displacement leads from a cell of the
        output to the place that it reads.

    Raises:
        ValueError: For arguments other than these, channels that cannot be grouped, or
            a map smaller than the window.

    Example:

    >>> layer = VolumetricTransformer(groups=8, window=5, estimator_filters=(16, 32))
    >>> outputs = layer(keras.random.normal((2, 14, 12, 64)))
    >>> outputs["features"].shape, outputs["fields"].shape
    ((2, 14, 12, 64), (2, 14, 12, 8, 2))

    Reference: [kim2020], section 3.3.
    """

    def __init__(
        self,
        groups=32,
        window=11,
        temperature=10.0,
        estimator_filters=(32, 64, 128, 256),
        squeezed_channels=None,
        mix_channels=True,
        probabilistic=True,
        kernel_regularizer=None,
        **kwargs,
    ):
        groups = positive_integer("groups", groups, optional=True)
        if not isinstance(window, int) or window < 3 or window % 2 == 0:
            raise ValueError(
                "Expected `window` to be an odd integer of at least 3. "
                f"Received: window={window}"
            )
        positive_number("temperature", temperature)
        _check_widths(estimator_filters, squeezed_channels, mix_channels)
        super().__init__(**kwargs)
        self.groups = groups
        self.window = window
        self.temperature = temperature
        self.estimator_filters = tuple(estimator_filters)
        self.squeezed_channels = squeezed_channels and tuple(squeezed_channels)
        self.mix_channels = mix_channels
        self.probabilistic = probabilistic
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        _, height, width, channels = input_shape
        groups = self._groups_of(input_shape)
        self._check_window(height, width)
        self.estimator = WarpEstimator(
            outputs=self.window**2 if self.probabilistic else 2,
            filters=self.estimator_filters,
            channels=self._squeezed(groups),
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="estimator",
        )
        seen = 1 if self.groups is None else 2
        self.estimator.build((None, groups, height, width, seen))
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})

    def _groups_of(self, input_shape):
        channels = input_shape[-1]
        groups = channels if self.groups is None else self.groups
        if channels is None or channels % groups:
            raise ValueError(
                "Expected a known number of channels that `groups` divides. "
                f"Received: groups={groups} and a map of shape {tuple(input_shape)}"
            )
        return groups

    def _check_window(self, height, width):
        known = [size for size in (height, width) if size is not None]
        if self.probabilistic and min(known, default=self.window) < self.window:
            raise ValueError(
                "Expected a map at least as large as the window of candidates, or a "
                f"smaller window. Received: window={self.window} and a map of "
                f"{height} x {width} cells"
            )

    def _squeezed(self, groups):
        """Numbers of channels after each squeeze."""
        if not self.mix_channels:
            return None
        levels = range(len(self.estimator_filters))
        halves = [max(1, groups >> level + 1) for level in levels]
        return self.squeezed_channels or tuple(halves)

    def call(self, inputs, training=None):
        self._check_window(*inputs.shape[1:3])
        responses, seen = self._group_maps(inputs)
        estimate = self.estimator(ops.cast(seen, self.compute_dtype), training=training)
        groups, height, width = ops.shape(responses)[1:]
        if self.probabilistic:
            responses = ops.reshape(responses, (-1, height, width))
            estimate = expected_displacement(
                responses, estimate, self.window, self.temperature
            )
        fields = ops.reshape(estimate, (-1, groups, height, width, 2))
        fields = float32_at_least(ops.transpose(fields, (0, 2, 3, 1, 4)))
        if not self.probabilistic:
            fields = limit_to_map(fields)
        return {"features": warp(inputs, fields), "fields": fields}

    def _group_maps(self, inputs):
        """Pooled maps of each group: inputs of the candidates and of the estimator.

        Returns:
            `U_max + U_avg`, `(batch, groups, height, width)`, and `X`, `(batch, groups,
            height, width, features)`, float32 at least.
        """
        inputs = float32_at_least(inputs)
        if self.groups is None:
            maps = ops.transpose(inputs, (0, 3, 1, 2))
            return 2.0 * maps, ops.expand_dims(maps, -1)
        _, height, width, channels = ops.shape(inputs)
        depth = channels // self.groups
        grouped = ops.reshape(inputs, (-1, height, width, self.groups, depth))
        pooled = ops.stack([ops.max(grouped, -1), ops.mean(grouped, -1)], axis=-1)
        pooled = ops.transpose(pooled, (0, 3, 1, 2, 4))
        mean = ops.mean(pooled, axis=(2, 3, 4), keepdims=True)
        centred = pooled - mean
        variance = ops.mean(ops.square(centred), axis=(2, 3, 4), keepdims=True)
        return ops.sum(pooled, axis=-1), centred * ops.rsqrt(variance + EPSILON)

    @property
    def starts_as_identity(self):
        return not self.probabilistic

    def window_steps(self):
        """`None`: through the estimator a cell sees the whole map."""
        return None

    def multiply_adds(self, input_shape):
        """Multiply-adds of the estimator, the expectation and the sampling."""
        _, height, width, channels = input_shape
        groups = self._groups_of(input_shape)
        cells = height * width
        expectation = 2 * self.window**2 if self.probabilistic else 0
        return (
            self.estimator.multiply_adds((None, groups, height, width))
            + cells * groups * expectation
            + 4 * cells * channels
        )

    def compute_output_shape(self, input_shape):
        groups = self._groups_of(input_shape)
        return {
            "features": tuple(input_shape),
            "fields": (*input_shape[:-1], groups, 2),
        }

    def compute_output_spec(self, inputs, training=None):
        shapes = self.compute_output_shape(inputs.shape)
        return {
            "features": keras.KerasTensor(shapes["features"], self.compute_dtype),
            "fields": keras.KerasTensor(
                shapes["fields"], float_dtype(self.compute_dtype)
            ),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "window": self.window,
            "temperature": self.temperature,
            "estimator_filters": self.estimator_filters,
            "squeezed_channels": self.squeezed_channels,
            "mix_channels": self.mix_channels,
            "probabilistic": self.probabilistic,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**renamed(config, FORMER_NAMES))


def _check_widths(filters, channels, mix_channels):
    if not isinstance(filters, (tuple, list)) or not filters:
        raise ValueError(
            "Expected `estimator_filters` to be at least one width. "
            f"Received: estimator_filters={filters}"
        )
    for width in filters:
        positive_integer("estimator_filters", width)
    if channels is None:
        return
    if not mix_channels:
        raise ValueError(
            "Expected no `squeezed_channels` without `mix_channels`. "
            f"Received: squeezed_channels={channels}"
        )
    if not isinstance(channels, (tuple, list)) or len(channels) != len(filters):
        raise ValueError(
            "Expected as many `squeezed_channels` as `estimator_filters`. Received: "
            f"squeezed_channels={channels}, estimator_filters={filters}"
        )
    for number in channels:
        positive_integer("squeezed_channels", number)
