"""A worker of a bulk job: a model, loaded once, that computes shards."""

import os
import select
import threading
import traceback

import numpy as np

from keras_attn.pipelines.images.decoding import decode_files
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.bulk import formats
from keras_attn.training.bulk.plan import Plan, this_process
from keras_attn.training.bulk.tasks import TASKS, task_of

# Errors of the input or the surroundings, that every worker would meet.
EXPECTED = (ValueError, OSError, ImportError)


class Worker:
    """A plan with its model loaded.

    Args:
        path, maker, notes: Those of a `Plan`.
        images: Its collection.

    Raises:
        ValueError: If the model is no longer that of the plan.
    """

    def __init__(self, path, maker, notes, images):
        self.plan, self.images = Plan(path, maker, notes=notes), images
        self.shards = self.plan.shards()
        made = self.plan.maker
        # Plans of earlier versions lack the settings that came later.
        defaults = TASKS[made["task"]].settings
        settings = {name: made.get(name, value) for name, value in defaults.items()}
        self.task = task_of(
            made["task"],
            self.plan.model,
            notes["checkpoint"],
            settings,
            made["batch_size"],
        )
        if self.task.digest != made["model"]:
            raise ValueError(
                f"Expected the model of the plan in {path}, {made['model'][:12]}. "
                f"Received: {notes['model']}, which is another one now, "
                f"{self.task.digest[:12]}"
            )

        # One object, so that it is traced once.
        self.fit = ImagePreprocessing(self.task.spec).fit_size

    def compute(self, number):
        """Computes a shard by its number, unless its file is there by now."""
        shard = self.shards[number]
        if shard.path.exists():
            return
        with self.plan.attempt(shard):
            self.plan.write_shard(shard, self.rows(shard))

    def rows(self, shard):
        """The table of a shard, see `keras_attn.training.bulk.formats`."""
        names = self.images.names(shard.start, shard.stop)
        indices = range(shard.start, shard.stop)
        files = list(self.images.read(indices, errors="give"))

        def read(index):
            if isinstance(files[index], OSError):
                raise files[index]
            return files[index]

        spec = self.task.spec
        decoded = decode_files(read, names, (spec.height, spec.width), self.fit)
        good = decoded.kept
        rows = {
            "name": formats.printable(names),
            "problem": formats.printable(_reasons(decoded, len(names))),
        }
        values = {}
        if len(good):
            # A last batch of another size would be compiled, and rounded, anew.
            batch = self.plan.maker["batch_size"]
            filled = np.resize(good, -(-len(good) // batch) * batch)
            images = decoded.images[np.arange(len(filled)) % len(good)]
            values = self.task.compute(images, [files[index] for index in filled])
        for name, (dtype, shape) in self.plan.columns.items():
            found = np.asarray(values.get(name, np.zeros((0, *shape), dtype)))
            rows[name] = np.zeros((len(names), *shape), found.dtype)
            rows[name][good] = found[: len(good)]
        return rows


def _reasons(decoded, count):
    """A reason for each image, empty for those that can be read."""
    reasons = np.full(count, "", object)
    corrupt = np.setdiff1d(np.arange(count), decoded.kept)
    reasons[corrupt] = [problem.reason for problem in decoded.problems]
    return reasons.tolist()


# ---- the process ---------------------------------------------------------------------


def serve(connection):
    """Computes the shards whose numbers a connection gives, until it closes.

    The arguments of `Worker` come first. This process ends with the one at the other
    end, whatever it does. It sends `None` when it begins, when its model is loaded and
    after each shard, or a message and whether it is that of an expected error.
    """
    try:
        connection.send(None)
        arguments = connection.recv()
    except (EOFError, OSError):
        return
    plan = Plan(*arguments[:2], notes=arguments[2])
    threading.Thread(target=_end_with, args=(connection, plan), daemon=True).start()
    try:
        worker = Worker(*arguments)
        connection.send(None)
        while True:
            worker.compute(connection.recv())
            connection.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except MemoryError:
        # The driver counts it as the end of a worker.
        os._exit(1)
    except Exception as error:
        expected = isinstance(error, EXPECTED)
        connection.send((str(error) if expected else traceback.format_exc(), expected))


def _end_with(connection, plan):
    """Ends this process when that at the other end does, whatever is computed."""
    ends = select.poll()
    ends.register(connection.fileno(), getattr(select, "POLLRDHUP", 0))
    ends.poll()
    plan.forget(this_process())
    plan.clean(this_process())
    os._exit(1)
