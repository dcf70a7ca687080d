"""Progress of what a feed computes before the training."""

import sys


def shown(title):
    """A function of `(images done, images in all)` that prints them after a title."""

    def show(done, total):
        end = "\n" if done == total or not sys.stdout.isatty() else "\r"
        print(f"{title}: {done} of {total} images", end=end, flush=True)

    return show
