"""Fine-tuning of a trained classifier on images of one's own."""

import dataclasses
import shlex

from keras_attn.training.commands.arguments import (
    add_depth,
    add_on_corrupt,
    add_recipe_set,
    progress_to,
)
from keras_attn.training.commands.hosts import joined
from keras_attn.training.commands.train import add_run, changed, run_recipe


def add(command):
    added = command(finetune, "fine-tune a trained classifier on a folder of images")
    add_images_and_model(added)
    added.add_argument(
        "--block",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME[@LAYER]",
        help="put blocks into it (behind its last map); @auto: behind every stage",
    )
    added.add_argument("--pooling", metavar="NAME", help="pool its last map so")
    added.add_argument(
        "--prompts",
        choices=("deep", "shallow"),
        help="train a prompt per class in a frozen vit, and nothing else",
    )
    add_run(added)

    added = command(compare, "find out whether a block helps on a folder of images")
    add_images_and_model(added)
    added.add_argument(
        "--blocks",
        nargs="+",
        default=["none", "squeeze_excitation", "cbam", "class_embedding"],
        metavar="NAME[@LAYER]",
        help="blocks to compare with the first (none squeeze_excitation cbam "
        "class_embedding)",
    )
    added.add_argument("--seeds", type=int, default=3, help="number of seeds (3)")
    added.add_argument(
        "--first-seed",
        type=int,
        default=0,
        metavar="SEED",
        help="first of the seeds (0); new ones confirm an earlier comparison",
    )
    added.add_argument("--per-class", type=int, default=0, metavar="N", help=PER_CLASS)
    added.add_argument("--name", help="name of the comparison (that of the images)")
    added.add_argument("--pooling", metavar="NAME", help="pool the last map so")
    added.add_argument("--epochs", metavar="N", help="as --set epochs=N")
    added.add_argument("--workdir", default="runs", help="folder of the runs (runs)")
    added.add_argument("--results", default="results", help="folder (results)")
    add_depth(added)
    add_recipe_set(added)


PER_CLASS = "training images of each class that are used (all)"


def add_images_and_model(added):
    """Adds the images, the model to start from, and how it takes them."""
    added.add_argument(
        "data", metavar="PHOTOS", help="folder or archive of CLASS/*.jpg"
    )
    added.add_argument(
        "--from",
        dest="model",
        metavar="MODEL",
        required=True,
        help="folder of a run, model file, network of keras.applications, or handle",
    )
    added.add_argument("--pixels", help="pixels that it takes, see adopt")
    added.add_argument(
        "--head", "--select", metavar="OUTPUT", help="its output with the scores"
    )
    add_on_corrupt(added)


def finetune(arguments):
    options = {"blocks": ",".join(arguments.block), "pooling": arguments.pooling or ""}
    if arguments.prompts:
        if any(options.values()):
            raise ValueError(
                "Expected --prompts, or --block and --pooling. Received: both"
            )
        options = {"method": "prompt_cam", "variant": arguments.prompts}
    with joined(arguments):
        run_recipe(changed(own_recipe(arguments, **options), arguments), arguments)


def compare(arguments):
    from keras_attn.training.data.own import own_name
    from keras_attn.training.experiments import compare as experiment

    count = arguments.per_class
    own = own_name(arguments.data) + (f"_{count}_per_class" if count else "")
    name, arguments.name = arguments.name or own, None
    options = {"pooling": arguments.pooling or "", "patience": 0}
    recipe = own_recipe(arguments, train_per_class=count, **options)
    if recipe.split != "official":
        # Nothing is chosen by a validation: the last epoch is judged.
        recipe = dataclasses.replace(recipe, split="pooled_80_20")
    recipe = changed(recipe, arguments)
    with progress_to(arguments):
        path = experiment.compare(
            recipe,
            arguments.blocks,
            arguments.data,
            name,
            arguments.workdir,
            arguments.results,
            arguments.seeds,
            arguments.on_corrupt,
            _command(arguments, recipe),
            arguments.first_seed,
        )
    print(experiment.format_table(experiment.table(path, arguments.blocks)))
    print(f"\nTable, plot and page: {path.with_suffix('')}.md, .png, .html")


def _command(arguments, recipe):
    """The command with what was given, without the places of files."""
    words = ["keras-attn", "compare", "PHOTOS", "--from", recipe.backbone, "--blocks"]
    words += [*arguments.blocks, "--seeds", str(arguments.seeds)]
    for option in (
        "first_seed",
        "pixels",
        "head",
        "per_class",
        "pooling",
        "epochs",
        "set",
    ):
        if value := getattr(arguments, option):
            values = value if isinstance(value, list) else [str(value)]
            words += [f"--{option.replace('_', '-')}", *values]
    return shlex.join(words)


def own_recipe(arguments, **options):
    """The recipe that fits the images and the model of `add_images_and_model`."""
    from keras_attn.training.data.own import finetune_recipe

    return finetune_recipe(
        arguments.data,
        arguments.model,
        arguments.on_corrupt,
        int(arguments.depth or 0),
        pixels=arguments.pixels or "",
        output=arguments.head or "",
        **options,
    )
