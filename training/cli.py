"""The command line: its commands, and how it reports errors."""

import contextvars
import errno
import os
import sys

from keras_attn.pipelines.progress import QUIET
from keras_attn.training.commands import process
from keras_attn.training.noise import hide_noise

# Errors of the input or the surroundings; all others are defects, with a traceback.
EXPECTED_ERRORS = (ValueError, OSError, ImportError)
FULL_DISK = tuple(map(os.strerror, (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)))
ADVICE = "Free some space"
# Packages that are imported where they are used, and the extra that has them.
EXTRAS = {
    "train": ("tensorflow", "PIL", "matplotlib", "tensorboard", "jinja2"),
    "serving": (
        "tensorflow_serving",
        "grpc",
        "aiohttp",
        "orjson",
        "prometheus_client",
        "requests",
    ),
    "view": ("flask",),
    "ray": ("ray",),
    "jax": ("jax",),
    "torch": ("torch",),
}


def main(argv=None):
    """Runs one command.

    Args:
        argv: Arguments without the program's name; by default the process's.

    Returns:
        Exit code: 0; 2 for an error; 130 when interrupted.
    """
    with process.Interrupts(to_the_end=argv is None) as interrupts:
        try:
            words = sys.argv[1:] if argv is None else list(argv)
            # What one command sets, `--quiet`, ends with it.
            code = contextvars.copy_context().run(_run, words, interrupts)
        except KeyboardInterrupt:
            # While an error was reported.
            interrupts.report()
            code = process.INTERRUPTED
        if code == process.INTERRUPTED and argv is None:
            # Threads of an interrupted computation would keep the process alive.
            sys.stdout.flush()
            os._exit(code)
    return code


def _run(argv, interrupts):
    arguments = None
    try:
        hide_noise()
        arguments = parser().parse_args(argv)
        arguments.command_line = argv
        QUIET.set(arguments.quiet)
        # A command may start itself again.
        arguments.argv = argv
        return arguments.run(arguments) or 0
    except SystemExit as stop:
        return stop.code
    except KeyboardInterrupt as interrupt:
        interrupts.report(str(interrupt))
        return process.INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe left; keep Python from failing on it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if interrupts.count:
            # What an import or a computation made of the interrupt.
            interrupts.report()
            return process.INTERRUPTED
        if getattr(arguments, "debug", True) or not _is_expected(error):
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        return 2


def parser():
    """Makes the parser of all commands."""
    # Ctrl-C during this import is heard, too.
    from keras_attn.training.commands import add_all
    from keras_attn.training.commands.arguments import Commands, Parser
    from keras_attn.version import __version__

    root = Parser(
        prog="keras-attn",
        description="Attention and localisation for image classifiers.",
    )
    root.add_argument(
        "--version", action="version", version=f"keras-attn {__version__}"
    )
    add_all(Commands(root))
    return root


def _message(error):
    if _is_of_full_disk(error) and ADVICE not in str(error):
        return f"{' '.join(str(error).split())}. {ADVICE}, then repeat the command."
    if _is_of_memory(error):
        detail = " ".join(str(error).split())[:200]
        return f"Not enough memory for this model or these images. {detail}".strip()
    missing = (getattr(error, "name", None) or "").split(".")[0]
    for extra, modules in EXTRAS.items():
        if isinstance(error, ModuleNotFoundError) and missing in modules:
            return f'{missing} is not installed: pip install "keras-attn[{extra}]"'
    return error


def _is_of_full_disk(error):
    """True even where a library wraps the error of the system."""
    return any(text in str(error) for text in FULL_DISK)


def _is_of_memory(error):
    """True for the errors of Python, NumPy and TensorFlow."""
    name = type(error).__name__
    return isinstance(error, MemoryError) or name == "ResourceExhaustedError"


def _is_expected(error):
    if isinstance(error, EXPECTED_ERRORS):
        return True
    if _is_of_full_disk(error) or _is_of_memory(error):
        return True
    # Only training raises it, so it is imported by then.
    callbacks = sys.modules.get("keras_attn.training.fit.callbacks")
    return callbacks is not None and isinstance(error, callbacks.NotFiniteError)


if __name__ == "__main__":
    sys.exit(main())
