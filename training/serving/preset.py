"""A trained model as a preset: a small `.keras` file."""

import io
import zipfile

import h5py
import numpy as np

from keras_attn.models.preset import MODEL
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.runs.run import read_model
from keras_attn.training.serving.signatures import example_images

# Largest difference of an output, relative to its largest value.
TOLERANCE = 0.02


def write_preset(trained, folder):
    """Writes the model into a new folder, kernels in half precision.

    Vectors, such as the statistics of batch normalisation, take little and stay as
    they are.

    Raises:
        ValueError: If the answers of the file are not those of the model.
    """
    folder.mkdir()
    file = folder / MODEL
    trained.model.save(file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            halve = name.endswith(".weights.h5")
            archive.writestr(name, _halved(content) if halve else content)
    images = np.asarray(example_images(trained.spec))
    expected = outputs_of(trained.model, images)
    received = outputs_of(read_model(file), images)
    for name, value in expected.items():
        limit = TOLERANCE * max(1, np.abs(value).max())
        # Written so that NaN differs.
        if not np.abs(received[name] - value).max() <= limit:
            raise ValueError(
                f"Expected {trained.name} to answer in half precision as it does. "
                f"Received: other {name}. Nothing was written."
            )


def _halved(content):
    """An HDF5 file whose arrays of two dimensions or more are float16."""
    found = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as old, h5py.File(found, "w") as new:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                made = new.require_group(name)
            else:
                values = item[()]
                if item.dtype == "float32" and item.ndim > 1:
                    with np.errstate(over="ignore"):  # Answers are compared.
                        values = values.astype("float16")
                made = new.create_dataset(name, data=values)
            made.attrs.update(item.attrs)

        old.visititems(copy)
        new.attrs.update(old.attrs)
    return found.getvalue()
