"""The command line: one thin function a command, over the Python API."""

import argparse
import difflib
import json
import os
import pathlib
import sys

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


# ---- commands ------------------------------------------------------------------------


def recipes(arguments):
    from training.recipes import EXPERIMENTS, RECIPES

    columns = ("name", "dataset", "backbone", "row", "epochs")
    lines = [("RECIPE", "DATA SET", "BACKBONE", "ROW", "EPOCHS")]
    lines += [
        tuple(str(getattr(recipe, column)) for column in columns)
        for recipe in RECIPES.values()
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())
    print("\nEXPERIMENT (keras-attn reproduce)")
    print("\n".join(EXPERIMENTS))


def summary(arguments):
    recipe = _recipe(arguments)
    from training.summary import format_summary, summarize

    result = summarize(recipe, arguments.data)
    print(json.dumps(result, indent=2) if arguments.json else format_summary(result))


def train(arguments):
    recipe = _recipe(arguments)
    from training import fit
    from training.resume import load_progress

    run = fit.train(
        recipe, _workdir(arguments), arguments.data, on_corrupt=arguments.on_corrupt
    )
    progress = load_progress(run.checkpoints / "last.npz")
    print(f"\nModel: {run.model_path('best')}")
    for which, epoch in (("best", progress.best_epoch), ("last", -1)):
        logs = progress.history[epoch]
        if "val_logits_accuracy" in logs:
            percent = 100 * logs["val_logits_accuracy"]
            print(
                f"Validation accuracy, {which} epoch ({logs['epoch']}): {percent:.2f} %"
            )
    data = f" --data {arguments.data}" if arguments.data else ""
    print(
        "Next:\n"
        f"  keras-attn evaluate {run.workdir}{data}\n"
        f"  keras-attn predict {run.workdir} IMAGE_OR_FOLDER\n"
        f"  keras-attn explain {run.workdir} IMAGE_OR_FOLDER --output explained\n"
        f"  keras-attn export {run.workdir}"
    )


