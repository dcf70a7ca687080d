"""The images of the examples: a folder of yours, or generated ones."""

import os
import pathlib

import keras
import numpy as np

from keras_attn.pipelines.generated import generate

# Set by the tests, to see that everything runs: tiny sizes, no downloads.
QUICK = bool(os.environ.get("EXAMPLES_QUICK"))


def load(folder=None, size=96, examples=1000, classes=5):
    """Images for training and for testing.

    Args:
        folder: Folder with a folder of images for each class, or `None` for generated
            images: fantastic birds that differ in one part.
        size: Side of the images in pixels.
        examples, classes: Numbers of generated images and of their classes.

    Returns:
        `(images, labels)` for training, `(images, labels)` for testing, one in five,
        and the names of the classes. Images are uint8 `(N, size, size, 3)`.
    """
    if folder is None:
        data = generate(examples, size, classes, difficulty=0.05)
        images, labels, names = data.images, data.labels, list(data.class_names)
    else:
        found = keras.utils.image_dataset_from_directory(
            folder, image_size=(size, size), batch_size=None, shuffle=False
        )
        names = found.class_names
        images, labels = zip(*found.as_numpy_iterator(), strict=True)
        images = np.round(images).astype("uint8")
        labels = np.array(labels)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return (images[train], labels[train]), (images[test], labels[test]), names


def picture_path(name):
    """Path of an example's picture, in `runs/examples` by default."""
    folder = pathlib.Path(os.environ.get("EXAMPLES_OUTPUT", "runs/examples"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.png"
