"""Retrieval of images of the same class among the held-out images.

Every image is a query and is ranked against all the others by the cosine similarity of
their descriptors (see `keras_attn.training.retrieval.descriptors.embedder_of`); those
of its class are the right ones. Metrics, in per cent:

- `retrieval_map`: mean average precision,
- `recall_at_1`: queries whose nearest image is of their class.
"""

from keras_attn.metrics.retrieval import recall_at, retrieval_map
from keras_attn.training.data.load import load_data
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.retrieval.descriptors import describe, embedder_of
from keras_attn.training.trained import load_trained


def study(runs, sources):
    """The scores of every run's model of the last epoch; see `Study`."""
    for label, run in runs.items():
        _, splits = load_data(run.recipe, source=sources[label])
        images, labels = splits[held_out(splits)]
        embedder = embedder_of(load_trained(run.workdir, "last"))
        descriptors = describe(embedder, images)
        mean = retrieval_map(descriptors, labels)
        yield RowValue(label, "retrieval_map", 100 * mean)
        yield RowValue(label, "recall_at_1", 100 * recall_at(descriptors, labels))
