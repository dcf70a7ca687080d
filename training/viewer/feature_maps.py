"""The layer whose features Grad-CAM looks at."""

import keras

# Of `keras_attn.models.warped_classifier`: behind it, maps do not lie over the image.
BEFORE_WARP = "features"


def last_feature_map(model):
    """Name of the last layer with a map that all of the logits goes through, or `None`.

    A map has `(batch, rows, columns, channels)` with more than one cell.
    """
    if "fields" in model.output and _has_map(model, BEFORE_WARP):
        return BEFORE_WARP
    for layer in reversed(model.layers):
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if _has_map(model, layer.name) and _decides(layer.output, model):
            return layer.name
    return None


def _has_map(model, name):
    layers = {layer.name: layer for layer in model.layers}
    if name not in layers:
        return False
    try:
        output = layers[name].output
    except (AttributeError, ValueError):
        # Called several times, so it has no single output.
        return False
    return (
        isinstance(output, keras.KerasTensor)
        and len(output.shape) == 4
        and any(size is None or size > 1 for size in output.shape[1:3])
    )


def _decides(features, model):
    """Whether the logits are a function of these features alone."""
    try:
        keras.Model(features, model.output["logits"])
    except ValueError:
        return False
    return True
