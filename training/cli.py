"""The command line: its commands, and what happens to errors."""

import os
import sys

from keras_attn.training.commands import add_all
from keras_attn.training.commands.arguments import Commands, Parser

# What a command may fail with through its input or its surroundings; all else is a
# defect and shows its traceback.
EXPECTED_ERRORS = (ValueError, OSError, ImportError)


def main(argv=None):
    """Runs one command.

    Args:
        argv: Arguments without the program's name; by default the process's.

    Returns:
        Exit code: 0; 2 for an error; 130 when interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code
    try:
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe left; keep Python from failing on it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if arguments.debug or not _is_expected(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def parser():
    """The parser of all commands."""
    root = Parser(
        prog="keras-attn",
        description="Attention and localisation for image classifiers.",
    )
    add_all(Commands(root))
    return root


def _is_expected(error):
    if isinstance(error, EXPECTED_ERRORS):
        return True
    # Only training raises it, so it is imported by then.
    callbacks = sys.modules.get("keras_attn.training.fit.callbacks")
    return callbacks is not None and isinstance(error, callbacks.NotFiniteError)


if __name__ == "__main__":
    sys.exit(main())
