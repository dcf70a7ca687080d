"""Contents of a data set."""

from keras_attn.training.commands.arguments import (
    add_data,
    add_depth,
    add_output,
    add_set,
)


def add(command):
    added = command(data, "count a data set's classes and draw a contact sheet")
    added.add_argument("name", metavar="NAME", help="generated, cifar10, folder, ...")
    add_data(added, on_corrupt=True)
    add_depth(added)
    add_output(added, "the picture", metavar="PNG", default="contact_sheet.png")
    added.add_argument("--examples-per-class", type=int, default=10, metavar="N")
    added.add_argument("--split", help="a named split, to count its parts")
    add_set(added, "options of the generated data set: examples, image_size, ...")


def data(arguments):
    from keras_attn.training.data.describe import describe

    print(
        describe(
            arguments.name,
            arguments.data,
            arguments.output,
            arguments.examples_per_class,
            arguments.split,
            arguments.on_corrupt,
            arguments.set,
            int(arguments.depth or 0),
        )
    )
