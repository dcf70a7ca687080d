"""The models of a folder: found, loaded, replaced and let go while requests run."""

import contextlib
import dataclasses
import gc
import re
import threading
import time

from keras_attn.training.serving.server.errors import ServingError
from keras_attn.training.serving.server.loaded_model import SavedModel

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Names of a version's states in TensorFlow Serving.
START, LOADING, AVAILABLE = "START", "LOADING", "AVAILABLE"
UNLOADING, END = "UNLOADING", "END"


@dataclasses.dataclass
class Version:
    """The state of one version of a model.

    Args:
        state: Name of the state in TensorFlow Serving.
        model: `SavedModel` while it is available.
        error: `ServingError` of a load that failed.
        leases: Requests that use the model now.
        seen: State of the files at the last look.
        tried: State of the files when loading them was last tried.
        gone: Time since when its folder is not there.
    """

    state: str = START
    model: SavedModel | None = None
    error: ServingError | None = None
    leases: int = 0
    seen: tuple = ()
    tried: tuple | None = None
    gone: float | None = None


class Repository:
    """Serves the latest versions in `FOLDER/NAME/VERSION/`, and those with a label.

    A version is loaded and warmed up beside the served one, which then finishes its
    requests and is unloaded. A version that cannot be loaded is reported and tried
    again when its files have changed; until then the old one stays. So does the last
    one of a model whose folder vanishes, for some time.

    Args:
        folder: `pathlib.Path`.
        latest: Number of the latest versions to serve.
        report: Function that is called with a line of text on every event.
        load: Function of name, version and folder that returns the model.
        read_labels: Function of the folder that returns a dict from the names of models
            to dicts from labels to versions; a ValueError leaves them as they were.
        keep_seconds: Seconds that the last version is served without its folder.
    """

    def __init__(
        self,
        folder,
        latest=1,
        report=print,
        load=SavedModel,
        read_labels=lambda folder: {},
        keep_seconds=30.0,
    ):
        self.folder = folder
        self.latest = latest
        self._report = report
        self._load = load
        self._read_labels = read_labels
        self._keep_seconds = keep_seconds
        self._labels = {}
        self._problems = {}
        self._models = {}
        self._lock = threading.Lock()

    # ---- for requests ----------------------------------------------------------------

    @contextlib.contextmanager
    def lease(self, name, version=None):
        """Context with the loaded model, which is kept until its end.

        Args:
            name: Name of the model.
            version: Number of the version; by default the latest.

        Raises:
            ServingError: If it is not served.
        """
        with self._lock:
            entry = self._available(name, version)
            entry.leases += 1
            model = entry.model
        try:
            yield model
        finally:
            with self._lock:
                entry.leases -= 1

    def version_of(self, name, label):
        """Number of the version with that label."""
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise ServingError(
                "INVALID_ARGUMENT", f"Unrecognized servable version label: {label}"
            )
        return version

    def statuses(self, name, version=None):
        """`(number, state, ServingError or None)` of a model, the latest first."""
        with self._lock:
            versions = self._models.get(name, {})
            if not versions:
                raise ServingError(
                    "NOT_FOUND", f"Could not find any versions of model {name}"
                )
            if version is not None and version not in versions:
                raise ServingError(
                    "NOT_FOUND", f"Could not find version {version} of model {name}"
                )
            return [
                (number, versions[number].state, versions[number].error)
                for number in sorted(versions, reverse=True)
                if version in (None, number)
            ]

    def available(self):
        """Pairs `(name, version)` of the served versions."""
        with self._lock:
            return [
                (name, number)
                for name in sorted(self._models)
                for number in self._numbers(name)
            ]

    def _available(self, name, version):
        numbers = self._numbers(name)
        if version is None and numbers:
            return self._models[name][numbers[0]]
        if version in numbers:
            return self._models[name][version]
        which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise ServingError("NOT_FOUND", f"Servable not found for request: {which}")

    def _numbers(self, name):
        """Versions that are served, the latest first."""
        versions = self._models.get(name, {})
        served = (n for n in versions if versions[n].state == AVAILABLE)
        return sorted(served, reverse=True)

    # ---- for the thread that watches the folder --------------------------------------

    def watch(self, seconds, stop):
        """Polls the folder until it is stopped.

        Args:
            seconds: Seconds between two polls.
            stop: `threading.Event` that ends it.
        """
        while not stop.wait(seconds):
            try:
                self.poll(stop=stop)
            except OSError as error:
                self._once("", f"Cannot look into {self.folder}: {error}")

    def poll(self, settled=False, stop=None):
        """Looks at the folder once: loads new versions and unloads old ones.

        Args:
            settled: Whether to load new versions at once; by default only those whose
                files have not changed since the last look, so that one that is being
                copied waits.
            stop: `threading.Event` that ends it between two loads.
        """
        found = self._found()
        self._once("", None)
        try:
            self._labels = self._read_labels(self.folder)
            self._once("/labels", None)
        except (OSError, ValueError) as error:
            self._once("/labels", str(error))
        for name, folders in found.items():
            served = 0
            for number in sorted(folders, reverse=True):
                wanted = served < self.latest or number in self._labelled(name)
                if wanted and not (stop and stop.is_set()):
                    served += self._consider(name, number, folders[number], settled)
        for name in list(self._models):
            if not self._problems.get(name):
                self._retire(name, found.get(name, {}))
        self._let_go()

    def _once(self, what, problem):
        """Reports a problem unless it is the last one of the same thing."""
        if problem and problem != self._problems.get(what):
            self._report(problem)
        self._problems[what] = problem

    def _labelled(self, name):
        return self._labels.get(name, {}).values()

    def close(self):
        """Unloads all models."""
        with self._lock:
            self._models.clear()

    def _found(self):
        found = {}
        for folder in sorted(self.folder.iterdir()):
            if not NAME.fullmatch(folder.name) or not folder.is_dir():
                continue
            try:
                versions = {
                    int(inside.name): inside
                    for inside in folder.iterdir()
                    if re.fullmatch(r"[0-9]{1,18}", inside.name) and inside.is_dir()
                }
                self._once(folder.name, None)
            except OSError as error:
                self._once(folder.name, f"Cannot look into {folder}: {error}")
                continue
            if versions:
                found[folder.name] = versions
        return found

    def _consider(self, name, number, folder, settled):
        """Loads a version if it is time to, and returns whether it is served."""
        with self._lock:
            entry = self._models.setdefault(name, {}).setdefault(number, Version())
            if entry.state == UNLOADING:
                return False
        available = entry.state == AVAILABLE
        if available and entry.gone is None:
            return True
        files = _state_of_files(folder)
        if available and files == entry.tried:
            entry.gone = None
            return True
        changing, entry.seen = entry.seen != files and not settled, files
        if changing or entry.tried == files:
            return available
        entry.tried = files
        if not available:
            self._set(entry, LOADING)
        try:
            model = self._load(name, number, folder)
        except Exception as error:  # A broken SavedModel fails in many ways.
            known = isinstance(error, ServingError)
            text = str(error).strip().split("\n")[0][:300] or type(error).__name__
            entry.error = error if known else ServingError("INTERNAL", text)
            if not available:
                self._set(entry, END)
            self._report(f"Cannot load {name}, version {number}: {text}")
            return available
        with self._lock:
            entry.model, entry.error, entry.state = model, None, AVAILABLE
            entry.gone = None
        self._report(f"Serving {name}, version {number}")
        return True

    def _set(self, entry, state):
        with self._lock:
            entry.state = state

    def _retire(self, name, folders):
        """Ends versions that are too old, or whose folders are gone."""
        now = time.monotonic()
        with self._lock:
            versions = self._models[name]
            numbers = self._numbers(name)
            here = [number for number in numbers if number in folders]
            for number in numbers:
                entry = versions[number]
                if number in folders:
                    old = number in here[self.latest :]
                    old = old and number not in self._labelled(name)
                else:
                    entry.gone = now if entry.gone is None else entry.gone
                    # Another takes its place first, or none comes.
                    old = here or now - entry.gone >= self._keep_seconds
                if old:
                    entry.state = UNLOADING
            for number, entry in list(versions.items()):
                if number not in folders and entry.state in (START, END):
                    del versions[number]
            if not versions:
                del self._models[name]

    def _let_go(self):
        """Unloads versions that have ended, once their requests are finished."""
        with self._lock:
            ended = [
                (name, number, entry)
                for name, versions in self._models.items()
                for number, entry in versions.items()
                if entry.state == UNLOADING and not entry.leases
            ]
            for _, _, entry in ended:
                entry.model, entry.state, entry.tried = None, END, None
        if ended:
            gc.collect()
        for name, number, _ in ended:
            self._report(f"Stopped serving {name}, version {number}")


def _state_of_files(folder):
    """Names, sizes and times of all files, to see whether they change."""
    files = []
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):
            facts = path.stat()
            files.append((str(path), facts.st_size, facts.st_mtime_ns))
    return tuple(files)
