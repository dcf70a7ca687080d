"""The command line: its arguments, and what happens to errors."""

import argparse
import difflib
import os
import sys

from training import commands

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


# ---- arguments -----------------------------------------------------------------------


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


def parser():
    """The parser of all commands."""
    from training.recipes import DEFAULT

    root = Parser(
        prog="keras-attn",
        description="Attention and localisation for image classifiers.",
    )
    added_commands = root.add_subparsers(
        metavar="COMMAND", dest="command", required=True
    )

    def command(function, text, *, name=None):
        added = added_commands.add_parser(
            name or function.__name__, help=text, description=text
        )
        added.set_defaults(run=function)
        added.add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
        return added

    command(commands.recipes, "list the recipes and the experiments")

    added = command(
        commands.summary, "parameters, multiply-adds and maps of a recipe's network"
    )
    added.add_argument("recipe", metavar="RECIPE")
    _add_data(added)
    _add_set(added)
    _add_json(added)

    added = command(
        commands.train, "train a recipe, or go on where its training stopped"
    )
    added.add_argument(
        "recipe", metavar="RECIPE", nargs="?", default=DEFAULT, help=f"{DEFAULT}"
    )
    added.add_argument("--workdir", help="folder of the run (runs/RECIPE)")
    _add_data(added, on_corrupt=True)
    _add_set(added)
    added.add_argument(
        "--mixed-precision",
        action="store_true",
        help="compute in bfloat16, as --set dtype_policy=mixed_bfloat16",
    )

    added = command(commands.evaluate, "accuracy and cross-entropy of a trained model")
    _add_model(added)
    _add_data(added, on_corrupt=True)
    added.add_argument("--dataset", help="name of the data set, if not the run's own")
    added.add_argument("--split", choices=("test", "validation", "train", "all"))
    _add_json(added)

    added = command(commands.predict, "classes of images")
    _add_model(added)
    _add_images(added)
    added.add_argument("--top", type=int, default=5, help="classes an image (5)")
    _add_json(added)

    added = command(commands.explain, "maps of classes drawn over images, as PNG")
    _add_model(added)
    _add_images(added)
    added.add_argument("--output", required=True, help="folder of the pictures")
    which = added.add_mutually_exclusive_group()
    which.add_argument("--classes", nargs="+", help="names of the classes to draw")
    which.add_argument("--top", type=int, default=3, help="or the most probable (3)")

    added = command(
        commands.localize, "the patches that decide a class, as PNG and JSON"
    )
    _add_model(added)
    _add_images(added)
    added.add_argument("--output", required=True, help="folder of pictures and JSON")
    added.add_argument(
        "--max-patches",
        type=int,
        nargs="+",
        metavar="K",
        help="most patches of an image, one value or one a branch (the recipe's)",
    )
    added.add_argument(
        "--iou-threshold",
        type=float,
        metavar="T",
        help="patches overlap by less than this, 0 to 1 (the recipe's)",
    )
    added.add_argument(
        "--coverage",
        type=float,
        nargs="+",
        metavar="P",
        help="share of the cells to choose among, one value or one a branch",
    )
    _add_json(added)

    added = command(
        commands.index, "describe all images of a folder, to be searched; again: update"
    )
    _add_model(added)
    added.add_argument("folder", metavar="FOLDER", help="of the images")
    added.add_argument("--out", required=True, metavar="INDEX", help="its folder")
    added.add_argument(
        "--index-type",
        choices=("flat", "float16", "ivf"),
        help="exact, exact in half the memory, or approximate (flat)",
    )
    _add_on_corrupt(added)
    _add_json(added)

    added = command(commands.search, "the images of an index most like the given ones")
    added.add_argument("index", metavar="INDEX", help="what `index` has made")
    _add_images(added)
    added.add_argument("--top", type=int, default=10, help="hits an image (10)")
    added.add_argument("--out", metavar="FOLDER", help="write contact sheets as PNG")
    added.add_argument(
        "--model",
        metavar="WORKDIR|MODEL.keras",
        help="the model that made the index, if it was moved",
    )
    _add_json(added)

    added = command(
        commands.retrieval, "mAP and mP@k by the protocol of revisited Oxford and Paris"
    )
    _add_model(added)
    added.add_argument("ground_truth", metavar="GROUND_TRUTH", help="JSON or pickle")
    added.add_argument(
        "--images", required=True, metavar="FOLDER", help="of the images"
    )
    added.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[1.0],
        metavar="S",
        help="scales whose descriptors are averaged, such as 1 1.4142 0.7071 (1)",
    )
    added.add_argument(
        "--longest-side",
        type=int,
        metavar="PIXELS",
        help="keep aspect ratios, at most this large (the model's own size)",
    )
    added.add_argument(
        "--whitening",
        metavar="FOLDER",
        help="other images, to learn a PCA whitening from",
    )
    added.add_argument(
        "--dimensions", type=int, metavar="D", help="kept by the whitening (all)"
    )
    _add_json(added)

    added = command(
        commands.masks, "compute the attention maps of a data set and keep them"
    )
    added.add_argument(
        "model",
        metavar="WORKDIR|MODEL.keras",
        help="of a transformer, or of what makes maps",
    )
    added.add_argument(
        "dataset", metavar="DATA", help="name of a data set, or a folder of images"
    )
    added.add_argument("--out", required=True, metavar="FOLDER", help="of the maps")
    _add_data(added, on_corrupt=True)
    added.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side of the images, a recipe's image_size (their own)",
    )
    added.add_argument(
        "--network-size",
        type=int,
        metavar="PIXELS",
        help="side that they are enlarged to (the model's)",
    )
    added.add_argument(
        "--crop-fraction",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="of a recipe (1)",
    )
    added.add_argument(
        "--storage", choices=("uint8", "float16"), default="uint8", help="(uint8)"
    )
    _add_set(added, "options of the generated data set: examples, image_size, ...")
    _add_json(added)

    added = command(
        commands.export, "write a SavedModel that TensorFlow alone can serve"
    )
    _add_model(added)
    added.add_argument("--name", help="name of the served model")
    added.add_argument("--version", type=int, help="version number (the next one)")
    added.add_argument("--output", default="saved_models", help="(saved_models)")

    added = command(
        commands.data, "count a data set's classes and draw a contact sheet"
    )
    added.add_argument("name", metavar="NAME", help="generated, cifar10, folder, ...")
    _add_data(added, on_corrupt=True)
    added.add_argument("--output", default="contact_sheet.png", help="the picture")
    added.add_argument("--examples-per-class", type=int, default=10, metavar="N")
    added.add_argument("--split", help="a named split, to count its parts")
    _add_set(added, "options of the generated data set: examples, image_size, ...")

    added = command(
        commands.reproduce, "train the rows of a table or figure of a paper"
    )
    added.add_argument("name", metavar="NAME")
    _add_data(added, on_corrupt=True)
    added.add_argument("--workdir", default="runs", help="folder of the runs (runs)")
    added.add_argument("--results", default="results", help="folder (results)")
    added.add_argument("--seeds", type=int, default=1, help="number of seeds (1)")
    added.add_argument("--rows", nargs="+", metavar="ROW", help="(all)")
    _add_set(added)

    _add_exit_policy(added_commands)

    added = command(
        commands.demo, "train, evaluate, explain and export on generated images"
    )
    added.add_argument("--workdir", default="runs/demo", help="(runs/demo)")
    return root


