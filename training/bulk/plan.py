"""The plan of a bulk job: a folder of shards that any number of workers fill."""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import uuid

from keras_attn._checks import one_of, positive_integer
from keras_attn.pipelines.collections import open_collection
from keras_attn.pipelines.store import Store
from keras_attn.training.bulk import formats
from keras_attn.version import __version__

# Attempts at a shard that end their worker before it is set aside.
ATTEMPTS = 3
BATCH, SHARD = 32, 256
_SOURCE_FIELDS = ("classes", "pixels", "output", "size", "several_labels")


class Plan(Store):
    """A bulk job: a task, a model, its images, and a folder with a file per shard.

    The maker holds the `task` with its settings, the digest of the `model`, the kind
    and digest of the `source`, the `format` of the files, the `batch_size` and `shard`,
    the number of `examples`, the `columns` of the results and the `version`. Notes hold
    where model and images are.

    Example:

    >>> plan = Plan.make("predict", "flowers.keras", "photos", "answers")
    >>> run(plan, workers=2).done
    10000
    """

    CONTENT, FORMAT = "results of a bulk job", "keras-attn bulk"
    DESCRIPTION, MAKER = "plan.json", "`keras-attn bulk`"
    FOLDER = "attempts"

    def __init__(self, path, maker, shard=None, notes=None):
        super().__init__(path, maker, maker["shard"], notes)
        self.kind = one_of("format", self.maker["format"], formats.FORMATS)
        self.columns = {
            name: (dtype, tuple(shape))
            for name, (dtype, shape) in self.maker["columns"].items()
        }

    @classmethod
    def make(
        cls,
        task,
        model,
        source,
        output,
        format="npz",
        checkpoint="best",
        batch_size=BATCH,
        shard=SHARD,
        **settings,
    ):
        """The plan in a folder; a new one if there is none.

        Args:
            task: `"predict"`, `"explain"`, `"localize"`, `"embed"` or `"masks"`.
            model: Folder of a run, or a model; or a `ModelSource`.
            source: Images, see `keras_attn.pipelines.collections.open_collection`.
            output: Folder of the results.
            format: `"npz"`, `"parquet"` or `"jsonl"`.
            checkpoint: `best` or `last` model of a run.
            batch_size: Images that the model sees at a time.
            shard: Images per file.
            settings: Those of the task, see `keras_attn.training.bulk.tasks.TASKS`;
                others have their defaults.

        Raises:
            FileNotFoundError: If there is no model, or no images.
            ImportError: If the format or the source needs a package that is missing.
            ValueError: If the folder holds something else or results of another model,
                source or other settings; the message names the difference.
        """
        # Loading a model takes seconds, these do not.
        one_of("format", format, formats.FORMATS)
        if format == "parquet":
            formats.require_arrow()
        for name, value in (("batch_size", batch_size), ("shard", shard)):
            positive_integer(name, value)
        output = pathlib.Path(output)
        if (output / cls.DESCRIPTION).exists():
            cls.open(output)
        images = open_collection(source)
        # Drivers and workers may share a GPU; unasked, each would take all its memory.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from keras_attn.training.adoption import ModelSource
        from keras_attn.training.bulk.tasks import TASKS, task_of

        settings = _complete(task, settings, TASKS)
        model = dataclasses.replace(ModelSource.of(model), say=None)
        settings = TASKS[task].settle(model, images, settings)
        prepared = task_of(task, model, checkpoint, settings, batch_size)
        described = images.describe()
        maker = {
            "task": task,
            "model": prepared.digest,
            **settings,
            "source": described["kind"],
            "examples": len(images),
            "listing": described["digest"],
            "format": format,
            "batch_size": batch_size,
            "shard": shard,
            "columns": prepared.columns,
            "version": __version__,
        }
        notes = {
            **_places(model, source),
            "checkpoint": checkpoint,
            **prepared.notes,
        }
        plan = cls.open_or_create(output, maker, notes)
        # Where it is used, not where it was made.
        plan.notes, plan._images = json.loads(json.dumps(notes)), images
        return plan

    _images = None

    @property
    def images(self):
        """The collection of the images.

        Raises:
            ValueError: If the source is no longer what the plan was made for.
        """
        if self._images is None:
            images = open_collection(self.notes["images"])
            if images.describe()["digest"] != self.maker["listing"]:
                raise ValueError(
                    f"Expected the source of the plan in {self.path}, {len(self)} "
                    f"images. Received: {self.notes['images']}, which has changed "
                    f"since: {len(images)} images"
                )
            self._images = images
        return self._images

    def plain(self):
        """Arguments of `worker.Worker`, which other processes take."""
        return str(self.path), self.maker, self.notes, self.images

    @property
    def model(self):
        """`ModelSource` of the model."""
        from keras_attn.training.adoption import ModelSource

        fields = {name: self.notes[name] for name in _SOURCE_FIELDS}
        size = fields.pop("size")
        return ModelSource(self.notes["model"], size=size and tuple(size), **fields)

    @property
    def suffix(self):
        return f".{self.kind}"

    def layout(self, count):
        texts = {name: ("str", (count,)) for name in formats.TEXTS}
        return texts | {
            name: (dtype, (count, *shape))
            for name, (dtype, shape) in self.columns.items()
        }

    def encode(self, file, arrays):
        formats.write(self.kind, file, arrays)

    def decode(self, path):
        return formats.read(self.kind, path, self.columns)

    # ---- attempts --------------------------------------------------------------------

    def attempts(self):
        """`Counter` of the attempts at each shard, by its start, that did not end."""
        folder = self.path / self.FOLDER
        names = os.listdir(folder) if folder.is_dir() else ()
        starts = (name.partition("-")[0] for name in names)
        return collections.Counter(int(start) for start in starts if start.isdigit())

    @contextlib.contextmanager
    def attempt(self, shard):
        """Context of computing a shard; only what ends the process leaves a trace."""
        folder = self.path / self.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / f"{shard.start:08}-{this_process()}-{uuid.uuid4().hex}"
        mark.touch()
        try:
            yield
        except MemoryError:
            # It ends the worker.
            raise
        except BaseException:
            mark.unlink(missing_ok=True)
            raise
        mark.unlink(missing_ok=True)

    def forget(self, writer="", shards=None):
        """Drops the traces of a process, or those of all attempts at some shards."""
        folder = self.path / self.FOLDER
        starts = None if shards is None else {shard.start for shard in shards}
        for mark in folder.iterdir() if folder.is_dir() else ():
            start = int(mark.name.partition("-")[0])
            own = not writer or f"-{writer}-" in mark.name
            if own and (starts is None or start in starts):
                mark.unlink(missing_ok=True)

    def clean(self, writer):
        """Deletes what a process left that was ended while it wrote."""
        for partial in self.path.glob(f".*.{writer}.partial"):
            partial.unlink(missing_ok=True)

    def state(self, part=(1, 1)):
        """The `State` of the job, or of one of several parts of its shards."""
        number, parts = part
        shards = self.shards()[number - 1 :: parts]
        present = {entry.name for entry in os.scandir(self.path)}
        missing = [shard for shard in shards if shard.path.name not in present]
        counts = self.attempts()
        aside = [shard for shard in missing if counts[shard.start] >= ATTEMPTS]
        waiting = [shard for shard in missing if counts[shard.start] < ATTEMPTS]
        # One that ended a worker keeps no other waiting.
        waiting.sort(key=lambda shard: counts[shard.start])
        return State(images_in(shards), waiting, aside)


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a job.

    Args:
        images: Number of all images.
        waiting: `Shard`s that are still to be computed.
        aside: `Shard`s that are set aside, since they ended `ATTEMPTS` workers.
    """

    images: int
    waiting: list
    aside: list

    @property
    def done(self):
        """Number of images whose results are there."""
        return self.images - images_in(self.waiting) - images_in(self.aside)

    def to_dict(self):
        """The same as plain data."""
        return {
            "images": self.images,
            "done": self.done,
            "waiting": images_in(self.waiting),
            "aside": [shard.path.name for shard in self.aside],
        }

    def named_aside(self):
        """A sentence that names the shards that are set aside, or an empty text."""
        if not self.aside:
            return ""
        names = ", ".join(shard.path.name for shard in self.aside)
        return (
            f"Set aside, since each ended {ATTEMPTS} workers: {names} "
            f"({images_in(self.aside)} images). --retry tries them again."
        )


def images_in(shards):
    return sum(shard.stop - shard.start for shard in shards)


def this_process():
    """Text that tells apart the processes of several hosts."""
    return f"{socket.gethostname()}-{os.getpid()}"


def _complete(task, settings, tasks):
    """All settings of a task.

    Raises:
        ValueError: For one that it does not have.
    """
    defaults = tasks[one_of("task", task, tuple(tasks))].settings
    unknown = sorted(set(settings) - set(defaults))
    if unknown:
        raise ValueError(
            f"Expected settings of {task}: {', '.join(defaults) or 'none'}. "
            f"Received: {', '.join(unknown)}"
        )
    return {**defaults, **settings}


def _places(model, source):
    """Paths of a `ModelSource` and of images, as other processes find them."""
    places = {name: getattr(model, name) for name in _SOURCE_FIELDS}
    if isinstance(model.classes, (str, os.PathLike)):
        places["classes"] = os.path.abspath(model.classes)
    path, source = os.fspath(model.path), os.fspath(source)
    # Networks have names, and elsewhere is a URL.
    places["model"] = os.path.abspath(path) if os.path.exists(path) else path
    places["images"] = source if "://" in source else os.path.abspath(source)
    return places
