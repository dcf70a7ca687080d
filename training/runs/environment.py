"""Commit, versions and hardware of a run."""

import importlib
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys

import keras
import numpy as np

from keras_attn.version import __version__


def commit():
    """The commit of the code that runs, `-dirty` if it was changed since.

    Installed code that is in no repository gives its version.
    """
    folder = pathlib.Path(__file__).parent

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        # An environment may lie inside somebody else's repository.
        git("ls-files", "--error-unmatch", pathlib.Path(__file__).name)
        revision = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
        return revision + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"


def versions():
    """Versions of Python and of the packages that compute."""
    backend = keras.backend.backend()
    module = importlib.import_module(backend)
    return (
        f"python {platform.python_version()}; keras {keras.__version__}; "
        f"{backend} {module.__version__}; numpy {np.__version__}"
    )


def hardware():
    """Accelerators, or the processor and its cores."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            details = tf.config.experimental.get_device_details(gpus[0])
            return f"{len(gpus)} x {details.get('device_name', 'GPU')}"
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def next_command(*words):
    """A command of `keras-attn` as a shell takes it.

    Where the shell does not find the program, it is named by its path.

    Args:
        *words: Command and arguments, quoted here.
    """
    program = pathlib.Path("keras-attn")
    beside = pathlib.Path(sys.executable).with_name(program.name)
    if shutil.which(program) is None and beside.is_file():
        folder = pathlib.Path.cwd()
        inside = beside.is_relative_to(folder)
        program = beside.relative_to(folder) if inside else beside
    return shlex.join(map(str, (program, *words)))
