"""The transformer that makes the attention maps for a run."""

from keras_attn.graph.keras_graph import layers_of
from keras_attn.layers.patch_embedding import PatchEmbedding
from keras_attn.models.vit import attention_map_model
from keras_attn.preprocessing import ImagePreprocessing
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


def _check_normalises(model, path):
    """A transformer without its preprocessing would see raw pixels."""
    inside = [type(layer) for layer in layers_of(model)]
    if PatchEmbedding in inside and ImagePreprocessing not in inside:
        raise ValueError(
            "Expected a transformer that normalises raw images itself, by an "
            f"ImagePreprocessing layer (vit(input_tensor=...)). Received: {path}, "
            "without one"
        )
