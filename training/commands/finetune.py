"""Fine-tuning of a trained classifier on images of one's own."""

from keras_attn.training.commands.arguments import add_on_corrupt
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
    add_run(added)


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
    added.add_argument("--select", metavar="OUTPUT", help="its output with the scores")
    add_on_corrupt(added)


def finetune(arguments):
    options = {"blocks": ",".join(arguments.block), "pooling": arguments.pooling or ""}
    run_recipe(changed(own_recipe(arguments, **options), arguments), arguments)


def own_recipe(arguments, **options):
    """The recipe that fits the images and the model of `add_images_and_model`."""
    from keras_attn.training.data.own import finetune_recipe

    return finetune_recipe(
        arguments.data,
        arguments.model,
        arguments.on_corrupt,
        int(arguments.depth or 0),
        pixels=arguments.pixels or "",
        output=arguments.select or "",
        **options,
    )
