"""Costs of a model: trainable parameters and multiply-adds."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import keras
import numpy as np
from keras import layers

from keras_attn._checks import pair
from keras_attn.graph.keras_graph import layers_of

CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)


@runtime_checkable
class Countable(Protocol):
    """A layer that counts its own multiply-adds."""

    def multiply_adds(self, input_shape: tuple) -> int | None:
        """Multiply-adds of convolutions and matrix products for one example.

        Called once the layer is built.

        Args:
            input_shape: Shape of the layer's first input, with the batch.

        Returns:
            Number of multiply-adds; 0 for a layer without any, `None` where it is
            unknown.
        """


def trainable_params(model: keras.Model) -> int:
    """Number of trainable scalars (batch-norm scale and offset counted)."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def multiply_adds(model: keras.Model, input_shape: tuple | None = None) -> int:
    """Multiply-adds for one example, of convolution and dense layers only.

    Every application of a layer counts. A layer made of other layers counts them at
    the cells of its own input, unless it has a method `multiply_adds(input_shape)`, see
    `Countable`.

    Args:
        model: Functional or sequential model.
        input_shape: Shape of one example, such as `(95, 95, 3)`, for a model that
            takes several sizes; by default the model's own.

    Raises:
        ValueError: If a spatial size, or the cost of a layer, is unknown.

    Example:

    >>> inputs = keras.Input((None, None, 3))
    >>> model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    >>> multiply_adds(model, (8, 8, 3))
    3888
    """
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)
    at = None
    if input_shape is not None:
        (source,) = model.inputs
        size = keras.Input(tuple(input_shape), dtype=source.dtype)
        at = keras.tree.map_structure(lambda _: size, model.input)
    counts = []

    def count_and_call(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        # Slices and such stand in the graph too, and cost nothing.
        if isinstance(layer, keras.Layer):
            shapes = [tensor.shape for tensor in keras.tree.flatten(args)]
            counts.append(_layer_multiply_adds(layer, *shapes))
        return outputs

    # Counting on a clone leaves the model's own graph untouched.
    keras.models.clone_model(model, at, call_function=count_and_call)
    return sum(counts)


@dataclasses.dataclass(frozen=True)
class PatchCost:
    """Cost of classifying an image on its patches, in multiply-adds.

    AnchorNet paper, table 3, which leaves the localiser out.

    Args:
        localizer: Multiply-adds of the localiser, counted once per image.
        patch: Multiply-adds of the classifier on one patch, a tuple with one number
            per branch.

    Example:

    >>> cost = PatchCost(localizer=10, patch=(3, 5))
    >>> cost.mean(branch=[0, 1], patches=[4, 2])
    21.0
    >>> cost.mean(branch=[0, 1], patches=[4, 2], with_localizer=False)
    11.0
    """

    localizer: float
    patch: tuple

    def per_image(self, branch, patches, with_localizer=True):
        """Cost of each image, `(images,)`.

        Args:
            branch: Index of the branch of each image, `(images,)`.
            patches: Number of patches of each image, `(images,)`.
            with_localizer: Whether to count the localiser.
        """
        each = np.asarray(self.patch, "float64")[np.asarray(branch)]
        return each * np.asarray(patches) + with_localizer * float(self.localizer)

    def mean(self, branch, patches, with_localizer=True):
        """Mean of `per_image`."""
        return float(np.mean(self.per_image(branch, patches, with_localizer)))


def patch_cost(
    localizer: keras.Model,
    classifier: keras.Model,
    patch_sizes: Sequence[int | tuple[int, int]],
    image_shape: tuple[int, int, int],
) -> PatchCost:
    """`PatchCost` of classifying the patches that a localiser finds.

    Args:
        localizer, classifier: Functional models.
        patch_sizes: Patch size of every branch, `height` or `(height, width)`.
        image_shape: `(height, width, channels)` of the localiser's images.
    """
    channels = image_shape[-1]
    costs = []
    for size in patch_sizes:
        size = pair("patch_sizes", size, 1)
        costs.append(multiply_adds(classifier, (*size, channels)))
    return PatchCost(multiply_adds(localizer, image_shape), tuple(costs))


def _layer_multiply_adds(layer, input_shape, *other_shapes):
    if isinstance(layer, Countable):
        return _known(layer.multiply_adds(input_shape), layer)
    if isinstance(layer, keras.Model):
        return multiply_adds(layer, None if other_shapes else input_shape[1:])
    if isinstance(layer, layers.Dense):
        return _cells(input_shape[1:-1], layer) * math.prod(layer.kernel.shape)
    if isinstance(layer, CONVOLUTIONS):
        # A kernel holds (taps..., inputs / groups, filters), so it is used in full
        # at every output cell.
        output_shape = layer.compute_output_shape(input_shape)
        last = layer.data_format == "channels_last"
        cells = output_shape[1:-1] if last else output_shape[2:]
        return _cells(cells, layer) * math.prod(layer.kernel.shape)
    sublayers = layers_of(layer, recursive=False)
    return sum(_layer_multiply_adds(sublayer, input_shape) for sublayer in sublayers)


def _known(count, layer):
    if count is None:
        raise ValueError(
            f"Expected layers of known cost. Received: layer {layer.name!r} "
            f"({type(layer).__name__}), whose multiply_adds() is None"
        )
    return count


def _cells(sizes, layer):
    if None in sizes:
        raise ValueError(
            "Expected a model with fixed spatial sizes. "
            f"Received: layer {layer.name!r} with a map of size {tuple(sizes)}"
        )
    return math.prod(sizes)
