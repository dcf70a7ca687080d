"""Hiding of what TensorFlow, Keras and Pillow log."""

import contextlib
import logging
import os
import re
import signal
import sys
import warnings

# Lines of C++ code that inform or repeat what is known; errors and other output stay.
NOISE = re.compile(
    rb"[IW]\d{4} |\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] |"
    rb"WARNING: All log messages before absl::|.*Unable to register cu\w+ factory|"
    rb"To enable the following instructions: "
)
# Of Keras, TensorFlow and Pillow; no user of a command can act on them.
WARNINGS = (
    "Gradients do not exist for variables",
    "`shuffle=True` was passed",
    "Your input ran out of data",
    "Truncated File Read",
    "Corrupt EXIF data",
    "Possibly corrupt EXIF data",
)


def hide_noise():
    """Hides what users cannot act on, from now on: see `NOISE` and `WARNINGS`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    warnings.formatwarning = _one_line
    # Its warnings are about retracing and how functions are made into graphs.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules and hasattr(os, "fork"):
        sys.meta_path.insert(0, _Tensorflow())


def _one_line(message, *_):
    """A warning without the line of code that it comes from."""
    return f"warning: {' '.join(str(message).split())}\n"


class _Tensorflow:
    """Finder that imports TensorFlow with the noise filtered from stderr."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader.exec_module = _filtered(spec.loader.exec_module)
                return spec
        return None


def _filtered(execute):
    def exec_module(module):
        with filtered_stderr():
            execute(module)

    return exec_module


@contextlib.contextmanager
def filtered_stderr():
    """Context in which lines of `NOISE` do not reach stderr, even from C++ code.

    A process of its own filters them, so that the message of a crash gets through.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _filter(reader, writer, stderr)
    os.close(reader)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        os.waitpid(child, 0)


def _filter(reader, writer, stderr):
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for other in (0, 1, writer):
            os.close(other)
        with os.fdopen(reader, "rb") as lines:
            for line in lines:
                if not NOISE.match(line):
                    os.write(stderr, line)
    finally:
        os._exit(0)
