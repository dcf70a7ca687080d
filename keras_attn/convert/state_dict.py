"""Published weights as a dictionary of NumPy arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_attn.convert.checkpoint import CheckpointError
from keras_attn.convert.safetensors_file import LENGTH_BYTES, read_safetensors
from keras_attn.convert.torch_archive import read_torch_archive

ZIP_START = b"PK\x03\x04"
PICKLE_START = b"\x80"


def read_state_dict(path: str | Path, key: str | None = None) -> dict[str, np.ndarray]:
    """The weights in a checkpoint of PyTorch or in a `.safetensors` file.

    Neither torch nor pickle takes part, and nothing in the file is executed:
    a file that holds more than numbers, strings and containers of them is refused.

    Args:
        path: `.pth`, `.pt` or `.pth.tar` as `torch.save` has written since PyTorch
            1.6, or `.safetensors`. The content decides, not the name.
        key: Name of the entry that holds the weights, such as `"teacher"`, where the
            checkpoint holds other things too. `None`: the whole, or if that has no
            tensors only, the one entry that has.

    Returns:
        Dict from names to arrays. They are not writeable, and share memory where the
        tensors did; bfloat16 comes as float32.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, in another format, refers to anything
            but tensors, or leaves open which entry is meant. It is a `ValueError`.

    Example:

    >>> weights = read_state_dict("anchornet.pth")
    >>> weights["fc.weight"].shape
    (1000, 512)
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES + 1)
    try:
        if start.startswith(ZIP_START):
            content = read_torch_archive(path)
        elif path.suffix == ".safetensors" or start[LENGTH_BYTES:] == b"{":
            content = read_safetensors(path)
        elif start.startswith(PICKLE_START):
            raise CheckpointError(
                "has the format before PyTorch 1.6, which is not read here. Save it "
                "again with PyTorch: torch.save(torch.load(path, weights_only=True), "
                "new_path)"
            )
        else:
            raise CheckpointError("is neither, or truncated")
        return _unwrapped(content, key)
    except CheckpointError as error:
        raise CheckpointError(
            "Expected a PyTorch checkpoint or a .safetensors file that holds tensors. "
            f"Received: {path}, which {error}"
        ) from error


def strip_prefix(
    state_dict: Mapping[str, Any], prefix: str = "module."
) -> dict[str, Any]:
    """The same weights, without a prefix where a name has it.

    `module.` stands before all names of a network that was trained in parallel.

    Raises:
        CheckpointError: If two names become one.

    Example:

    >>> strip_prefix({"module.fc.bias": 0})
    {'fc.bias': 0}
    """
    stripped = {name.removeprefix(prefix): value for name, value in state_dict.items()}
    if len(stripped) != len(state_dict):
        twice = sorted(
            name for name in stripped if {name, prefix + name} <= set(state_dict)
        )
        raise CheckpointError(
            f"Expected names that stay different without {prefix!r}. "
            f"Received: {twice[:3]} with and without it"
        )
    return stripped


def _unwrapped(content, key):
    """The tensors, out of whatever the checkpoint wraps around them."""
    entries = content if isinstance(content, dict) else {}
    inner = [name for name, value in entries.items() if _is_state_dict(value)]
    if key is not None:
        if key not in inner:
            raise CheckpointError(
                f"has no entry {key!r} with tensors only; entries that have: {inner}"
            )
        return entries[key]
    if _is_state_dict(content):
        return content
    if len(inner) == 1:
        return entries[inner[0]]
    if inner:
        raise CheckpointError(
            f"holds several sets of weights; choose one with key=: {inner}"
        )
    names = list(entries)[:5] if entries else type(content).__name__
    raise CheckpointError(f"holds no dictionary of tensors, but {names}")


def _is_state_dict(value):
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(
            isinstance(name, str) and isinstance(tensor, np.ndarray)
            for name, tensor in value.items()
        )
    )
