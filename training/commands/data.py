"""Contents of a data set."""

from keras_attn.pipelines.progress import counted
from keras_attn.training.commands.arguments import (
    add_data,
    add_depth,
    add_output,
    add_set,
)


def add(command):
    added = command(
        data, "count a data set's classes and draw a contact sheet, or check its images"
    )
    added.add_argument(
        "name",
        metavar="NAME|PATH",
        help="generated, cifar10, ..., or a folder of images",
    )
    add_data(added, on_corrupt=True)
    add_depth(added)
    added.add_argument(
        "--check",
        action="store_true",
        help="decode all images: damage, duplicates, balance; exit code 1 for faults",
    )
    add_output(
        added,
        "the picture (contact_sheet.png), or the page of --check (data_check.html)",
        metavar="FILE",
    )
    added.add_argument("--examples-per-class", type=int, default=10, metavar="N")
    added.add_argument("--split", help="a named split, to count its parts")
    add_set(added, "options of the generated data set: examples, image_size, ...")


def data(arguments):
    depth = int(arguments.depth or 0)
    if arguments.check:
        from keras_attn.training.data.check import check

        checked = check(
            arguments.name,
            arguments.data,
            arguments.output or "data_check.html",
            arguments.split,
            arguments.set,
            depth,
            counted("Decoded"),
        )
        print(checked.text)
        return int(bool(checked.faults))
    from keras_attn.training.data.describe import describe

    print(
        describe(
            arguments.name,
            arguments.data,
            arguments.output or "contact_sheet.png",
            arguments.examples_per_class,
            arguments.split,
            arguments.on_corrupt,
            arguments.set,
            depth,
        )
    )
