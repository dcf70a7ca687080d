"""The process of a command: Ctrl-C, and what TensorFlow logs."""

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import time
import warnings

INTERRUPTED = 130
# Seconds for Python to end by itself after Ctrl-C.
GRACE = 1.2
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


class Interrupts:
    """Context in which Ctrl-C ends the process within two seconds.

    It raises `KeyboardInterrupt`, as usual. Code outside Python may not notice for
    long, so a thread that the signal wakes ends the process after `GRACE` seconds.
    A second Ctrl-C, and one during an import, which loses nothing, ends it at once.
    """

    def __init__(self):
        self.count = 0
        self.reported = False
        self.active = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )

    def __enter__(self):
        if self.active:
            # Where Python cannot raise it, such as in `__del__`.
            sys.unraisablehook = _unraisable
            reader, self.writer = os.pipe()
            os.set_blocking(self.writer, False)
            self.wakeup = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
            signal.signal(signal.SIGINT, self._interrupt)
            threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *error):
        if self.active:
            self.active = False
            sys.unraisablehook = sys.__unraisablehook__
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(self.wakeup)
            os.close(self.writer)

    def report(self, message=""):
        """Prints the one line of an interrupted command."""
        self.reported = True
        start = "\n" if sys.stderr.isatty() else ""
        print(start + (message or "Interrupted."), file=sys.stderr, flush=True)

    def _interrupt(self, number, frame):
        self.count += 1
        if self.count > 1 or _is_importing(frame):
            self._end()
        raise KeyboardInterrupt

    def _watch(self, reader):
        with os.fdopen(reader, "rb", buffering=0) as signals:
            while received := signals.read(64):
                if signal.SIGINT in received:
                    break
        if received:
            main = sys._current_frames()[threading.main_thread().ident]
            time.sleep(0 if _is_importing(main) else GRACE)
            if self.active:
                self._end()

    def _end(self):
        if not self.reported:
            os.write(2, b"\nInterrupted.\n" if os.isatty(2) else b"Interrupted.\n")
        os._exit(INTERRUPTED)


def _unraisable(error):
    if not issubclass(error.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(error)


def _is_importing(frame):
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


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
