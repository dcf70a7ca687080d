"""Attention maps of a whole data set, computed once and kept."""

import sys

import matplotlib
import numpy as np
from PIL import Image

from keras_attn.pipelines.attention_maps.compute import as_floats, compute_maps
from keras_attn.pipelines.files import write_then_rename
from keras_attn.pipelines.images.contact_sheet import ROWS, contact_sheet, reduced
from keras_attn.pipelines.images.fonts import numbered
from keras_attn.pipelines.images.streaming import IN_MEMORY_GIB, load_images
from keras_attn.preprocessing import ImageSpec
from keras_attn.training.data.describe import named_source
from keras_attn.training.drawing import MAP_COLOURS, OPACITY, upsample
from keras_attn.training.runs.map_model import (
    ALL,
    OBJECTS,
    find_heads,
    heads_setting,
    load_map_model,
    map_sizes,
    named_heads,
)

PICTURE = "maps.png"


def masks(
    path,
    dataset,
    output,
    data=None,
    size=None,
    network_size=None,
    crop_fraction=1.0,
    storage="uint8",
    heads="all",
    on_corrupt="error",
    in_memory=IN_MEMORY_GIB,
    assignments=(),
    batch_size=64,
    examples_per_class=5,
    progress=None,
):
    """Computes the maps of all images of a data set and draws some of them.

    An interrupted call resumes when it is repeated. Splits of the data set share the
    maps: recipes of the same `size` and `network_size` find them by `map_cache`.

    Args:
        path: Folder of a run, or a `.keras` file, see `load_map_model`.
        dataset: Name of a data set, or a folder or archive of images.
        output: Folder of the cache, see `keras_attn.pipelines.attention_maps.cache`.
        data: Path of the data, with the name of a data set.
        size: Side of the images as a recipe holds them, its `image_size`; by default
            their own in data sets of arrays, else `network_size`.
        network_size: Side that they are enlarged to for the model; by default what it
            was made for, or `size`.
        crop_fraction: See `Recipe`.
        storage: `"uint8"` or `"float16"`.
        heads: Heads of a transformer that are averaged: `"all"` of the last block,
            `"objects"`: those of all blocks that see the objects of the images, by
            `keras_attn.explain.object_heads`; or indices in the last block, as a list
            or a text such as `"0,2"`.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        in_memory: Limit in GiB up to which decoded images are kept in memory.
        assignments: `key=value` options of the generated data set.
        batch_size: Images at a time.
        examples_per_class: Images of each class in the picture `maps.png`.
        progress: Called with (images done, images in all).

    Returns:
        `(summary, problems)`: dict of `folder`, `images`, `map_shape`, `storage`,
        `size`, `network_size`, `heads`, `bytes` and `picture`; `FILE: REASON` for each
        image left out.

    Raises:
        ValueError: If the folder holds other maps or other files, sizes are missing, or
            the model is a transformer without its preprocessing.
    """
    heads = named_heads(heads)
    model = load_map_model(path, None if heads == OBJECTS else heads)
    source = named_source(dataset, data, on_corrupt, assignments)
    if size is None and source.images is not None:
        size = tuple(source.images.shape[1:3])
    size, network_size = map_sizes(model, size, network_size)
    spec = ImageSpec(*size, crop_fraction=crop_fraction)
    source, images = load_images(source, spec, in_memory)
    if heads == OBJECTS:
        heads = find_heads(path, heads, images, network_size)
        model = load_map_model(path, heads)
    settings = heads_setting(heads)
    notes = {"model": str(path), "dataset": str(dataset), "data": str(data or "")}
    cache = compute_maps(
        model,
        images,
        output,
        batch_size,
        network_size,
        storage,
        settings,
        notes,
        progress,
    )
    maps, _ = cache.read()
    picture = cache.path / PICTURE
    sheet = map_sheet(
        images, maps, source.labels, source.class_names, examples_per_class
    )
    if note := numbered(source.class_names[:ROWS]):
        print(note, file=sys.stderr)
    with write_then_rename(picture) as file:
        sheet.save(file, "PNG")
    summary = {
        "folder": str(cache.path),
        "images": len(cache),
        "map_shape": cache.maker["map_shape"],
        "storage": storage,
        "size": list(size),
        "network_size": list(network_size),
        "heads": heads or ALL,
        "bytes": sum(file.stat().st_size for *_, file in cache.shards()),
        "picture": str(picture),
    }
    return summary, [f"{file}: {reason}" for file, reason in source.skipped]


def format_summary(summary):
    """Two lines on what was computed."""
    rows, columns, _ = summary["map_shape"]
    height, width = summary["network_size"]
    heads = "" if summary["heads"] == ALL else f", heads {summary['heads']}"
    return (
        f"{summary['folder']}: maps of {summary['images']} images, {rows} x {columns} "
        f"cells of {height} x {width} pixels{heads}, {summary['storage']}, "
        f"{summary['bytes'] / 1e6:.1f} MB\nPicture: {summary['picture']}"
    )


def map_sheet(images, maps, labels, class_names, examples_per_class=5):
    """The first images of every class, each beside its map over the image in grey.

    8-bit images or `StreamedImages`, maps `(examples, rows, columns, 1)` as stored, 0
    dark and 1 bright. The result is a `PIL.Image.Image`.
    """
    labels = np.asarray(labels)
    if examples_per_class < 1:
        raise ValueError(
            "Expected at least one example per class. "
            f"Received: examples_per_class={examples_per_class}"
        )
    shown = range(min(len(class_names), ROWS))
    chosen = [np.flatnonzero(labels == label)[:examples_per_class] for label in shown]
    chosen = np.concatenate(chosen)
    values = np.asarray(as_floats(maps[chosen]))[..., 0]
    pairs = []
    for image, value in zip(np.asarray(images[chosen]), values, strict=True):
        image = reduced(image)[0]
        pairs += [image, overlaid(image, value)]
    return contact_sheet(
        pairs, np.repeat(labels[chosen], 2), class_names, 2 * examples_per_class
    )


def overlaid(image, value):
    """A map in colours over the image in grey, 8-bit `(height, width, 3)`.

    Args:
        image: `(height, width, 3)`, 8-bit.
        value: `(rows, columns)`, in [0, 1].
    """
    height, width = image.shape[:2]
    large = np.clip(upsample(value, height, width), 0, 1)
    colours = matplotlib.colormaps[MAP_COLOURS](large)[..., :3] * 255
    grey = np.asarray(Image.fromarray(image).convert("L"), "float64")[..., None]
    mixed = OPACITY * colours + (1 - OPACITY) * grey
    return np.round(mixed).astype("uint8")
