"""Files that appear only when they are complete."""

import os
import pathlib


def partial_path(path):
    """Where a file is written before it gets its name."""
    return path.with_name(f".{path.name}.partial")


class write_then_rename:
    """Context of a binary file that appears under its name only when complete.

    Written beside the target, flushed to the disk, then renamed over it: whatever
    happens, the target is the old file or the new one.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.temporary = partial_path(self.path)

    def __enter__(self):
        self.file = open(self.temporary, "wb")
        return self.file

    def __exit__(self, kind, error, traceback):
        complete = False
        try:
            # Closing writes what is buffered, so on a full disk it fails too.
            with self.file:
                if kind is None:
                    self.file.flush()
                    os.fsync(self.file.fileno())
            complete = kind is None
        finally:
            if complete:
                os.replace(self.temporary, self.path)
            else:
                self.temporary.unlink(missing_ok=True)
        return False
