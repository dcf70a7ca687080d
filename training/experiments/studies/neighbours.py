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

METRIC = "knn_accuracy"


def study(runs, sources):
    """The accuracy of every run's model of the last epoch; see `Study`."""
    lines = []
    for label, run in runs.items():
        spec, splits = load_data(run.recipe, source=sources[label])
        judged = [
            dino.evenly(*splits[name], run.recipe.options.judged_images)
            for name in (held_out(splits), "train")
        ]
        described = {
            label: lambda images, run=run: dino.embeddings(
                run.load_model("last"), images
            ),
            "random_initialization": lambda images, run=run, spec=spec: dino.embeddings(
                initial_model(run.recipe, spec), images
            ),
            "pixels": lambda images, spec=spec: pixels(images, spec),
        }
        for row, describe in described.items():
            (images, labels), (train, train_labels) = judged
            value = knn_accuracy(
                describe(images),
                labels,
                describe(train),
                train_labels,
                k=run.recipe.options.neighbours,
            )
            lines.append(RowValue(row, METRIC, 100 * value))
    return lines


def pixels(images, spec):
    """The normalised images as vectors, `(images, height * width * 3)`."""
    images = np.asarray(images[:], "float32")
    images = (images / 255 - np.float32(spec.mean)) / np.float32(spec.std)
    return images.reshape(len(images), -1)
