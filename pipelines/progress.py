"""Lines of progress on stderr."""

import contextvars
import sys
import time

# Set by commands that print results and errors only.
QUIET = contextvars.ContextVar("quiet", default=False)
# Seconds between two states, on a terminal and elsewhere.
TERMINAL, ELSEWHERE = 0.1, 10


def counted(activity, least=1):
    """Function of the images done and their number that shows the progress.

    A terminal has one line of it, other outputs one now and then and a last one.

    Args:
        activity: Word before the numbers, `Decoded`.
        least: Number of images from which on it is shown.
    """
    last = time.monotonic()

    def show(done, total):
        nonlocal last
        terminal, now = sys.stderr.isatty(), time.monotonic()
        due = now - last >= (TERMINAL if terminal else ELSEWHERE)
        if QUIET.get() or total < least or not (due or done == total):
            return
        last = now
        end = "\r" if terminal and done < total else "\n"
        text = f"{activity} {done} of {total} images"
        print(text, end=end, file=sys.stderr, flush=True)

    return show
