"""A model of others -> one file that carries its class names and its pixels."""

import pathlib

import numpy as np

from keras_attn.pipelines.files import save_then_rename
from keras_attn.pipelines.images.files import image_files, read_images
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.runs.run import read_model
from keras_attn.training.trained import load_trained


def write_adopted(path, output, images=(), checkpoint="best", say=print):
    """Writes a model as every command takes it.

    Args:
        path: A model or its `ModelSource`; or the folder of a run.
        output: The `.keras` file.
        images: Paths of images and of folders of images, to check the pixels with.
        checkpoint: `best` or `last` model of a run.
        say: Function that is called with notes for the user.

    Returns:
        The path of the file. It is there when it is complete, and its numbers are the
        model's.

    Raises:
        ValueError: If `output` is not a `.keras` file, or the model cannot be used, or
            not be saved and loaded.
    """
    output = pathlib.Path(output)
    if output.suffix.lower() != ".keras":
        raise ValueError(f"Expected the name of a .keras file. Received: {output}")
    trained = load_trained(path, checkpoint)
    if trained.note:
        say(trained.note)
    if images:
        pixels, kept, _ = read_images(image_files(images), trained.spec)
        if warning := trained.pixels_warning(pixels, kept):
            say(warning)
    output.parent.mkdir(parents=True, exist_ok=True)
    with save_then_rename(output) as partial:
        trained.model.save(partial)
        _check_same(trained, read_model(partial))
    return output


def _check_same(trained, loaded):
    shape = (1, trained.spec.height, trained.spec.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    pairs = zip(
        *(outputs_of(m, noise).values() for m in (trained.model, loaded)), strict=True
    )
    if not all(np.allclose(own, new, rtol=1e-5, atol=1e-6) for own, new in pairs):
        raise ValueError(
            f"Expected a model that its file restores. Received: {trained.path}, whose "
            "saved copy answers differently. Nothing was written."
        )
