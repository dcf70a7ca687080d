"""The search of a recipe's hyperparameters."""

import pathlib
import shlex

from keras_attn.training.commands.arguments import (
    add_data,
    add_json,
    add_recipe_set,
    note,
    print_result,
)


def add(command):
    added = command(
        tune, "search a recipe's hyperparameters: at random, then around the best"
    )
    added.add_argument("recipe", metavar="RECIPE")
    added.add_argument("--workdir", help="folder of the search (runs/RECIPE_tuned)")
    added.add_argument("--trials", type=int, default=20, help="random trials (20)")
    added.add_argument(
        "--grid", type=int, default=9, help="limit of the trials on the grid (9)"
    )
    added.add_argument(
        "--search",
        nargs="+",
        action="extend",
        metavar="KEY=LOW:HIGH|A,B",
        help="fields to search (learning_rate, weight_decay, decay_factor, batch_size)",
    )
    added.add_argument(
        "--seed", type=int, default=0, help="seed of the random trials (0)"
    )
    add_data(added, on_corrupt=True)
    add_recipe_set(added)
    add_json(added)


def tune(arguments):
    from keras_attn.training.fit.tune import format_summary, tune
    from keras_attn.training.recipes.registry import get_recipe
    from keras_attn.training.recipes.schema import apply_overrides

    folder = arguments.workdir or pathlib.Path("runs", f"{arguments.recipe}_tuned")
    try:
        summary = tune(
            apply_overrides(get_recipe(arguments.recipe), arguments.set),
            folder,
            data=arguments.data,
            trials=arguments.trials,
            grid=arguments.grid,
            space=arguments.search,
            seed=arguments.seed,
            on_corrupt=arguments.on_corrupt,
            report=lambda line: note(arguments, line),
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Interrupted. Trials in {folder} are kept; repeat the command to resume."
        ) from None
    print_result(arguments, summary, format_summary)
    if arguments.set and not arguments.json:
        print("with --set " + shlex.join(arguments.set))
