"""Parser of the command line, and arguments that several commands share."""

import argparse
import contextlib
import difflib
import io
import json
import os
import re
import sys
import textwrap

from keras_attn.training.choices import CHECKPOINTS, SPLITS


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors look like all others of the command."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)
        self.commands = None
        self.aliases = {}

    def add_argument(self, *names, choices=None, **options):
        """Adds an argument; a value outside of `choices` names the nearest choice."""
        if choices is not None:
            options.setdefault("metavar", f"{{{','.join(choices)}}}")
            options["type"] = one_of(choices)
        return super().add_argument(*names, **options)

    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else args
        args = _joined([self._without_alias(each) for each in args])
        command = next((each for each in args if not each.startswith("-")), None)
        if self.commands is not None and command is not None:
            try:
                one_of(self.commands.choices)(command)
            except argparse.ArgumentTypeError as error:
                self.error(f"argument {self.commands.metavar}: {error}")
        known, unknown = super().parse_known_args(args, namespace)
        if unknown and self.commands is None:
            # With the usage of this command, not of all of them.
            name = next((each for each in unknown if each.startswith("--")), "")
            hint = _nearest(name.partition("=")[0], self._option_string_actions)
            self.error(
                f"unrecognized arguments: {' '.join(unknown)}{hint and '.'}{hint}"
            )
        return known, unknown

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message}\n")

    def _without_alias(self, argument):
        name, equals, value = argument.partition("=")
        return self.aliases.get(name, name) + equals + value


def _joined(arguments):
    """Arguments in which a value such as `-1..1` does not look like an option."""
    joined = []
    for each in arguments:
        if joined and joined[-1] == "--pixels" and re.match(r"-\d", each):
            joined[-1] += f"={each}"
        else:
            joined.append(each)
    return joined


def one_of(choices):
    """The `type` of an argument with these values."""

    def check(value):
        if value in choices:
            return value
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(choices)}. Received: {value!r}."
            + _nearest(value, choices)
        )

    return check


def _nearest(value, names):
    nearest = difflib.get_close_matches(value, names, 1)
    return f" The nearest is {nearest[0]!r}." if nearest else ""


class Commands:
    """Adds commands to a parser.

    Args:
        parser: `Parser`.
        metavar: Name of a command in the usage.
    """

    def __init__(self, parser, metavar="COMMAND"):
        self.parsers = parser.add_subparsers(
            metavar=metavar, dest=metavar.lower(), required=True
        )
        parser.commands = self.parsers

    def __call__(self, function, text, name=None):
        """Adds a command that calls `function`; returns its parser."""
        added = self.parsers.add_parser(
            name or function.__name__, help=text, description=text
        )
        added.set_defaults(run=function)
        added.add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
        added.add_argument(
            "--quiet", action="store_true", help="print results and errors only"
        )
        return added

    def group(self, name, text):
        """`Commands` below a command."""
        added = self.parsers.add_parser(name, help=text, description=text)
        return Commands(added, "ACTION")


def add_output(added, help, metavar="PATH", **options):
    """Adds `--output`; `--out`, its name in earlier versions, still works."""
    added.add_argument("--output", metavar=metavar, help=help, **options)
    added.aliases["--out"] = "--output"


def add_data(added, on_corrupt=False):
    added.add_argument(
        "--data",
        metavar="PATH",
        help="folder, archive, tar shards, Parquet or URL of the images",
    )
    if on_corrupt:
        add_on_corrupt(added)


def add_depth(added):
    added.add_argument(
        "--depth",
        type=int,
        metavar="N",
        help="nested folders that name a class; folders below belong to it",
    )


def add_on_corrupt(added):
    added.add_argument(
        "--on-corrupt",
        choices=("error", "skip"),
        default="error",
        help="treatment of images that cannot be decoded (error)",
    )


def add_recipe_set(added):
    """Adds `--set` of a recipe, whose keys end the help."""
    from keras_attn.training.recipes.options import method_names
    from keras_attn.training.recipes.schema import field_types

    add_set(added, "change the recipe, keys below; may be repeated")
    keys = {name: field_types(name) for name in method_names()}
    shared = [
        key for key in keys[min(keys)] if all(key in own for own in keys.values())
    ]
    blocks = {"all recipes": shared}
    for name, own in keys.items():
        blocks[f"method {name}"] = [key for key in own if key not in shared]
    lines = [
        f"keys of --set, {title}: {', '.join(own)}" for title, own in blocks.items()
    ]
    added.formatter_class = argparse.RawDescriptionHelpFormatter
    added.epilog = "\n".join(
        textwrap.fill(line, 79, subsequent_indent="  ") for line in lines
    )


