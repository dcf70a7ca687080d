"""Callbacks: what happens during `fit` besides the steps."""

import csv
import io
import math
import time

import keras

from training.resume import save_state
from training.run import write_then_rename


class NotFiniteError(ArithmeticError):
    """The loss became NaN or infinite."""


class SaveError(OSError):
    """A checkpoint could not be written; the earlier ones are intact."""


class Checkpoint(keras.callbacks.Callback):
    """After every epoch: the best and the last model, the state, `history.csv`.

    The state is written last, so a run that dies in between repeats the epoch.

    Args:
        run: `training.run.Run`.
        progress: `training.resume.Progress`, continued in place.
        watch: Log whose greatest value makes the best model.
    """

    def __init__(self, run, progress, watch="val_logits_accuracy"):
        super().__init__()
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
        better = logs.get(self.watch, float(epoch)) > progress.best
        if better:
            progress.best = logs.get(self.watch, float(epoch))
            progress.best_epoch = epoch
        try:
            self._save_model("last")
            if better:
                self._save_model("best")
            save_state(self.run.checkpoints / "last.npz", self.model, progress)
            write_history(self.run.workdir / "history.csv", progress.history)
        except OSError as error:
            raise SaveError(
                f"Cannot save the checkpoint of epoch {epoch + 1} in "
                f"{self.run.checkpoints}: {error.strerror or error}. What was saved "
                f"up to epoch {epoch} is intact. Free some space and run the same "
                "command again to go on from there."
            ) from error

    def _save_model(self, which):
        target = self.run.checkpoints / f"{which}.keras"
        # Keras insists on the suffix, so the complete file is renamed, not written
        # through.
        temporary = target.with_name(f".{which}.partial.keras")
        try:
            self.model.save(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def write_history(path, history):
    """One line an epoch, rewritten as a whole so that it never repeats an epoch."""
    columns = list(dict.fromkeys(name for logs in history for name in logs))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    with write_then_rename(path) as file:
        file.write(text.getvalue().encode())


class StopAtNotFinite(keras.callbacks.Callback):
    """Stops at the first step whose loss is NaN or infinite, and says where."""

    def __init__(self, run, progress):
        super().__init__()
        self.run = run
        self.progress = progress

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        if math.isfinite(loss):
            return
        good = self.run.checkpoints / "last.keras"
        saved = (
            f"The last good checkpoint is {good}, after epoch {self.progress.epochs}."
            if self.progress.epochs
            else "No checkpoint was saved before."
        )
        raise NotFiniteError(
            f"The loss became {loss} at step {batch + 1} of epoch {self.epoch + 1}. "
            f"{saved} Likely causes: too high a learning rate "
            f"(learning_rate={self.run.recipe.learning_rate}), float16 overflow "
            f"(dtype_policy={self.run.recipe.dtype_policy}), or images that hold "
            "NaN or a channel of zero spread (mean and std of the data set)."
        )
