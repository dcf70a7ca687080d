"""Anybody's classifier as a file that every command takes."""

from keras_attn.training.commands.arguments import (
    add_model,
    add_output,
    note,
    source_of,
)


def add(command):
    added = command(
        adopt,
        "a classifier of others with its class names and pixels, in one file; other "
        "commands take such a model with the same options too",
    )
    add_model(added)
    added.add_argument(
        "--images",
        nargs="+",
        default=(),
        metavar="IMAGE",
        help="photographs, or folders of them, to check the pixels with",
    )
    add_output(added, "the new file", metavar="FILE.keras", required=True)


def adopt(arguments):
    from keras_attn.training.evaluation.adopt import write_adopted

    written = write_adopted(
        source_of(arguments, says=False),
        arguments.output,
        arguments.images,
        checkpoint=arguments.checkpoint,
        say=lambda text: note(arguments, text),
    )
    print(written)
