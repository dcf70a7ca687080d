"""Classifiers as localisers: which pixels speak for which class."""

import difflib
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_attn._checks import pair
from keras_attn.graph.head import effect, wrapped
from keras_attn.graph.keras_graph import graph_of, node_of
from keras_attn.graph.receptive_field import receptive_field
from keras_attn.layers.class_activation_map import ClassActivationMap
from keras_attn.layers.localize_patches import LocalizePatches

EVIDENCE = "evidence_"


def branches_of(
    model: keras.Model, image_size: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """Places in the image of the cells of a localiser's evidence maps.

    The geometry follows from the layers' configs, so that it needs no record and holds
    for a loaded model too. Only patches of another size than the receptive field
    are kept, in the attribute `patch_size` of the layer that gives the evidence (see
    `ClassActivationMap`); they are centred where the receptive fields are.

    Args:
        model: Functional model with outputs `evidence_θ`, such as `anchornet` and what
            `as_localizer` returns.
        image_size: `(height, width)`, for padded models that leave it open.

    Returns:
        A list of dicts in the order of increasing patch size: `name`, which is what
        follows `evidence_`, and `patch_size`, `stride` and `offset`, integers or pairs
        (rows, columns) where the two differ. Cell `(i, j)` stands for the rows
        `offset + stride * i` to `offset + stride * i + patch_size - 1` and such
        columns. Where convolutions are padded the offset is negative: patches at the
        border reach outside the image.

    Raises:
        ValueError: If the model has no such output, or a map has no windows.

    Example:

    >>> branches_of(anchornet((128, 160, 3), num_classes=10))[0]
    {'name': '63', 'patch_size': 63, 'stride': 8, 'offset': 0}
    """
    output = getattr(model, "output", None)
    outputs = output if isinstance(output, dict) else {}
    names = list(outputs)
    if not any(name.startswith(EVIDENCE) for name in names):
        raise ValueError(
            f"Expected a functional model with outputs named '{EVIDENCE}...', such as "
            f"`anchornet` or `as_localizer` return. Received: {model}, outputs {names}"
        )
    branches = []
    for name, tensor in outputs.items():
        if name.startswith(EVIDENCE):
            field = receptive_field(model, tensor, image_size)
            chosen = getattr(node_of(tensor).operation, "patch_size", None)
            field = field if chosen is None else field.centred(chosen)
            branches.append((name.removeprefix(EVIDENCE), field))
    branches.sort(key=lambda branch: branch[1].size[0] * branch[1].size[1])
    return [
        {
            "name": name,
            "patch_size": _one_or_both(field.size),
            "stride": _one_or_both(field.stride),
            "offset": _one_or_both(field.offset),
        }
        for name, field in branches
    ]


def as_localizer(
    classifier: keras.Model,
    layer: str | keras.Layer | None = None,
    patch_size: int | tuple[int, int] | None = None,
) -> keras.Model:
    """A localiser made of any classifier that averages a map and ends in `Dense`.

    The evidence is the classifier's class activation map, what every cell contributes
    to each logit (see `ClassActivationMap`). All layers and weights are the
    classifier's own: training one trains the other. Dropout in front of the `Dense`
    layer drops whole channels of the map, which is the same.

    Args:
        classifier: Functional or sequential model that ends in convolutional features,
            `GlobalAveragePooling2D`, optionally `Dropout`, `Dense` and optionally an
            activation, such as ResNet, MobileNetV2, DenseNet and EfficientNet of
            `keras.applications`. Any of these may be inside models that it uses as
            layers, and other inputs may go elsewhere. A dict of outputs must have
            `logits`.
        layer: Name of the layer that gives the features, or the layer; by default what
            the classifier averages. An earlier layer, with as many channels, sees
            smaller windows; the layers behind it are left out, so that the result is
            another classifier, to be trained.
        patch_size: Side of the patches, an integer or `(rows, columns)`, centred where
            the cells' receptive fields are; by default the receptive fields. Those of
            deep networks are larger than the image, although most of what a cell says
            comes from near their centre; then the patch size must be chosen.

    Returns:
        Functional model on the classifier's input with the outputs `logits`, without
        the classifier's activation, `logits_θ`, the same, and `evidence_θ`
        `(batch, rows, columns, classes)`, all float32; `θ` is the patch size, such as
        `96`, or `96x64`. Summed over the cells, plus the bias of the `Dense` layer, the
        evidence gives the logits.

    Raises:
        ValueError: If the classifier does not end as above (VGG flattens its map) or
            its map comes from several inputs or is channels-first, the layer does not
            exist or has other channels, or the patches are larger than the image.

    Example:

    >>> classifier = keras.applications.MobileNetV2((128, 160, 3), weights=None)
    >>> localizer = as_localizer(classifier, patch_size=64)
    >>> sorted(localizer.output)
    ['evidence_64', 'logits', 'logits_64']
    >>> branches_of(localizer)
    [{'name': '64', 'patch_size': 64, 'stride': 32, 'offset': -1}]
    """
    if not isinstance(classifier, keras.Model) or not getattr(
        classifier, "inputs", None
    ):
        raise ValueError(
            f"Expected a built functional or sequential model. Received: {classifier}"
        )
    features, dropouts, dense = _head(classifier)
    if layer is not None:
        features = _features(classifier, layer, channels=features.shape[-1])
    source = _image(classifier, features)
    field = receptive_field(keras.Model(source, features), features)
    size = field.size if patch_size is None else pair("patch_size", patch_size, 1)
    _check_size(source, size, chosen=patch_size is not None)
    for dropout in dropouts:
        features = layers.SpatialDropout2D(dropout.rate, name=dropout.name)(features)
    name = "x".join(map(str, dict.fromkeys(size)))
    outputs = ClassActivationMap(
        dense, patch_size=patch_size, dtype="float32", name=f"{EVIDENCE}{name}"
    )(features)
    return keras.Model(
        source,
        {
            "logits": outputs["logits"],
            f"logits_{name}": outputs["logits"],
            f"{EVIDENCE}{name}": outputs["evidence"],
        },
        name=classifier.name,
    )


def _head(classifier):
    """The map that is averaged, the dropout layers, and the last dense layer.

    Models inside the classifier are entered; the map is then that of a model up to it,
    with the same layers.
    """
    sequential = isinstance(classifier, keras.Sequential)
    output = classifier.outputs[0] if sequential else classifier.output
    tensor = output.get("logits") if isinstance(output, dict) else output
    if not isinstance(tensor, keras.KerasTensor):
        raise ValueError(
            "Expected a classifier with one output, or one named 'logits'. "
            f"Received: {classifier.name!r} with outputs {output}"
        )
    dense, dropouts, around = None, [], []
    while True:
        tensor = _left(tensor, around)
        node = node_of(tensor)
        operation, inner = node.operation, graph_of(node.operation)
        if inner is not None:
            around.append((inner, node))
            tensor = inner.outputs[_position(tensor, node.output_tensors)]
            continue
        if dense is not None and _averages(operation):
            return _outside(node.input_tensors[0], around), dropouts, dense
        if dense is None and isinstance(wrapped(operation), layers.Dense):
            dense = operation
        elif dense is not None and isinstance(operation, layers.Dropout):
            dropouts.insert(0, operation)
        elif not _may_stand(node, dense is None):
            raise ValueError(
                "Expected a classifier that ends in GlobalAveragePooling2D "
                "(channels_last), optionally Dropout, and one Dense layer, so that its "
                f"logits are a sum over cells. Received: {classifier.name!r}, with "
                f"layer {operation.name!r} ({type(operation).__name__}) in that place"
            )
        (tensor,) = node.input_tensors


def _position(tensor, tensors):
    return [each is tensor for each in tensors].index(True)


def _left(tensor, around):
    """A tensor, or where it is the input of the models around it, what they got."""
    while around and any(tensor is each for each in around[-1][0].inputs):
        inner, node = around.pop()
        tensor = node.input_tensors[_position(tensor, inner.inputs)]
    return tensor


def _outside(tensor, around):
    """A tensor of a model inside the classifier as one of the classifier's own."""
    tensor = _left(tensor, around)
    for inner, node in reversed(around):
        name = node.operation.name
        part = keras.Model(inner.input, tensor, name=name)
        tensor = part(*node.arguments.args, **node.arguments.kwargs)
    return tensor


def _may_stand(node, is_end):
    """`True` for an activation at the end, and for layers that change no number."""
    operation = node.operation
    if len(node.input_tensors) != 1 or getattr(operation, "weights", None):
        return False
    (tensor,) = node.input_tensors
    if sum(size != 1 for size in tensor.shape[1:]) > 1:
        return False  # several cells
    does = effect(operation, tensor)
    return does is not None if is_end else does == "identity"


def _averages(operation):
    return (
        isinstance(operation, layers.GlobalAveragePooling2D)
        and operation.data_format == "channels_last"
    )


def _image(classifier, features):
    """The one input that some features come from."""
    sources = keras.utils.get_source_inputs(features)
    if len(sources) != 1:
        names = [each.name for each in sources]
        raise ValueError(
            "Expected a classifier whose map is of one image. "
            f"Received: {classifier.name!r}, whose map is of the inputs {names}"
        )
    return sources[0]


def _features(classifier, layer, channels):
    """The output of a layer of the classifier that is named by the caller."""
    names = {one.name: one for one in classifier.layers}
    name = layer if isinstance(layer, str) else layer.name
    if name not in names:
        nearest = ", ".join(difflib.get_close_matches(name, names, 3))
        raise ValueError(
            f"Expected `layer` to be a layer of {classifier.name!r} itself. "
            f"Received: layer={name!r}. Nearest: {nearest or list(names)[-3:]}"
        )
    features = names[name].output
    shape = tuple(getattr(features, "shape", ()))
    if len(shape) != 4 or shape[-1] != channels:
        raise ValueError(
            f"Expected `layer` to give maps of {channels} channels, as the Dense layer "
            f"takes. Received: layer={name!r} with output {features}"
        )
    return features


def _check_size(source, size, chosen):
    image = tuple(source.shape[1:3])
    if any(
        known is not None and known < side
        for known, side in zip(image, size, strict=True)
    ):
        what = "`patch_size`" if chosen else "a receptive field"
        advice = "a smaller one" if chosen else "`patch_size`, the size of the patches,"
        raise ValueError(
            f"Expected {what} no larger than the image, {image[0]} x {image[1]}. "
            f"Received: {size[0]} x {size[1]}. Give {advice} or enlarge the images"
        )


def _one_or_both(numbers):
    rows, columns = numbers
    return rows if rows == columns else (rows, columns)


def with_patches(
    localizer: keras.Model,
    max_patches: int | Sequence[int],
    iou_threshold: float | Sequence[float] = 0.3,
    coverage: float | Sequence[float] = 1.0,
    name: str | None = None,
    compat: bool = False,
) -> keras.Model:
    """A localiser with the patches that hold the most evidence for its class.

    AnchorNet paper, section 3.3: the branch decides as in equations (6) to (8), then
    algorithm 1 chooses patches on its map of the class, see `LocalizePatches`. One
    model from image to class, boxes and evidence, which can be exported as it is.

    Args:
        localizer: Functional model with outputs `logits`, `logits_θ` and `evidence_θ`,
            such as `anchornet` and what `as_localizer` returns. Its layers and weights
            are shared.
        max_patches: Most patches of an image, one integer or one for each branch.
        iou_threshold: Patches overlap by less than this, one number or one for each
            branch.
        coverage: Share of the cells that patches are chosen among, one or one for each
            branch.
        name: Name of the model; by default the localiser's.
        compat: See `LocalizePatches`.

    Returns:
        Functional model with the localiser's outputs and

        - `boxes` `(batch, K, 4)`, int32 `(y0, x0, y1, x1)`, half-open pixels of the
          image, -1 where absent; `K` is the largest of `max_patches`,
        - `scores` `(batch, K)`, float32, the evidence of each patch,
        - `valid` `(batch, K)`, whether there is such a patch,
        - `branch` `(batch,)`, int32, the place of the branch in `branches_of`.

    Raises:
        ValueError: If the model has no evidence, or an argument is out of its range.

    Example:

    >>> model = with_patches(anchornet((128, 160, 3), num_classes=10), (5, 3, 2))
    >>> model.output["boxes"].shape
    (None, 5, 4)
    """
    branches = branches_of(localizer)
    names = [
        f"{kind}_{branch['name']}"
        for branch in branches
        for kind in ("logits", "evidence")
    ]
    layer = LocalizePatches(
        branches, max_patches, iou_threshold, coverage, compat, name="patches"
    )
    chosen = layer({name: localizer.output[name] for name in names})
    kept = {key: chosen[key] for key in ("boxes", "scores", "valid", "branch")}
    return keras.Model(
        localizer.input, {**localizer.output, **kept}, name=name or localizer.name
    )
