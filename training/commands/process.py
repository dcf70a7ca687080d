"""The process of a command on Ctrl-C."""

import contextlib
import os
import signal
import sys
import threading
import time

INTERRUPTED = 130
# Seconds for Python to end by itself after Ctrl-C.
GRACE = 1.2


class Interrupts:
    """Context in which Ctrl-C ends the process within two seconds.

    It raises `KeyboardInterrupt`, as usual. Code outside Python may not notice for
    long, so a thread that the signal wakes ends the process after `GRACE` seconds.
    A second Ctrl-C, and one during an import, which loses nothing, ends it at once.

    Args:
        to_the_end: Whether one after the context ends the process too, which has
            nothing left to do then.
    """

    def __init__(self, to_the_end=False):
        self.count = 0
        self.to_the_end = to_the_end
        self.finished = False
        self.reported = False
        # Of the signal's handler and the thread, one reports.
        self.ending = threading.RLock()
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
        self.finished = True
        if self.active and not self.to_the_end:
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
        ended = self.finished and self.to_the_end
        if ended:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
        if ended or self.count > 1 or _is_importing(frame):
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
        with self.ending:
            if not self.reported:
                self.reported = True
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
