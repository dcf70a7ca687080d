"""Operations of a model of any image size at one size, layer by layer.

Independent of `keras_attn.graph.costs`: shapes are passed from layer to layer along the
graph of the model, which is not cloned, so that large networks are quick to count.
"""

import math

import keras
from keras import layers


def count(model, height, width):
    """Operations on one image, by kind.

    Returns:
        Dict: `multiply_adds` of convolution and dense layers, `normalized`, `rectified`
        and `averaged`, the values that batch normalisations and ReLU give and that
        global averages take.
    """
    (source,) = model.inputs
    shapes = {id(source): (1, height, width, source.shape[-1])}
    counts = dict.fromkeys(("multiply_adds", "normalized", "rectified", "averaged"), 0)
    for layer in model.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        taken = keras.tree.map_structure(lambda tensor: shapes[id(tensor)], layer.input)
        given = tuple(layer.compute_output_shape(taken))
        shapes[id(layer.output)] = given
        for kind, number in _operations(layer, taken, given).items():
            counts[kind] += number
    return counts


def _operations(layer, taken, given):
    if isinstance(layer, (layers.Conv2D, layers.Dense)):
        # Each weight is used once at every output cell.
        return {"multiply_adds": math.prod(given[1:-1]) * math.prod(layer.kernel.shape)}
    if isinstance(layer, layers.BatchNormalization):
        return {"normalized": math.prod(given)}
    if isinstance(layer, layers.ReLU) or layer.get_config().get("activation") == "relu":
        return {"rectified": math.prod(given)}
    if isinstance(layer, layers.GlobalAveragePooling2D):
        return {"averaged": math.prod(taken)}
    if type(layer).__name__ == "ContextPooling":
        # One score per cell, and one weighted sum a channel.
        return {"multiply_adds": math.prod(taken), "averaged": math.prod(taken)}
    return {}
