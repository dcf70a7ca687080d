"""Putting a block into somebody's own functional model."""

import difflib

import keras


def insert(model, at, block, name=None):
    """A copy of a functional model with `block` behind one of its layers.

    Everything that read the output of layer `at` reads the block's features instead.
    The copy has layers of its own with the model's weights and names, so inner
    feature maps stay within reach and the given model is left as it is.

    Args:
        model: Functional model, such as one of `keras.applications`.
        at: Name of the layer behind which the block goes. The block's features must
            have the shape that the following layers expect.
        block: Layer that returns features, or a dict with `features` and further
            named outputs, such as `ClassEmbedding`.
        name: Name of the new model; the model's own by default.

    Returns:
        Functional model. If the block has further outputs, or the model's output is a
        dict, a dict: the model's own output (`logits`, if it is a single tensor) and
        the block's further outputs under their names.

    Raises:
        ValueError: If the model has no layer of that name, or is not functional.

    Example:

    >>> backbone = keras.applications.ResNet50(
    ...     weights=None, classes=10, classifier_activation=None
    ... )
    >>> block = keras_attn.layers.ClassEmbedding(num_classes=10)
    >>> model = insert(backbone, "conv4_block6_out", block)
    >>> sorted(model.output)
    ['logits', 'patch_logits']
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(f"Expected a built functional model. Received: {model}")
    names = [layer.name for layer in model.layers]
    if at not in names:
        nearest = ", ".join(difflib.get_close_matches(str(at), names, 3))
        raise ValueError(
            f"Expected `at` to name a layer of {model.name!r}. Received: at={at!r}. "
            f"Nearest: {nearest or names[-3:]}"
        )
    maps = {}

    def call(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        if layer.name != at:
            return outputs
        block_outputs = block(outputs)
        if not isinstance(block_outputs, dict):
            return block_outputs
        maps.update(block_outputs)
        return maps.pop("features")

    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name
        ),
        model.input,
    )
    clone = keras.models.clone_model(model, inputs, call_function=call)
    for original in model.layers:
        if original.weights:
            clone.get_layer(original.name).set_weights(original.get_weights())
    outputs = clone.output
    if maps or isinstance(outputs, dict):
        outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
        outputs = {**outputs, **maps}
    return keras.Model(clone.input, outputs, name=name or model.name)
