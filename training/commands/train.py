"""Training: recipes, one run, and the rows of a table."""

import dataclasses
import fnmatch
import itertools
import json
import pathlib

from keras_attn.training.commands.arguments import (
    add_data,
    add_depth,
    add_json,
    add_recipe_set,
    add_source,
    is_model_name,
    progress_to,
    source_of,
)
from keras_attn.training.commands.hosts import add_hosts, joined

# Options of `train` and the fields of a recipe that they set.
PLAIN = {"epochs": "epochs", "batch_size": "batch_size", "depth": "depth"}


def add(command):
    from keras_attn.training.recipes.options import method_names
    from keras_attn.training.recipes.registry import DEFAULT

    added = command(recipes, "list recipes and experiments, or one recipe's fields")
    added.add_argument(
        "recipe", metavar="RECIPE|PATTERN", nargs="?", help="such as '*resnet*' (all)"
    )
    added.add_argument("--method", choices=method_names(), help="those of a method")

    added = command(summary, "parameters, multiply-adds and maps of a network")
    added.add_argument(
        "recipe", metavar="RECIPE|MODEL", help="recipe, or a trained model of anybody's"
    )
    add_data(added)
    add_recipe_set(added)
    add_source(added)
    add_json(added)

    added = command(train, "train a recipe, or resume where its training stopped")
    added.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help=f"({DEFAULT}; with --data one that fits the images)",
    )
    add_data(added, on_corrupt=True)
    add_run(added)

    added = command(reproduce, "train the rows of a table or figure of a paper")
    added.add_argument("name", metavar="NAME")
    add_data(added, on_corrupt=True)
    added.add_argument("--workdir", default="runs", help="folder of the runs (runs)")
    added.add_argument("--results", default="results", help="folder (results)")
    added.add_argument("--seeds", type=int, default=1, help="number of seeds (1)")
    added.add_argument("--rows", nargs="+", metavar="ROW", help="(all)")
    add_recipe_set(added)

    added = command(demo, "a preset on photographs, then a short training")
    added.add_argument("--workdir", default="runs/demo", help="(runs/demo)")


def add_run(added):
    """Adds the arguments of a command that trains one run."""
    added.add_argument("--workdir", help="folder of the run (runs/NAME)")
    added.add_argument("--name", help="name of the run (that of the recipe)")
    added.add_argument("--epochs", metavar="N", help="as --set epochs=N")
    added.add_argument("--batch-size", metavar="N", help="as --set batch_size=N")
    add_depth(added)
    add_recipe_set(added)
    added.add_argument(
        "--mixed-precision",
        action="store_true",
        help="compute in bfloat16, as --set dtype_policy=mixed_bfloat16",
    )
    add_hosts(added)


def recipes(arguments):
    from keras_attn.training.recipes.registry import EXPERIMENTS, RECIPES, get_recipe
    from keras_attn.training.recipes.schema import described

    pattern, method = arguments.recipe or "*", arguments.method
    if pattern in RECIPES:
        found = described(get_recipe(pattern))
        _print_table([("FIELD", "VALUE", "MEANING"), *found])
        return
    shown = {}
    for recipe in RECIPES.values():
        if _matches(recipe.name, pattern) and method in (None, recipe.method):
            shown.setdefault(recipe.method, []).append(recipe)
    experiments = [
        name
        for name in EXPERIMENTS
        if _matches(name, pattern) and name.startswith(method or "")
    ]
    if not shown and not experiments:
        # Names the nearest.
        get_recipe(pattern)
    columns = ("name", "dataset", "backbone", "row", "epochs")
    lines = []
    for name, each in sorted(shown.items()):
        lines += [
            ("",) * 5,
            (f"RECIPE: {name}", "DATA SET", "BACKBONE", "ROW", "EPOCHS"),
        ]
        lines += [
            tuple(str(getattr(one, column)) for column in columns) for one in each
        ]
    _print_table(lines[1:])
    if experiments:
        print("\nEXPERIMENT (keras-attn reproduce)")
        print("\n".join(experiments))


def _matches(name, pattern):
    """True for a name with this part, or of this pattern with `*` and `?`."""
    return fnmatch.fnmatchcase(name, pattern) or pattern in name


