"""The volumetric transformer against a loop over its groups, an STN and ResNet-50."""

import keras
import numpy as np
from keras import ops

from benchmarks import measure
from benchmarks.soft_maximizers import gradient_step
from keras_attn.layers.spatial_transformer import SpatialTransformer
from keras_attn.layers.volumetric_transformer import EPSILON, VolumetricTransformer

BATCH, QUICK_BATCH = 8, 2
MAPS, IMAGES = (14, 14, 2048), (448, 448, 3)
XLA = {"tensorflow": ("off", "on"), "jax": ("on",), "torch": ("off",)}
CASE, BACKBONE = "volumetric_transformer", "ResNet-50, 448x448"


def run(quick):
    """Measurements of the layer, with and without XLA, and of its alternatives."""
    batch = QUICK_BATCH if quick else BATCH
    maps = (batch, *MAPS)
    check(maps)
    measurements = []
    for number, xla in enumerate(XLA[keras.backend.backend()]):
        compiled = xla == "on"
        cases = {
            CASE: gradient_step([Warped(VolumetricTransformer())], maps, compiled),
            "spatial_transformer": gradient_step(
                [Warped(SpatialTransformer())], maps, compiled
            ),
        }
        if number == 0:
            # XLA takes minutes to compile these on TensorFlow.
            cases["loop over groups"] = gradient_step(
                [LoopOverGroups()], maps, compiled
            )
            cases["loop over groups, own sampler"] = gradient_step(
                [LoopOverGroups(corner_by_corner)], maps, compiled
            )
        seconds = measure.interleaved(cases, 3 if quick else 11, warmup=2)
        measurements += measure.relative_times(seconds, CASE, xla)
        if number == 0:
            # By itself, since it is much slower.
            cases = {CASE: cases[CASE], BACKBONE: backbone_step(batch, compiled)}
            seconds = measure.interleaved(cases, 1 if quick else 5)
            measurements += measure.relative_times(seconds, CASE, xla)[1:]
    return measurements


def backbone_step(batch, compiled):
    backbone = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=IMAGES
    )
    return gradient_step([backbone], (batch, *IMAGES), compiled)


