"""The worst mistakes of an evaluation, searched in the background."""

import dataclasses
import threading

import numpy as np

from keras_attn.training.evaluation.evaluate import evaluation_data
from keras_attn.training.evaluation.mistakes import (
    Mistake,
    mistakes_among,
)
from keras_attn.training.runs.outputs import outputs_of, sigmoid

MOST_IMAGES = 1000
SHOWN = 12
BATCH = 64


@dataclasses.dataclass
class Search:
    """Progress and result of the search for a model's mistakes.

    Args:
        state: `"loading"` the images, `"evaluating"`, `"done"` or `"failed"`.
        done, total: Images.
        split: Name of the split.
        wrong: Number of images that were taken for another class, or that have a wrong
            label or lack one.
        several_labels: Whether their classes do not exclude each other.
        mistakes: List of `Mistake`.
        names: Names of their images.
        same_data: See `keras_attn.training.evaluation.evaluate.EvaluationData`.
        error: Reason of a failure.
    """

    state: str = "loading"
    done: int = 0
    total: int = 0
    split: str = ""
    wrong: int = 0
    several_labels: bool = False
    mistakes: list[Mistake] = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)
    same_data: bool | None = None
    error: str = ""

    @property
    def running(self):
        return self.state in ("loading", "evaluating")

    @property
    def accuracy(self):
        return 1 - self.wrong / self.total


class Searches:
    """One `Search` per model and number of images, kept.

    Args:
        library: `keras_attn.training.viewer.library.Library`.
        data: Path of the data, where the data set is not made or fetched by name.
    """

    def __init__(self, library, data=None):
        self.library = library
        self.data = data
        self._searches = {}
        self._lock = threading.Lock()

    def get(self, name, most):
        """The `Search` of a model, or `None` if it was not started."""
        return self._searches.get((name, most))

    def start(self, name, most=MOST_IMAGES):
        """Begins a search, or gives the one that runs or is done."""
        with self._lock:
            search = self._searches.get((name, most))
            if search is None or search.state == "failed":
                search = self._searches[name, most] = Search()
                # A daemon: Ctrl-C does not wait for it.
                threading.Thread(
                    target=self._run, args=(search, name, most), daemon=True
                ).start()
            return search

    def _run(self, search, name, most):
        try:
            self._find(search, name, most)
            search.state = "done"
        except Exception as error:  # Nothing else reports an error in a thread.
            search.error = str(error) or type(error).__name__
            search.state = "failed"

    def _find(self, search, name, most):
        viewed = self.library.load(name)
        found = evaluation_data(
            self.library.paths[name],
            data=self.data,
            checkpoint=self.library.checkpoint,
            on_corrupt="skip",
        )
        search.split, search.same_data = found.split, found.same_data
        images, labels, names = found.images, found.labels, found.names
        # Evenly spread: many data sets are sorted by class.
        count = min(most, len(labels))
        places = np.linspace(0, len(labels) - 1, count).round().astype(int)
        images, labels = images[places], labels[places]
        search.total = count
        search.state = "evaluating"
        logits = []
        for start in range(0, count, BATCH):
            part = np.asarray(images[start : start + BATCH])
            # For each batch, so that answers to uploads come in between.
            with self.library.lock:
                logits.append(outputs_of(viewed.classifier, part, BATCH)["logits"])
            search.done = min(start + BATCH, count)
        logits = np.concatenate(logits)
        thresholds = found.trained.thresholds
        search.several_labels = labels.ndim > 1
        if search.several_labels:
            wrong = (sigmoid(logits) >= thresholds) != labels
            search.wrong = int(wrong.any(axis=-1).sum())
        else:
            search.wrong = int((logits.argmax(axis=-1) != labels).sum())
        search.mistakes = mistakes_among(logits, images, labels, SHOWN, thresholds)
        search.names = [names[places[each.index]] for each in search.mistakes]
