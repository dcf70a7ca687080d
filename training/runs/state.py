"""The complete state of a training run in one file, replaced atomically."""

import dataclasses
import io
import json

import keras
import numpy as np

from keras_attn.pipelines.files import DAMAGE, read_arrays, write_then_rename
from keras_attn.training.runs import hosts


@dataclasses.dataclass
class Progress:
    """Progress of a run.

    Args:
        history: One dict of logs for every epoch that ended.
        best: The best value of the watched metric.
        best_epoch: Its epoch, 0-based.
        seconds: Time spent in training, over all starts.
        data: Checksum of the data that it was trained on.
        notes: Lines of the run's card that only its training can state, by their names.
        stopped: Whether it ended early, since its validation got no better.
    """

    history: list = dataclasses.field(default_factory=list)
    best: float = float("-inf")
    best_epoch: int = -1
    seconds: float = 0.0
    data: str = ""
    notes: dict = dataclasses.field(default_factory=dict)
    stopped: bool = False

    @property
    def epochs(self):
        return len(self.history)

    def is_finished(self, epochs):
        """True after that many epochs, or where the run ended early."""
        return self.stopped or self.epochs >= epochs


def variables_of(model):
    """Every variable that training changes: weights, seeds, optimizer.

    `model.variables` holds the states of seed generators, which neither
    `save_weights` nor a saved model keep. Numbers, not paths, are the keys: the
    paths of seed generators count the layers made earlier in the process.
    """
    metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    return {
        f"variable_{number:04d}": variable
        for number, variable in enumerate([*own, *model.optimizer.variables])
    }


def save_state(path, model, progress):
    """Writes the state of a compiled model and its progress to one file."""
    arrays = {
        key: keras.ops.convert_to_numpy(variable.value)
        for key, variable in variables_of(model).items()
    }
    text = json.dumps(dataclasses.asdict(progress))
    with write_then_rename(path) as file:
        np.savez(file, progress=np.array(text), **arrays)


def load_progress(path):
    """The progress stored at `path`; a new one if there is no such file."""
    if not path.exists():
        return Progress()
    text = str(_read(path, lambda name: name == "progress")["progress"])
    try:
        progress = Progress(**json.loads(text))
        if not all(isinstance(logs["epoch"], int) for logs in progress.history):
            raise ValueError("epochs without a number")
        return progress
    except DAMAGE as error:
        raise _damaged(path, error) from error


def restore_state(path, model):
    """Puts the state stored at `path` into a compiled model of the same recipe."""
    variables = variables_of(model)
    with hosts.group().file(path) as file:
        stored = _read(file, lambda name: name != "progress")
    wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
    if {name: array.shape for name, array in stored.items()} != wanted:
        raise ValueError(
            f"The training state {path} belongs to another model: it holds "
            f"{len(stored)} variables, the model {len(variables)}, or their shapes "
            "differ. Train with another --workdir."
        )
    for name, variable in variables.items():
        variable.assign(stored[name])


def take_values(model, other):
    """Gives a model the values of another one of the same recipe.

    In several processes they are those of process 0.
    """
    group, values = hosts.group(), variables_of(other)
    if model is other and group.count == 1:
        return
    for name, variable in variables_of(model).items():
        file = io.BytesIO()
        if group.is_first:
            value = keras.ops.convert_to_numpy(values[name].value)
            np.save(file, value, allow_pickle=False)
        content = io.BytesIO(group.share(file.getvalue()))
        variable.assign(np.load(content, allow_pickle=False))


def _read(path, chosen):
    """The arrays of a state file whose names are chosen."""
    try:
        names = set()
        arrays = read_arrays(path, lambda name: names.add(name) or chosen(name))
        if "progress" not in names:
            raise ValueError("it is not a training state")
        return arrays
    except DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path, error):
    return ValueError(
        f"Cannot read the training state {path}, which is damaged ({error}). "
        "Train with another --workdir; models saved beside it may still be good."
    )