def add_set(added, text):
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


def add_model(added, of_others=True, classes=True):
    """Adds the model of a command.

    Args:
        of_others: Whether it may be one of others, see `add_source`.
        classes: See `add_source`.
    """
    added.add_argument(
        "model",
        metavar="WORKDIR|MODEL",
        help="folder of a run; a .keras or .h5 file; or a name, see `adopt`",
    )
    add_checkpoint(added)
    if of_others:
        add_source(added, classes)


def add_source(added, classes=True):
    """Adds what is known about a model of others, see `source_of`.

    Args:
        classes: Whether to add `--classes`, a file of names.
    """
    group = added.add_argument_group("models of others")
    if classes:
        group.add_argument(
            "--classes", metavar="NAMES.txt", help="file with a class name per line"
        )
    group.add_argument(
        "--pixels",
        metavar="RANGE",
        help="values that it takes: 0..255, 0..1, -1..1, imagenet, caffe, or MEAN/STD "
        "(0..255, or those of a network by name)",
    )
    group.add_argument(
        "--head",
        "--select",
        metavar="OUTPUT",
        help="output with the scores, of a model with several (logits)",
    )
    add_size(group)
    group.add_argument(
        "--several-labels",
        action="store_true",
        help="its logits are of labels that do not exclude each other",
    )
    group.add_argument(
        "--thresholds",
        default=(),
        metavar="FILE",
        help="least probability with which such labels are named: a number, or a JSON "
        "file as of evaluate --json (0.5)",
    )


def add_size(added):
    added.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="N",
        help="height and width of its images, where it leaves them open (224)",
    )


def source_of(arguments, path=None, says=True):
    """The `ModelSource` of a command's arguments.

    Args:
        path: In place of the argument `model`.
        says: Whether it says what is assumed; some commands do so themselves.
    """
    from keras_attn.training.adoption import ModelSource

    return ModelSource(
        path or arguments.model,
        arguments.classes,
        arguments.pixels,
        arguments.head,
        size_of(arguments),
        arguments.several_labels,
        arguments.thresholds,
        (lambda text: note(arguments, text)) if says else None,
    )


def is_model_name(text):
    """Tests whether a text that is no recipe can only name a model."""
    if "://" in text or os.path.exists(text) or text.endswith((".keras", ".h5")):
        return True
    from keras_attn.models import list_presets
    from keras_attn.training.adoption import applications

    return text.partition("=")[0].lower() in {*applications(), *list_presets()}


def size_of(arguments):
    """`(height, width)` of `--size`, or `None`."""
    size = arguments.size
    if size is None:
        return None
    if len(size) > 2 or min(size) < 1:
        raise ValueError(
            f"Expected one or two positive numbers of pixels. Received: --size {size}"
        )
    return tuple((size * 2)[:2])


def add_checkpoint(added):
    added.add_argument(
        "--checkpoint",
        choices=CHECKPOINTS,
        default="best",
        help="model of a run (best)",
    )


def add_split(added):
    """Adds `--dataset` and `--split` of the images that a model is evaluated on."""
    added.add_argument("--dataset", help="name of the data set, if not the run's own")
    added.add_argument(
        "--split",
        choices=SPLITS,
        help="images of the data set (test, if there are any)",
    )


def add_images(added):
    added.add_argument("images", metavar="IMAGE", nargs="+", help="images or folders")
    add_on_corrupt(added)


def progress_to(arguments):
    """Context in which lines of progress appear, unless `--quiet` was given."""
    if arguments.quiet:
        return contextlib.redirect_stdout(io.StringIO())
    return contextlib.nullcontext()


def note(arguments, text):
    """Prints a line on stderr that is no result."""
    if not arguments.quiet:
        print(text, file=sys.stderr, flush=True)


def print_result(arguments, result, formatted):
    print(json.dumps(result, indent=2) if arguments.json else formatted(result))


def report_skipped(problems):
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)
