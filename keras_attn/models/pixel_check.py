"""The values of pixels that a network was trained with, judged by photographs."""

import keras
import numpy as np
from keras import ops

from keras_attn.graph.flat import FlatGraph, run
from keras_attn.models.adopted import PIXELS, ModelPixels, adopt
from keras_attn.preprocessing import spec_of

# Without batch normalisation: the rise of the mean highest probability that counts.
# Larger pixels raise it in any network, so that only smaller ones are compared.
RISE = 0.3
# Features of photographs differ by less from the averages of a training, in logarithms
# of the variance and in standard deviations, than those of pixels on another scale.
MARGIN = 1.0


def likely_pixels(model: keras.Model, images) -> str | None:
    """A range of pixels that suits a model far better than its own.

    It is judged by the averages that the first batch normalisation kept, or in a
    network without any by the highest probabilities.

    Args:
        model: Model that `keras_attn.adopt` returned.
        images: `(batch, height, width, 3)`, a few photographs of the model's size.

    Returns:
        A key of `PIXELS`, or `None` where its own suit.
    """
    if not any(isinstance(layer, ModelPixels) for layer in model.layers):
        return None
    judge, margin, names = _mismatch, MARGIN, list(PIXELS)
    if _mismatch(model, images) is None:
        judge, margin, least = _doubt, RISE, max(spec_of(model).std)
        names = [name for name in PIXELS if min(PIXELS[name][1]) > least]
    found = {name: judge(adopt(model, pixels=name), images) for name in names}
    best = min(found, key=lambda name: found[name], default=None)
    is_better = best and found[best] + margin < judge(model, images)
    return best if is_better else None


def _doubt(model, images):
    """The mean share of all classes but the most probable."""
    outputs = model(np.asarray(images, "float32"), training=False)
    found = outputs.get("probabilities", ops.softmax(outputs["logits"]))
    return 1 - float(np.mean(ops.convert_to_numpy(ops.max(found, axis=-1))))


def _mismatch(model, images):
    """The distance of features from the averages kept in training, or `None`."""
    graph = FlatGraph(model)
    for step in graph.steps:
        layer = step.operation
        if isinstance(layer, keras.layers.BatchNormalization):
            break
    else:
        return None
    key = step.sources[0][1]
    values = graph.input_values(np.asarray(images, "float32"))
    found = run(graph.steps_to([key], graph.inputs), values, [key])[key]
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    axes = [axis for axis in range(found.ndim) if axis != layer.axis % found.ndim]
    mean, variance = found.mean(tuple(axes)), found.var(tuple(axes))
    kept_mean, kept = (
        ops.convert_to_numpy(ops.cast(each, "float32"))
        for each in (layer.moving_mean, layer.moving_variance)
    )
    known = (kept > 1e-6) & (variance > 1e-12)
    if not known.any():
        return None
    spread = np.abs(np.log(variance[known] / kept[known]))
    shift = np.abs(mean - kept_mean)[known] / np.sqrt(kept[known])
    return float(np.median(spread) + np.median(shift))
