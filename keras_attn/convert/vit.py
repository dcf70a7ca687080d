"""The published weights of DINO's vision transformers, in three layouts."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from keras_attn._checks import pair
from keras_attn.convert.assign import CONVOLUTION, LINEAR, VECTOR, Target, check_weights
from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.state_dict import read_state_dict, strip_prefix
from keras_attn.models.vit import vit
from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD, ImageSpec

# The images that the authors evaluate on.
DINO_IMAGES = ImageSpec(
    height=224,
    width=224,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    interpolation="bicubic",
    crop_fraction=0.875,
)
NETWORK = "a vision transformer of DINO"
HEAD_WIDTH = 64
# In a checkpoint of the whole training: the network, and the projection behind it.
BACKBONE, PROJECTION = "backbone.", "head."


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names of the tensors in a library; queries, keys and values are one or three."""

    class_token: str
    positions: str
    patches: str
    block: str
    queries_keys_values: tuple
    others: dict
    normalization: str
    logits: str
    position_offset: float


AUTHORS = Layout(
    class_token="cls_token",
    positions="pos_embed",
    patches="patch_embed.proj",
    block="blocks.",
    queries_keys_values=("attn.qkv",),
    others={
        "attention_normalization": "norm1",
        "projection": "attn.proj",
        "mlp_normalization": "norm2",
        "expand": "mlp.fc1",
        "reduce": "mlp.fc2",
    },
    normalization="norm",
    logits="head",
    position_offset=0.1,
)
HUGGING_FACE = Layout(
    class_token="embeddings.cls_token",
    positions="embeddings.position_embeddings",
    patches="embeddings.patch_embeddings.projection",
    block="encoder.layer.",
    queries_keys_values=(
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
    ),
    others={
        "attention_normalization": "layernorm_before",
        "projection": "attention.output.dense",
        "mlp_normalization": "layernorm_after",
        "expand": "intermediate.dense",
        "reduce": "output.dense",
    },
    normalization="layernorm",
    logits="classifier",
    position_offset=0.0,
)


def load_vit(path: str | Path, key: str | None = None, **options) -> keras.Model:
    """A vision transformer with the weights of a published checkpoint.

    Width, number of blocks and patch size are the checkpoint's, and so are the image
    size that positions are learned for and the number of classes, if it has any. For
    images of other sizes the positions are interpolated as the code that goes with the
    names of the tensors does: DINO's own adds 0.1 to the sizes, Hugging Face's nothing.

    Args:
        path: `.pth` or `.safetensors`, see `read_state_dict`: the authors' backbone,
            their whole training, or what timm and Hugging Face keep of these models.
        key: See `read_state_dict`; of a whole training `"teacher"`.
        **options: Arguments of `vit`, such as `input_shape` or `input_tensor`; by
            default images have the size that the positions are learned for. Heads
            that are not 64 wide, as DINO's are, need `size=(width, blocks, heads)`,
            and what timm interpolates `position_offset=0`.

    Returns:
        The model. It takes normalised images; on raw pixels it stands behind
        `ImagePreprocessing(DINO_IMAGES)`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file cannot be read or its tensors do not fit. It is
            a `ValueError`.

    Example:

    >>> model = load_vit("dino_deitsmall8_pretrain.pth", input_shape=(480, 320, 3))
    >>> maps = attention_map_model(model, aggregate="mean")
    """
    try:
        state_dict = _backbone(read_state_dict(path, key))
        return convert_vit(state_dict, vit(**_arguments(state_dict, options)))
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{error}. In: {path}") from error