def _add_exit_policy(commands_of_root):
    text = "when to stop: policies for classifiers with early exits"
    group = commands_of_root.add_parser("exit-policy", help=text, description=text)
    actions = group.add_subparsers(metavar="ACTION", dest="action", required=True)

    def action(name, function, text):
        added = actions.add_parser(name, help=text, description=text)
        added.set_defaults(run=function)
        added.add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
        return added

    added = action(
        "fit", commands.exit_policy_fit, "fit the best policy of each budget"
    )
    added.add_argument("table", metavar="TABLE.npz")
    added.add_argument("--out", required=True, metavar="POLICY.json")
    added.add_argument("--points", type=int, default=40, help="number of budgets (40)")
    _add_json(added)

    added = action("evaluate", commands.exit_policy_evaluate, "its cost and accuracy")
    added.add_argument("policy", metavar="POLICY.json")
    added.add_argument("table", metavar="TABLE.npz")
    added.add_argument("--picture", metavar="PNG", help="draw the curve")
    _add_json(added)

    added = action(
        "judge", commands.exit_policy_judge, "fit on halves, judge on others"
    )
    added.add_argument("table", metavar="TABLE.npz")
    added.add_argument("--seeds", type=int, default=5, help="random halves (5)")
    added.add_argument("--results", default="results", help="folder (results)")

    added = action("table", commands.exit_policy_table, "run all exits on a data set")
    _add_early_exit(added)
    added.add_argument("--out", required=True, metavar="TABLE.npz")
    _add_data(added, on_corrupt=True)
    added.add_argument(
        "--split", choices=("train", "validation", "test"), default="validation"
    )

    added = action(
        "model", commands.exit_policy_model, "write a model that exits early"
    )
    _add_early_exit(added)
    added.add_argument("--policy", required=True, metavar="POLICY.json")
    added.add_argument("--budget", required=True, type=float, help="mean cost")
    added.add_argument("--out", required=True, metavar="MODEL.keras")


def _add_early_exit(added):
    _add_model(added)
    added.add_argument(
        "--resized",
        required=True,
        metavar="WORKDIR|MODEL.keras",
        help="network of the resized image",
    )


def _add_data(added, on_corrupt=False):
    added.add_argument("--data", metavar="PATH", help="folder or archive of the images")
    if on_corrupt:
        _add_on_corrupt(added)


def _add_on_corrupt(added):
    added.add_argument(
        "--on-corrupt",
        choices=("error", "skip"),
        default="error",
        help="what an image does that cannot be decoded (error)",
    )


def _add_set(added, text="change the recipe; may be repeated"):
    added.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=text,
    )


def _add_json(added):
    added.add_argument("--json", action="store_true", help="print JSON")


def _add_model(added):
    added.add_argument(
        "model", metavar="WORKDIR|MODEL.keras", help="folder of a run, or a model file"
    )
    added.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="which model of a run (best)",
    )


def _add_images(added):
    added.add_argument("images", metavar="IMAGE", nargs="+", help="images or folders")
    _add_on_corrupt(added)


def _is_expected(error):
    if isinstance(error, EXPECTED_ERRORS):
        return True
    # Only training raises it, so it is imported by then.
    callbacks = sys.modules.get("training.callbacks")
    return callbacks is not None and isinstance(error, callbacks.NotFiniteError)


if __name__ == "__main__":
    sys.exit(main())
