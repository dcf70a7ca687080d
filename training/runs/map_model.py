"""The transformer that makes the attention maps for a run."""

from keras_attn.graph.keras_graph import layers_of
from keras_attn.layers.patch_embedding import PatchEmbedding
from keras_attn.models.vit import attention_map_model
from keras_attn.preprocessing import ImagePreprocessing, spec_of
from keras_attn.training.runs.run import model_file, read_model


def load_map_model(path):
    """The model that makes maps: raw images in, `(batch, rows, columns, 1)` out.

    Args:
        path: Folder of a run, or a `.keras` file: of a transformer with the output
            `tokens`, whose last class attention is averaged over the heads and brought
            to [0, 1]; or of a model that gives such maps itself.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it gives no maps, or is a transformer without its preprocessing.
    """
    path = model_file(path)
    model = read_model(path)
    output = getattr(model, "output", None)
    if isinstance(output, dict) and "tokens" in output:
        model = attention_map_model(model, "mean", "minmax", name="map_model")
        output = model.output
    shape = getattr(output, "shape", ())
    if len(shape) != 4 or shape[-1] != 1:
        raise ValueError(
            "Expected a model with the output 'tokens', or one that gives maps "
            f"(batch, rows, columns, 1). Received: {path}, which gives {output}"
        )
    _check_normalises(model, path)
    return model


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