def convert_vit(
    state_dict: Mapping[str, np.ndarray], model: keras.Model
) -> keras.Model:
    """Gives a model of `vit` published weights.

    Every tensor is used, but the projection of DINO's training, whose names begin with
    `head.` where the network's begin with `backbone.`.

    Args:
        state_dict: Dict from names to arrays, in the layout of the authors and timm
            (`blocks.0.attn.qkv.weight`) or in that of Hugging Face
            (`encoder.layer.0.attention.attention.query.weight`).
        model: Model of `vit` of the same size, with `logits` if there are weights
            for them.

    Returns:
        `model`, which is changed only if everything fits.

    Raises:
        CheckpointError: If tensors are missing, left over or of another shape; it
            lists them all.

    Example:

    >>> state_dict = read_state_dict("dino_deitsmall8_pretrain.pth")
    >>> model = convert_vit(state_dict, vit("small", 8))
    """
    if not {"patches", "positions", "block_1"} <= {one.name for one in model.layers}:
        raise ValueError(f"Expected a model of vit(). Received: model {model.name!r}")
    state_dict = _backbone(state_dict)
    targets = _targets(model, _layout(state_dict))
    shapes = {}
    for names, target in targets:
        first, *rest = target.tensor_shape
        shapes |= {name: (first // len(names), *rest) for name in names}
    check_weights(state_dict, shapes, network=NETWORK)
    for names, target in targets:
        target.assign(np.concatenate([state_dict[name] for name in names]))
    return model


def _backbone(state_dict):
    """The tensors of the network alone, without what stands before their names."""
    state_dict = strip_prefix(strip_prefix(state_dict), "vit.")
    if not any(name.startswith(BACKBONE) for name in state_dict):
        return state_dict
    state_dict = {
        name: tensor
        for name, tensor in state_dict.items()
        if not name.startswith(PROJECTION)
    }
    return strip_prefix(state_dict, BACKBONE)


def _layout(state_dict):
    for layout in (AUTHORS, HUGGING_FACE):
        if layout.class_token in state_dict:
            return layout
    raise CheckpointError(
        f"Expected the weights of {NETWORK}, with {AUTHORS.class_token!r} or "
        f"{HUGGING_FACE.class_token!r}. Received: {len(state_dict)} tensors, such as "
        f"{sorted(state_dict)[:3]}"
    )


def _arguments(state_dict, options):
    """Arguments of `vit`: the caller's, and what follows from the tensors."""
    layout = _layout(state_dict)
    kernel = state_dict.get(f"{layout.patches}.weight", np.zeros(0))
    positions = state_dict.get(layout.positions, np.zeros(0))
    if kernel.ndim != 4 or positions.ndim != 3:
        raise CheckpointError(
            f"Expected the weights of {NETWORK}, with {layout.patches}.weight of 4 "
            f"axes and {layout.positions} of 3. Received: shapes {kernel.shape} and "
            f"{positions.shape}"
        )
    arguments = {
        "patch_size": kernel.shape[2:],
        "position_offset": layout.position_offset,
        **options,
    }
    if "size" not in options:
        arguments["size"] = _size(state_dict, layout, kernel.shape[0])
    if "position_size" not in options:
        side = math.isqrt(positions.shape[1] - 1)
        if side * side != positions.shape[1] - 1:
            raise CheckpointError(
                "Expected positions of a square of patches, or `position_size`. "
                f"Received: {layout.positions} of shape {positions.shape}"
            )
        arguments["position_size"] = tuple(side * patch for patch in kernel.shape[2:])
    image_size = pair("position_size", arguments["position_size"], 1)
    arguments.setdefault("input_shape", (*image_size, kernel.shape[1]))
    bias = state_dict.get(f"{layout.logits}.bias")
    arguments.setdefault("num_classes", None if bias is None else bias.size)
    return arguments


def _size(state_dict, layout, width):
    """Width, number of blocks and number of heads, by the width of DINO's heads."""
    if width % HEAD_WIDTH:
        raise CheckpointError(
            f"Expected heads {HEAD_WIDTH} wide, or `size`. Received: width {width}"
        )
    names = [name for name in state_dict if name.startswith(layout.block)]
    depth = len({name[len(layout.block) :].split(".")[0] for name in names})
    return width, max(1, depth), width // HEAD_WIDTH


def _targets(model, layout):
    """Pairs of the tensors' names and the variable that takes them, one on another."""
    position = model.get_layer("positions")
    targets = [
        ((layout.class_token,), Target(position.class_token, (0, 1, 2))),
        ((layout.positions,), Target(position.positions, (0, 1, 2))),
        *_layer_targets((layout.patches,), model.get_layer("patches"), CONVOLUTION),
    ]
    names = {layer.name for layer in model.layers}
    index = 0
    while f"block_{index + 1}" in names:
        block = model.get_layer(f"block_{index + 1}")
        prefix = f"{layout.block}{index}."
        parts = tuple(prefix + name for name in layout.queries_keys_values)
        targets += _layer_targets(parts, block.attention.queries_keys_values)
        for name, tensor_name in layout.others.items():
            owner = block.attention if name == "projection" else block
            targets += _layer_targets((prefix + tensor_name,), getattr(owner, name))
        index += 1
    norm = model.get_layer("normalization")
    targets += _layer_targets((layout.normalization,), norm)
    if "logits" in names:
        targets += _layer_targets((layout.logits,), model.get_layer("logits"))
    return targets


def _layer_targets(names, layer, axes=LINEAR):
    """Targets of weight and bias of a layer, a normalisation too."""
    normalizes = hasattr(layer, "gamma")
    weight = Target(layer.gamma, VECTOR) if normalizes else Target(layer.kernel, axes)
    bias = Target(layer.beta if normalizes else layer.bias, VECTOR)
    return [
        (tuple(f"{name}.weight" for name in names), weight),
        (tuple(f"{name}.bias" for name in names), bias),
    ]
