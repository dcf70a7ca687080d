"""What the commands share: the parser, and arguments and answers of several."""

import argparse
import difflib
import json
import sys


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors look like all others of the command."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message}\n")

    def _check_value(self, action, value):
        if action.choices is None or value in action.choices:
            return
        nearest = difflib.get_close_matches(str(value), action.choices, 1)
        hint = f" The nearest is {nearest[0]!r}." if nearest else ""
        raise argparse.ArgumentError(
            action,
            f"expected one of {', '.join(action.choices)}. Received: {value!r}.{hint}",
        )


class Commands:
    """Adds commands to a parser.

    Args:
        parser: `Parser`.
        metavar: What a command is called in the usage.
    """

    def __init__(self, parser, metavar="COMMAND"):
        self.parsers = parser.add_subparsers(
            metavar=metavar, dest=metavar.lower(), required=True
        )

    def __call__(self, function, text, name=None):
        """The parser of a command, to add its arguments to."""
        added = self.parsers.add_parser(
            name or function.__name__, help=text, description=text
        )
        added.set_defaults(run=function)
        added.add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
        return added

    def group(self, name, text):
        """`Commands` below a command."""
        added = self.parsers.add_parser(name, help=text, description=text)
        return Commands(added, "ACTION")


def add_data(added, on_corrupt=False):
    added.add_argument("--data", metavar="PATH", help="folder or archive of the images")
    if on_corrupt:
        add_on_corrupt(added)


def add_on_corrupt(added):
    added.add_argument(
        "--on-corrupt",
        choices=("error", "skip"),
        default="error",
        help="what an image does that cannot be decoded (error)",
    )


def add_set(added, text="change the recipe; may be repeated"):
    added.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=text,
    )


def add_json(added):
    added.add_argument("--json", action="store_true", help="print JSON")


def add_model(added):
    added.add_argument(
        "model", metavar="WORKDIR|MODEL.keras", help="folder of a run, or a model file"
    )
    added.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="which model of a run (best)",
    )


def add_images(added):
    added.add_argument("images", metavar="IMAGE", nargs="+", help="images or folders")
    add_on_corrupt(added)


def print_result(arguments, result, formatted):
    print(json.dumps(result, indent=2) if arguments.json else formatted(result))


def report_skipped(problems):
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)


def show_described(done, total):
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    text = f"Described {done} of {total} images"
    print(text, end=end, file=sys.stderr, flush=True)
