"""Callbacks of `fit`: checkpoints, event files and the check of the loss."""

import csv
import errno
import io
import math
import sys
import time

import keras
import numpy as np

from keras_attn.pipelines.files import save_then_rename, write_then_rename
from keras_attn.training.runs import devices, hosts
from keras_attn.training.runs.state import save_state

# Characters of a line of progress.
LINE = 120


class NotFiniteError(ArithmeticError):
    """The loss became NaN or infinite."""


class SaveError(OSError):
    """A checkpoint could not be written; the earlier ones are intact."""


class Checkpoint(keras.callbacks.Callback):
    """After every epoch: the best and the last model, `history.csv`, the state.

    The state is written last, so a run that dies in between repeats the epoch, and a
    run whose state is complete lacks nothing.

    Args:
        run: `keras_attn.training.runs.run.Run`.
        progress: `keras_attn.training.runs.state.Progress`, continued in place.
        watch: Log whose greatest value makes the best model; `None`: the last epoch
            is the best one.
        saved: Model that is saved as the best and the last one; by default the one in
            training.
        patience: Epochs without a better value, in the second half, before the
            training ends; 0: it does not end early. In the first half the rate is
            high, and values fall before they rise.
    """

    def __init__(
        self, run, progress, watch="val_logits_accuracy", saved=None, patience=0
    ):
        super().__init__()
        self.patience = patience
        self.saved = saved
        self.run = run
        self.progress = progress
        self.watch = watch

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        progress = self.progress
        logs = {name: float(value) for name, value in (logs or {}).items()}
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        progress.history.append({"epoch": epoch + 1, **logs})
        progress.seconds += time.perf_counter() - self.started
        value = logs[self.watch] if self.watch else float(epoch)
        better = value > progress.best
        if better:
            progress.best, progress.best_epoch = value, epoch
        if self.patience:
            counted = epoch - max(progress.best_epoch, self.run.recipe.epochs // 2)
            if counted >= self.patience:
                progress.stopped = self.model.stop_training = True
        if not hosts.group().is_first:
            return
        try:
            self._save_model("last")
            if better:
                self._save_model("best")
            write_history(self.run.workdir / "history.csv", progress.history)
            save_state(self.run.checkpoints / "last.npz", self.model, progress)
        except OSError as error:
            raise save_error(error, self.run, epoch) from error

    def _save_model(self, which):
        target = self.run.checkpoints / f"{which}.keras"
        model = self.model if self.saved is None else self.saved
        with save_then_rename(target) as temporary, devices.portable(model):
            model.save(temporary)


def save_error(error, run, epoch):
    """The `SaveError` of a failed write after `epoch` (0-based)."""
    kept = f"What was saved up to epoch {epoch} is intact" if epoch else "Nothing lost"
    return SaveError(
        f"Cannot save epoch {epoch + 1} in {run.workdir}: "
        f"{error.strerror or error}. {kept}. "
        f"{ADVICE.get(error.errno, 'Fix this')}, then run the same command to resume."
    )


ADVICE = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EFBIG: "Free some space",
}


def write_history(path, history):
    """One line per epoch, rewritten as a whole so that it never repeats an epoch."""
    columns = list(dict.fromkeys(name for logs in history for name in logs))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    with write_then_rename(path) as file:
        file.write(text.getvalue().encode())


class StopAtNotFinite(keras.callbacks.Callback):
    """Stops at the first step whose loss is NaN or infinite, and names it.

    An epoch's last step can spoil the weights without a loss that shows it, so they
    are checked before they are saved.
    """

    def __init__(self, run, progress):
        super().__init__()
        self.run = run
        self.progress = progress

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.step = batch + 1
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            self._stop(f"The loss became {loss}")

    def on_epoch_end(self, epoch, logs=None):
        for weight in self.model.weights:
            if not np.all(np.isfinite(keras.ops.convert_to_numpy(weight.value))):
                self._stop(f"The weight {weight.path} became NaN or infinite")

    def _stop(self, what):
        good = self.run.checkpoints / "last.keras"
        saved = (
            f"The last good checkpoint is {good}, after epoch {self.progress.epochs}."
            if self.progress.epochs
            else "No checkpoint was saved before."
        )
        recipe = self.run.recipe
        raise NotFiniteError(
            f"{what} at step {self.step} of epoch {self.epoch + 1}. {saved} Likely "
            f"causes: too high a learning rate (learning_rate={recipe.learning_rate}), "
            f"overflow of half precision (dtype_policy={recipe.dtype_policy}), or "
            "images normalised by a spread near zero (mean and std of the data set)."
        )


class EventFiles(keras.callbacks.TensorBoard):
    """TensorBoard's event files in the run folder."""

    def __init__(self, run):
        super().__init__(str(run.workdir / "tensorboard"))


class EpochLines(keras.callbacks.Callback):
    """One line per epoch, and on a terminal the step within it.

    Args:
        epochs, steps: Their numbers, the steps per epoch.
        watch: Log that makes the best model, shown first.
    """

    def __init__(self, epochs, steps, watch=None):
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self.watch = watch or ""

    def on_epoch_begin(self, epoch, logs=None):
        self.head = f"Epoch {epoch + 1}/{self.epochs}"
        self.started = self.shown = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if sys.stdout.isatty() and now > self.shown + 0.2:
            self.shown = now
            text = f"{self.head}: step {batch + 1} of {self.steps}"
            print(f"{_line(text, logs, ())}\033[K", end="\r", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.started
        first = (self.watch, "loss", self.watch.removeprefix("val_"), "val_loss")
        end = "\033[K\n" if sys.stdout.isatty() else "\n"
        line = _line(f"{self.head}: {seconds:.1f} s", logs, first)
        print(line, end=end, flush=True)


def _line(text, logs, first):
    """The text and the values that fit after it, those named in `first` before."""
    logs = logs or {}
    for name in dict.fromkeys([*(name for name in first if name in logs), *logs]):
        added = f"{text}, {name} {float(logs[name]):.4g}"
        if len(added) > LINE:
            break
        text = added
    return text