class Warped(keras.layers.Layer):
    """The warped features of a layer that returns its fields as well."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs, training=None):
        return self.layer(inputs, training=training)["features"]


class LoopOverGroups(VolumetricTransformer):
    """The same layer without vectorisation: every step for one group after another.

    Where the backend or Keras has an operation for a step, it is used. Only the mixing
    of the groups takes all of them at once, as a tensor product. Statistics of the
    batch are a group's own in training.

    Args:
        sample: Function that samples one group at the places its field points to.
    """

    def __init__(self, sample=None):
        super().__init__()
        self.sample = sample or ready_made

    def call(self, inputs, training=None):
        groups = ops.split(inputs, self.groups, axis=-1)
        responses, maps = zip(*map(_pooled, groups), strict=True)
        estimates = self._estimates(list(maps), training)
        warped = []
        for group, response, estimate in zip(groups, responses, estimates, strict=True):
            field = _field(response, estimate, self.window, self.temperature)
            warped.append(self.sample(group, field))
        return ops.concatenate(warped, axis=-1)

    def _estimates(self, maps, training):
        estimator = self.estimator
        sizes = []
        for level, (convolution, mixing) in enumerate(
            zip(estimator.convolutions, estimator.mixings, strict=True)
        ):
            for index, each in enumerate(maps):
                each = convolution.convolution(each)
                each = convolution.normalization(each, training=training)
                maps[index] = ops.relu(each)
            mixed = ops.tensordot(mixing.kernel, ops.stack(maps), [[0], [0]])
            maps = [mixed[index] for index in range(mixed.shape[0])]
            if level < len(self.estimator_filters):
                sizes.append(maps[0].shape[1:3])
                maps = [ops.max_pool(each, (2, 2), (2, 2), "same") for each in maps]
            else:
                size = sizes.pop()
                maps = [ops.image.resize(each, size) for each in maps]
        return [estimator.head(each) for each in maps]

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, self.compute_dtype)


def _pooled(group):
    largest, mean = ops.max(group, axis=-1), ops.mean(group, axis=-1)
    both = ops.stack([largest, mean], axis=-1)
    average, variance = ops.moments(both, axes=(1, 2, 3), keepdims=True)
    return largest + mean, (both - average) / ops.sqrt(variance + EPSILON)


def _field(response, estimate, window, temperature):
    """The expected displacement of one group, from patches of its responses."""
    height, width = response.shape[1:]
    candidates = ops.image.extract_patches(
        ops.expand_dims(response, -1), window, strides=1, padding="same"
    )
    known = ops.image.extract_patches(
        np.ones((1, height, width, 1), "float32"), window, strides=1, padding="same"
    )
    logits = ops.where(known > 0.5, (candidates + estimate) / temperature, -np.inf)
    probabilities = ops.softmax(logits, axis=-1)
    offsets = np.mgrid[:window, :window].reshape((2, -1)) - window // 2
    return ops.matmul(probabilities, offsets.T.astype("float32"))


def _places(field):
    height, width = field.shape[1:3]
    # With `+`, since on TensorFlow `ops.add` takes `(height, 1)` for a bias of the
    # columns (Keras 3.15).
    rows = ops.expand_dims(ops.arange(height, dtype="float32"), 1)
    columns = ops.arange(width, dtype="float32")
    y = ops.clip(field[..., 0] + rows, 0, height - 1)
    x = ops.clip(field[..., 1] + columns, 0, width - 1)
    return y, x


def corner_by_corner(group, field):
    """Bilinear sampling of one group from its four corners."""
    batch, height, width, channels = group.shape
    y, x = _places(field)
    top, left = ops.floor(y), ops.floor(x)
    flat = ops.reshape(group, (batch * height * width, channels))
    first = ops.reshape(ops.arange(batch, dtype="int32"), (-1, 1, 1)) * height * width
    result = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - ops.abs(y - row)) * (1 - ops.abs(x - column))
            i = ops.cast(ops.minimum(row, height - 1), "int32")
            j = ops.cast(ops.minimum(column, width - 1), "int32")
            corner = ops.take(flat, first + i * width + j, axis=0)
            result = result + ops.expand_dims(weight, -1) * corner
    return result


def ready_made(group, field):
    """Bilinear sampling of one group as the backend offers it."""
    if keras.backend.backend() == "torch":
        return _grid_sample(group, field)
    batch, height, width, channels = group.shape
    y, x = (ops.expand_dims(places, -1) for places in _places(field))
    images = np.arange(batch, dtype="float32")[:, None, None, None]
    numbers = np.arange(channels, dtype="float32")
    places = [ops.broadcast_to(axis, group.shape) for axis in (images, y, x, numbers)]
    return ops.image.map_coordinates(group, ops.stack(places), order=1)


def _grid_sample(group, field):
    import torch

    y, x = _places(field)
    height, width = group.shape[1:3]
    places = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    warped = torch.nn.functional.grid_sample(
        group.permute(0, 3, 1, 2), places, align_corners=True, padding_mode="border"
    )
    return warped.permute(0, 2, 3, 1)


def check(shape):
    """Raises RuntimeError if the ways to warp do not agree."""
    random = np.random.default_rng(0)
    features = random.normal(size=(1, *shape[1:])).astype("float32")
    layer = VolumetricTransformer()
    layer.build(features.shape)
    # A new one ignores its estimator.
    head = layer.estimator.head.kernel
    head.assign(random.normal(0, 10, head.shape))
    wanted = ops.convert_to_numpy(layer(features)["features"])
    for sample in (corner_by_corner, ready_made):
        loop = LoopOverGroups(sample)
        loop.build(features.shape)
        for weight, other in zip(loop.weights, layer.weights, strict=True):
            weight.assign(other)
        found = ops.convert_to_numpy(loop(features))
        if not np.allclose(found, wanted, atol=1e-3):
            raise RuntimeError(
                "Expected a loop over groups to warp as the layer does. Received: "
                f"differences up to {np.abs(found - wanted).max()}"
            )
