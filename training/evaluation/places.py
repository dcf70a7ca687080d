"""Places for blocks in a model, and the cost of every block there."""

import dataclasses

import keras

from keras_attn import block_cost, multiply_adds, places, trainable_params
from keras_attn._checks import one_of
from keras_attn.blocks.places import USUAL_SIZE
from keras_attn.graph.keras_graph import unweighted
from keras_attn.layers import get_block, list_blocks
from keras_attn.training.adoption import (
    ModelSource,
    applications,
    open_model,
    origin_of,
)
from keras_attn.training.runs.run import model_file


def find_places(source, blocks=None, checkpoint="best"):
    """Places of a model and costs of blocks there, without reading an image.

    A network by name is measured without its weights.

    Args:
        source: Folder of a run, or a model; or a `ModelSource`.
        blocks: Names of blocks, all by default.
        checkpoint: `best` or `last` model of a run.

    Returns:
        Dict with the `model`, its `image_size`, `parameters` and `multiply_adds`, and
        `places`: a dict for each with the fields of `keras_attn.Place` and `blocks`, a
        dict from names to `parameters` and `multiply_adds`, or to `None` for a block
        that cannot go there. Multiply-adds of the model are `None` where a layer's are
        unknown.

    Raises:
        ValueError: If the model has no graph, or there is no such block.
    """
    source = ModelSource.of(source)
    blocks = list_blocks() if blocks is None else list(blocks)
    for block in blocks:
        one_of("block", block, list_blocks())
    model, size = _model(source, checkpoint)
    (height, width), channels = size, model.inputs[0].shape[-1]
    counts = [
        x.shape[-1] for x in keras.tree.flatten(model.output) if len(x.shape) == 2
    ]
    try:
        total = multiply_adds(model, (height, width, channels))
    except ValueError:
        total = None
    return {
        "model": str(source.path),
        "image_size": list(size),
        "parameters": trainable_params(model),
        "multiply_adds": total,
        "places": [
            {
                **place._asdict(),
                "blocks": {each: _cost(each, place, counts) for each in blocks},
            }
            for place in places(model, size)
        ],
    }


def _model(source, checkpoint):
    """The model and the `(height, width)` of its images."""
    origin = origin_of(source.path)
    if origin == "application":
        builder = applications()[str(source.path).partition("=")[0].lower()]
        with unweighted():
            model, usual = builder(weights=None), None
    else:
        if origin == "file":
            path = model_file(source.path, checkpoint)
            source = dataclasses.replace(source, path=path)
        opened = open_model(source)
        model, usual = opened.model, opened.size
    if (
        len(getattr(model, "inputs", None) or ()) != 1
        or len(model.inputs[0].shape) != 4
        or model.inputs[0].shape[-1] not in (1, 3, None)
    ):
        raise ValueError(
            "Expected a functional or sequential model of one image "
            f"(height, width, 3), or 1 for grey ones. Received: {source.path}"
        )
    usual = source.size or usual or (USUAL_SIZE, USUAL_SIZE)
    known = model.inputs[0].shape[1:3]
    return model, tuple(a or b for a, b in zip(known, usual, strict=True))


def _cost(block, place, counts):
    try:
        get_block(block)
        arguments = {}
    except ValueError:
        arguments = {"num_classes": counts[0] if counts else None}
    try:
        return block_cost(block, place.size, place.channels, **arguments)._asdict()
    except ValueError:
        return None


def format_places(result):
    """The result of `find_places` as text: the places, then the costs of the blocks."""
    found = result["places"]
    height, width = result["image_size"]
    total = result["multiply_adds"]
    lines = [
        f"{result['model']}: {_short(result['parameters'])} parameters, "
        f"{'unknown' if total is None else _short(total)} multiply-adds at "
        f"{height} x {width}"
    ]
    if not found:
        return f"{lines[0]}\nIt has no stages of maps, so `--at auto` finds no place."
    rows = [("place", "map", "stride", "window")]
    for place in found:
        size = (*place["size"], place["channels"])
        rows.append(
            (place["layer"], *(_product(each) for each in (size, place["stride"])))
            + (_product(place["receptive_field"] or ("unknown",)),)
        )
    lines += [
        "",
        *_aligned(rows),
        "",
        "Parameters, multiply-adds of a block there:",
        "",
    ]
    rows = [("block", *(place["layer"].rpartition("/")[2] for place in found))]
    for block in found[0]["blocks"]:
        costs = [place["blocks"][block] for place in found]
        cells = [
            "-" if cost is None else ", ".join(map(_short, cost.values()))
            for cost in costs
        ]
        rows.append((block, *cells))
    return "\n".join([*lines, *_aligned(rows)])


def _product(sizes):
    return " x ".join(map(str, sizes))


def _short(number):
    for unit, power in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # What would round to the next unit has it.
        if number >= 0.9995 * power:
            return f"{number / power:.3g} {unit}"
    return str(number)


def _aligned(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
