"""The transformer that makes the attention maps for a run."""

import keras
import numpy as np

from keras_attn._checks import did_you_mean
from keras_attn.explain import object_heads
from keras_attn.graph.keras_graph import layers_of
from keras_attn.layers.patch_embedding import PatchEmbedding
from keras_attn.models.preset import list_presets, preset_file
from keras_attn.models.vit import attention_map_model
from keras_attn.pipelines.attention_maps.compute import fitted
from keras_attn.preprocessing import ImagePreprocessing, spec_of
from keras_attn.training.runs.run import model_file, read_model

ALL, OBJECTS = "all", "objects"
# Images that heads of objects are chosen by.
SAMPLE = 16


def load_map_model(path, heads=None):
    """The model that makes maps: raw images in, `(batch, rows, columns, 1)` out.

    Args:
        path: Folder of a run, a preset, or a `.keras` file: of a transformer with the
            output `tokens`, whose last class attention is averaged over the heads and
            brought to [0, 1]; or of a model that gives such maps itself.
        heads: Heads that are averaged, as `find_heads` returns them.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it gives no maps, is a transformer without its preprocessing, or
            has no such heads.
    """
    path = _file(path)
    model = read_model(path)
    output = getattr(model, "output", None)
    if _is_transformer(model):
        model = attention_map_model(
            model, "mean", "minmax", heads=heads, name="map_model"
        )
        output = model.output
    elif heads is not None:
        raise ValueError(_NO_HEADS.format(path))
    shape = getattr(output, "shape", ())
    if len(shape) != 4 or shape[-1] != 1:
        raise ValueError(
            "Expected a model with the output 'tokens', or one that gives maps "
            f"(batch, rows, columns, 1). Received: {path}, which gives {_shown(output)}"
        )
    _check_normalises(model, path)
    return model


_NO_HEADS = (
    "Expected a transformer with the output 'tokens', whose heads can be chosen. "
    "Received: {}, which has none"
)


def _file(path):
    try:
        return preset_file(path) or model_file(path)
    except FileNotFoundError as error:
        hint = did_you_mean(path, list_presets())
        raise FileNotFoundError(f"{error}".rstrip(".") + hint) from None


def _shown(output):
    return keras.tree.map_structure(lambda each: getattr(each, "shape", each), output)


def _is_transformer(model):
    output = getattr(model, "output", None)
    return isinstance(output, dict) and "tokens" in output


def named_heads(heads):
    """Heads that a text names: `None` for all, `"objects"`, or a list.

    Args:
        heads: `"all"`, `"objects"`, or indices of heads of the last block such as
            `"0,2"`; also `None`, or a list of indices or of pairs `(block, head)`.

    Raises:
        ValueError: If it is none of these.
    """
    if heads in (None, ALL, OBJECTS):
        return None if heads == ALL else heads
    try:
        if isinstance(heads, str):
            return [int(head) for head in heads.split(",")]
        heads = [heads] if isinstance(heads, int) else heads
        return [
            head if isinstance(head, int) else [int(each) for each in head]
            for head in heads
        ]
    except (TypeError, ValueError):
        hint = did_you_mean(heads, (ALL, OBJECTS))
        raise ValueError(
            f"Expected heads to be {ALL!r}, {OBJECTS!r}, or indices of heads such as "
            f"'0,2'. Received: heads={heads!r}{hint}"
        ) from None


def heads_setting(heads):
    """The record of the heads in a cache of maps; nothing where all are averaged."""
    return {} if heads is None else {"heads": heads}


def find_heads(path, heads, images, size):
    """The heads to average: those named, or those that see the objects of images.

    Args:
        path: See `load_map_model`.
        heads: See `named_heads`.
        images: 8-bit images or `StreamedImages`, of which `SAMPLE` are looked at.
        size: Height and width that they are enlarged to for the model.

    Returns:
        `None` for all, or a list of indices or of pairs `[block, head]`.

    Raises:
        ValueError: If the model is no transformer.
    """
    heads = named_heads(heads)
    if heads != OBJECTS:
        return heads
    model = read_model(_file(path))
    if not _is_transformer(model):
        raise ValueError(_NO_HEADS.format(path))
    if not len(images):
        raise ValueError("Expected readable images to choose heads by. Received: none")
    sample = np.asarray(fitted(images[sample_of(len(images))], size))
    return [list(head) for head in object_heads(model, sample)]


def sample_of(count):
    """Numbers of at most `SAMPLE` of some images, spread evenly."""
    return np.linspace(0, count - 1, min(SAMPLE, count)).round().astype(int)


def map_sizes(model, size=None, network_size=None):
    """Height and width of images, and those that they are enlarged to for a model.

    Args:
        model: As `load_map_model` returns it.
        size: A number of pixels or a pair; by default that of the network.
        network_size: The same; by default what the model was made for, or `size`.

    Raises:
        ValueError: If there is none.
    """
    pairs = [
        (each, each) if isinstance(each, int) else each for each in (size, network_size)
    ]
    size, network_size = pairs
    network_size = network_size or _made_for(model) or size
    size = size or network_size
    if size is None:
        raise ValueError(
            "Expected a size of the images (--size), since neither the data set nor "
            f"the model has one. Received: size=None and {model.name!r}"
        )
    return tuple(size), tuple(network_size)


def _made_for(model):
    size = tuple(model.input_shape[1:3])
    if None not in size:
        return size
    try:
        spec = spec_of(model)
    except ValueError:
        return None
    return spec.height, spec.width


def _check_normalises(model, path):
    """A transformer without its preprocessing would see raw pixels."""
    inside = [type(layer) for layer in layers_of(model)]
    if PatchEmbedding in inside and ImagePreprocessing not in inside:
        raise ValueError(
            "Expected a transformer that normalises raw images itself, by an "
            f"ImagePreprocessing layer (vit(input_tensor=...)). Received: {path}, "
            "without one"
        )
