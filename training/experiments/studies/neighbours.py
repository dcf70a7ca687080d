"""Accuracy of nearest neighbours, which judges self-supervised training.

Every held-out image takes the class that its 20 nearest training images vote for (see
`keras_attn.metrics.knn_accuracy`), by the cosine similarity of

- a row's own label: the trained teacher's embeddings,
- `random_initialization`: those of the same network before its first step,
- `pixels`: the pixels of the images, normalised channel by channel.

The metric `knn_accuracy` is in per cent. It takes `judged_images` of the
recipe from the held-out and from the training images, as the history of a run does.
"""

import numpy as np

from keras_attn.metrics import knn_accuracy
from keras_attn.training.data.load import load_data
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.fit.train import initial_model
from keras_attn.training.methods import dino


def study(runs, sources):
    """The accuracy of every run's model of the last epoch; see `Study`."""
    for label, run in runs.items():
        spec, splits = load_data(run.recipe, source=sources[label])
        judged = [
            dino.evenly(*splits[name], run.recipe.options.judged_images)
            for name in (held_out(splits), "train")
        ]
        networks = {
            label: run.load_model("last"),
            "random_initialization": initial_model(run.recipe, spec),
            "pixels": None,
        }
        for row, network in networks.items():
            (queries, query_labels), (known, known_labels) = (
                (_described(network, images, spec), labels) for images, labels in judged
            )
            neighbours = run.recipe.options.neighbours
            value = knn_accuracy(
                queries, query_labels, known, known_labels, k=neighbours
            )
            yield RowValue(row, "knn_accuracy", 100 * value)


def _described(network, images, spec):
    return dino.embeddings(network, images) if network else pixels(images, spec)


def pixels(images, spec):
    """The normalised images as vectors, `(images, height * width * 3)`."""
    images = np.asarray(images[:], "float32")
    images = (images / 255 - np.float32(spec.mean)) / np.float32(spec.std)
    return images.reshape(len(images), -1)
