"""Places for blocks in a model."""

from keras_attn.training.commands.arguments import (
    add_json,
    add_model,
    add_size,
    print_result,
    size_of,
)


def add(command):
    added = command(places, "places for blocks in a model, and what each would cost")
    add_model(added, of_others=False)
    added.add_argument(
        "--blocks", nargs="+", metavar="NAME", help="names of blocks (all)"
    )
    add_size(added)
    add_json(added)


def places(arguments):
    from keras_attn.training.adoption import ModelSource
    from keras_attn.training.evaluation.places import find_places, format_places

    source = ModelSource(arguments.model, size=size_of(arguments))
    result = find_places(source, arguments.blocks, arguments.checkpoint)
    print_result(arguments, result, format_places)
