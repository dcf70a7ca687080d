"""The published projection heads of DINO, which only whole trainings hold."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_attn.convert.assign import (
    LINEAR,
    VECTOR,
    Target,
    batch_normalization_targets,
    check_weights,
)
from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.state_dict import read_state_dict, strip_prefix
from keras_attn.layers.dino_head import DinoHead

HEAD = "head."
NETWORK = "a projection head of DINO"
DIRECTIONS, GAIN = "last_layer.weight_v", "last_layer.weight_g"


def load_dino_head(path: str | Path, key: str | None = None, **options) -> DinoHead:
    """The projection head of a training with DINO.

    Widths, the number of layers and batch normalisation are the checkpoint's.

    Args:
        path: `.pth` or `.safetensors`, see `read_state_dict`: a whole training of the
            authors' code, or the tensors of a head.
        key: See `read_state_dict`; for a whole training `"student"` or `"teacher"`.
        **options: Arguments of `DinoHead`, such as `learn_gain`.

    Returns:
        `DinoHead`, built for embeddings of the checkpoint's width.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file cannot be read or its tensors do not fit. It is
            a `ValueError`.

    Example:

    >>> path = "dino_deitsmall16_pretrain_full_checkpoint.pth"
    >>> model, head = load_vit(path, "teacher"), load_dino_head(path, "teacher")
    >>> scores = head(model(images)["embedding"])
    """
    try:
        state_dict = _head(read_state_dict(path, key))
        return convert_dino_head(state_dict, _built(state_dict, options))
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{error}. In: {path}") from error


def convert_dino_head(state_dict: Mapping[str, np.ndarray], head: DinoHead) -> DinoHead:
    """Gives a projection head published weights.

    Args:
        state_dict: Dict from names to arrays, by the names of the authors
            (`mlp.0.weight`, `last_layer.weight_v`), behind `head.` in a whole training,
            whose other tensors are left out.
        head: `DinoHead` of the same size, built.

    Returns:
        `head`, which is changed only if everything fits.

    Raises:
        CheckpointError: If tensors are missing, left over or of another shape; it
            lists them all.
    """
    state_dict = _head(state_dict)
    targets = _targets(head)
    shapes = {name: target.tensor_shape for name, target in targets.items()}
    counters = [name for name in state_dict if name.endswith(".num_batches_tracked")]
    check_weights(state_dict, shapes, counters, NETWORK)
    for name, target in targets.items():
        target.assign(state_dict[name])
    return head


def _head(state_dict):
    """The tensors of the head alone, without what stands before their names."""
    state_dict = strip_prefix(state_dict)
    if any(name.startswith(HEAD) for name in state_dict):
        state_dict = {
            name: tensor for name, tensor in state_dict.items() if name.startswith(HEAD)
        }
    return strip_prefix(state_dict, HEAD)


def _built(state_dict, options):
    """An untrained head of the checkpoint's size."""
    dense = sorted(
        (
            name
            for name, value in state_dict.items()
            if value.ndim == 2 and "mlp" in name
        ),
        key=lambda name: [int(part) for part in name.split(".") if part.isdecimal()],
    )
    directions = state_dict.get(DIRECTIONS, np.zeros(0))
    if not dense or directions.ndim != 2:
        raise CheckpointError(
            f"Expected the weights of {NETWORK}, with mlp.0.weight and {DIRECTIONS}. "
            f"Received: {len(state_dict)} tensors, such as {sorted(state_dict)[:3]}"
        )
    first, last = state_dict[dense[0]], state_dict[dense[-1]]
    arguments = {
        "units": directions.shape[0],
        "bottleneck_units": last.shape[0],
        "hidden_layers": len(dense) - 1,
        "batch_normalization": "mlp.1.running_mean" in state_dict,
    }
    if len(dense) > 1:
        arguments["hidden_units"] = first.shape[0]
    head = DinoHead(**{**arguments, **options})
    head.build((None, first.shape[1]))
    return head


def _targets(head):
    """Dict from the tensors' names to the variables that take them."""
    targets = {
        DIRECTIONS: Target(head.directions, LINEAR),
        GAIN: Target(head.gain, LINEAR),
    }
    # Linear, (normalisation,) GELU, linear, ...
    step = 3 if head.batch_normalization else 2
    for number, layer in enumerate(head.perceptron):
        name = f"mlp.{step * number}" if head.hidden_layers else "mlp"
        targets[f"{name}.weight"] = Target(layer.kernel, LINEAR)
        targets[f"{name}.bias"] = Target(layer.bias, VECTOR)
        if head.batch_normalization and number < head.hidden_layers:
            targets |= batch_normalization_targets(
                f"mlp.{step * number + 1}", head.normalizations[number]
            )
    return targets