def _print_table(lines):
    if not lines:
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def summary(arguments):
    from keras_attn.training.recipes.registry import RECIPES

    if arguments.recipe not in RECIPES and is_model_name(arguments.recipe):
        from keras_attn.training.fit.summary import format_summary, summarize_model

        if arguments.data or arguments.set:
            raise ValueError(
                "Expected --data and --set with a recipe. "
                f"Received: the model {arguments.recipe}"
            )
        result = summarize_model(source_of(arguments, arguments.recipe))
    else:
        recipe = _recipe(arguments)
        from keras_attn.training.fit.summary import format_summary, summarize

        result = summarize(recipe, arguments.data)
    print(json.dumps(result, indent=2) if arguments.json else format_summary(result))


def train(arguments):
    with joined(arguments):
        run_recipe(_recipe(arguments), arguments)


def run_recipe(recipe, arguments):
    """Trains a recipe, with the arguments of `add_run`, and names the next commands."""
    from keras_attn.training.fit.train import train as train_recipe
    from keras_attn.training.methods import method_of
    from keras_attn.training.runs import hosts
    from keras_attn.training.runs.card import accuracies
    from keras_attn.training.runs.environment import next_command
    from keras_attn.training.runs.state import load_progress

    folder = pathlib.Path(arguments.workdir or pathlib.Path("runs", recipe.name))
    with progress_to(arguments):
        run = train_recipe(
            recipe, folder, arguments.data, on_corrupt=arguments.on_corrupt
        )
    progress = load_progress(run.checkpoints / "last.npz")
    if not hosts.group().is_first:
        return
    print(f"\nModel: {run.model_path('best')}")
    for title, which, epoch, percent in accuracies(progress):
        print(f"{title}, {which} epoch ({epoch}): {percent:.2f} %")
    if arguments.quiet:
        return
    print("Next:")
    data = ["--data", arguments.data] if arguments.data else []
    known = {
        "{run}": [run.workdir],
        "{data}": data,
        "{dataset}": [recipe.dataset],
        "{image}": [_an_image(arguments.data)],
    }
    for command in method_of(recipe).next_commands:
        words = [known.get(word, [word]) for word in command.split()]
        print("  " + next_command(*itertools.chain(*words)))


def _an_image(data):
    """The first image of a folder, or what stands for one."""
    from keras_attn.pipelines.images.headers import SUFFIXES

    files = sorted(pathlib.Path(data or "").glob("*/**/*")) if data else []
    return next((f for f in files if f.suffix.lower() in SUFFIXES), "IMAGE_OR_FOLDER")


def reproduce(arguments):
    from keras_attn.training.experiments.reproduce import reproduce

    with progress_to(arguments):
        reproduce(
            arguments.name,
            data=arguments.data,
            workdir=arguments.workdir,
            results_folder=arguments.results,
            seeds=arguments.seeds,
            rows=arguments.rows,
            overrides=arguments.set,
            on_corrupt=arguments.on_corrupt,
        )


def demo(arguments):
    from keras_attn.training.demo import demo

    with progress_to(arguments):
        demo(arguments.workdir)


def _recipe(arguments):
    from keras_attn.training.recipes.registry import DEFAULT, get_recipe

    assignments = arguments.set
    named = any(each.startswith("dataset=") for each in assignments)
    if arguments.recipe or not arguments.data or named:
        recipe = get_recipe(arguments.recipe or DEFAULT)
    else:
        from keras_attn.training.data.own import own_data_recipe

        recipe = own_data_recipe(
            arguments.data, arguments.on_corrupt, int(arguments.depth or 0)
        )
    return changed(recipe, arguments)


def changed(recipe, arguments):
    """The recipe with what the arguments change in it."""
    from keras_attn.training.recipes.schema import apply_overrides

    given, assignments = vars(arguments), list(arguments.set)
    for option, key in PLAIN.items():
        if given.get(option) is not None:
            assignments.append(f"{key}={given[option]}")
    if given.get("mixed_precision"):
        assignments.append("dtype_policy=mixed_bfloat16")
    recipe = apply_overrides(recipe, assignments)
    name = given.get("name")
    return dataclasses.replace(recipe, name=name) if name else recipe
