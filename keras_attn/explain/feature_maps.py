"""Maps of the features of a layer, for all methods that weight them by slopes."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from keras_attn.explain.gradients import gradient_in_float32, no_gradients
from keras_attn.explain.maps import checked_format, finished, image_size
from keras_attn.explain.split import split, splits_of_branches
from keras_attn.explain.targets import Target, objectives
from keras_attn.ops.patches import branch_decision

DataFormat = Literal["channels_last", "channels_first"]


@dataclasses.dataclass(frozen=True)
class Asked:
    """Arguments of all methods on features, see `grad_cam`."""

    model: keras.Model
    images: Any
    layer: Any = None
    labels: Any = None
    raw: bool = False
    output: str | int | None = None
    image_input: str | int | None = None
    data_format: DataFormat | None = None
    target: Target | None = None
    against: str | int | list[int] | None = None

    def where(self) -> tuple[Any, Any, Any]:
        return self.output, self.image_input, checked_format(self.data_format)

    def split(self):
        """The `Split` and the `Objectives`."""
        with no_gradients():
            any_rank = self.target is not None
            given = self.model, self.images, self.layer, *self.where()
            parts = split(*given, any_rank=any_rank)
        return parts, self.objectives(parts.logits)

    def objectives(self, logits, decided=None):
        labels = self.labels
        if labels is None and self.target is None:
            labels = decided
        return objectives(logits, labels, self.target, self.against)

    def finish(self, maps, objective, images):
        """Maps `(batch, rows, columns, maps)` as they were asked for."""
        size = image_size(images, checked_format(self.data_format))
        return objective.finish(finished(maps, size, self.raw, objective.labels))


def feature_maps(combine: Callable, asked: Asked):
    """Maps of a layer by slopes and features, see `grad_cam`.

    Args:
        combine: Function from the slope of the score and the features, both `(batch,
            rows, columns, channels)` in float32, to maps `(batch, rows, columns)`.
        asked: `Asked`.
    """
    branches = None
    if asked.layer is None:
        with no_gradients():
            branches = splits_of_branches(asked.model, asked.images, *asked.where())
    if branches is not None:
        return _deciding(combine, branches, asked)
    parts, objective = asked.split()
    maps = _maps(combine, parts, objective)
    return asked.finish(maps, objective, parts.images)


def _deciding(combine, branches, asked):
    """Every image's map of the branch that decides on it."""
    logits = ops.stack([parts.logits for parts in branches], axis=1)
    decided, branch = map(ops.convert_to_numpy, branch_decision(logits))
    objective = asked.objectives(logits[:, 0], decided)
    size = image_size(branches[0].images, checked_format(asked.data_format))
    chosen = sorted(set(branch.tolist()))
    if asked.raw and len(chosen) > 1:
        raise ValueError(
            "Expected `layer`, or the `output` of one branch, for raw maps of images "
            f"that different branches decide on. Received: branches {branch.tolist()}"
        )
    result = None
    for index in chosen:
        maps = _maps(combine, branches[index], objective)
        if not asked.raw:
            maps = ops.image.resize(maps, size, "bilinear", data_format="channels_last")
        mine = ops.convert_to_tensor(branch == index)[:, None, None, None]
        result = maps if result is None else ops.where(mine, maps, result)
    return asked.finish(result, objective, branches[0].images)


def check_exact(parts):
    """Raises an error where the gradients of a `Split` are rounded."""
    if parts.float8:
        raise ValueError(
            "Expected a model with exact gradients behind the layer; in float8 they "
            "are rounded to two bits, and Keras has them in training only. Received: "
            f"layers in float8, {', '.join(parts.float8)}; "
            "`keras_attn.explain.occlusion` needs no gradients"
        )


def _maps(combine, parts, objective):
    """`(batch, rows, columns, maps)` in float32."""
    check_exact(parts)
    features = ops.stop_gradient(ops.cast(parts.features, "float32"))
    features = parts.to_map(features)
    maps = [
        combine(parts.to_map(slope_of(parts, function)), features)
        for function in objective.functions
    ]
    return ops.stack(maps, axis=-1)


def slope_of(parts, function, features=None):
    """Slope of one number per image at the features, of their shape, in float32.

    Args:
        parts: `Split`.
        function: From scores to `(batch,)`.
        features: `None`: those of the `Split`.
    """

    def score(features):
        # Images do not see each other, so that the sum gives each its own gradient.
        return ops.sum(function(ops.cast(parts.logits_of(features), "float32")))

    features = parts.features if features is None else features
    return gradient_in_float32(score, features, parts.is_half)