def evaluate(arguments):
    from training.evaluate import evaluate, format_evaluation

    result = evaluate(
        arguments.model,
        arguments.split,
        arguments.data,
        arguments.dataset,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    if arguments.split is None and result["split"] != "test":
        print(
            f"No test images; evaluated on split {result['split']!r}.", file=sys.stderr
        )
    if result["same_data"] is False:
        print(
            "These are not the images that the run was trained on, so another split: "
            "some may have been trained on.",
            file=sys.stderr,
        )
    print(json.dumps(result, indent=2) if arguments.json else format_evaluation(result))


def predict(arguments):
    from training.predict import format_predictions, predict

    predictions, problems = predict(
        arguments.model,
        arguments.images,
        arguments.top,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    _report_skipped(problems)
    if arguments.json:
        print(json.dumps(predictions, indent=2))
    else:
        print(format_predictions(predictions))


def explain(arguments):
    from training.explain import explain

    written, problems = explain(
        arguments.model,
        arguments.images,
        arguments.output,
        arguments.classes,
        arguments.top,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    _report_skipped(problems)
    for path in written:
        print(path)


def export(arguments):
    from training.serving.export import export

    target = export(
        arguments.model,
        arguments.name,
        arguments.version,
        arguments.output,
        arguments.checkpoint,
    )
    print(
        f"{target}\nSignatures: serving_default (image_bytes: encoded files), "
        "images (images: raw pixels)"
    )


def data(arguments):
    from training.contents import describe

    print(
        describe(
            arguments.name,
            arguments.data,
            arguments.output,
            arguments.examples_per_class,
            arguments.split,
            arguments.on_corrupt,
            arguments.set,
        )
    )


def reproduce(arguments):
    from training.reproduce import reproduce

    reproduce(
        arguments.name,
        arguments.data,
        arguments.workdir,
        arguments.results,
        arguments.seeds,
        arguments.rows,
        arguments.set,
        arguments.on_corrupt,
    )


def demo(arguments):
    from training.demo import demo

    demo(arguments.workdir)


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
    commands = root.add_subparsers(metavar="COMMAND", dest="command", required=True)

    def command(function, text, *, name=None):
        added = commands.add_parser(
            name or function.__name__, help=text, description=text
        )
        added.set_defaults(run=function)
        added.add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
        return added

    command(recipes, "list the recipes and the experiments")

    added = command(summary, "parameters, multiply-adds and maps of a recipe's network")
    added.add_argument("recipe", metavar="RECIPE")
    _add_data(added)
    _add_set(added)
    _add_json(added)

    added = command(train, "train a recipe, or go on where its training stopped")
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

    added = command(evaluate, "accuracy and cross-entropy of a trained model")
    _add_model(added)
    _add_data(added, on_corrupt=True)
    added.add_argument("--dataset", help="name of the data set, if not the run's own")
    added.add_argument("--split", choices=("test", "validation", "train", "all"))
    _add_json(added)

    added = command(predict, "classes of images")
    _add_model(added)
    _add_images(added)
    added.add_argument("--top", type=int, default=5, help="classes an image (5)")
    _add_json(added)

    added = command(explain, "class maps drawn over images, as PNG")
    _add_model(added)
    _add_images(added)
    added.add_argument("--output", required=True, help="folder of the pictures")
    which = added.add_mutually_exclusive_group()
    which.add_argument("--classes", nargs="+", help="names of the classes to draw")
    which.add_argument("--top", type=int, default=3, help="or the most probable (3)")

    added = command(export, "write a SavedModel that TensorFlow alone can serve")
    _add_model(added)
    added.add_argument("--name", help="name of the served model")
    added.add_argument("--version", type=int, help="version number (the next one)")
    added.add_argument("--output", default="saved_models", help="(saved_models)")

    added = command(data, "count a data set's classes and draw a contact sheet")
    added.add_argument("name", metavar="NAME", help="generated, cifar10, folder, ...")
    _add_data(added, on_corrupt=True)
    added.add_argument("--output", default="contact_sheet.png", help="the picture")
    added.add_argument("--examples-per-class", type=int, default=10, metavar="N")
    added.add_argument("--split", help="a named split, to count its parts")
    _add_set(added, "options of the generated data set: examples, image_size, ...")

    added = command(reproduce, "train the rows of a table or figure of a paper")
    added.add_argument("name", metavar="NAME")
    _add_data(added, on_corrupt=True)
    added.add_argument("--workdir", default="runs", help="folder of the runs (runs)")
    added.add_argument("--results", default="results", help="folder (results)")
    added.add_argument("--seeds", type=int, default=1, help="number of seeds (1)")
    added.add_argument("--rows", nargs="+", metavar="ROW", help="(all)")
    _add_set(added)

    added = command(demo, "train, evaluate, explain and export on generated images")
    added.add_argument("--workdir", default="runs/demo", help="(runs/demo)")
    return root


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


# ---- helpers -------------------------------------------------------------------------


def _recipe(arguments):
    from training.recipe import apply_overrides
    from training.recipes import get_recipe

    assignments = list(arguments.set)
    if getattr(arguments, "mixed_precision", False):
        assignments.append("dtype_policy=mixed_bfloat16")
    return apply_overrides(get_recipe(arguments.recipe), assignments)


def _workdir(arguments):
    return pathlib.Path(arguments.workdir or pathlib.Path("runs", arguments.recipe))


def _report_skipped(problems):
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)


def _is_expected(error):
    if isinstance(error, EXPECTED_ERRORS):
        return True
    # Only training raises it, so it is imported by then.
    callbacks = sys.modules.get("training.callbacks")
    return callbacks is not None and isinstance(error, callbacks.NotFiniteError)


if __name__ == "__main__":
    sys.exit(main())
