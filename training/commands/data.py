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
        data,
        "count a data set's classes and draw a contact sheet, check its images, or "
        "pack them into tar shards",
    )
    added.add_argument(
        "name",
        metavar="NAME|PATH|pack",
        help="generated, cifar10, ..., a folder of images, or pack and a folder",
    )
    added.add_argument(
        "folder", nargs="?", metavar="FOLDER", help="images to pack, with pack"
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
        "the picture (contact_sheet.png), the page of --check (data_check.html), or "
        "the folder of the shards",
        metavar="FILE",
    )
    added.add_argument(
        "--shard-size", type=int, metavar="N", help="images per shard (1000)"
    )
    added.add_argument("--examples-per-class", type=int, default=10, metavar="N")
    added.add_argument("--split", help="a named split, to count its parts")
    add_set(added, "options of the generated data set: examples, image_size, ...")


def data(arguments):
    depth = int(arguments.depth or 0)
    if arguments.folder is not None:
        return _pack(arguments, depth)
    if arguments.shard_size is not None:
        raise ValueError(
            "Expected --shard-size with pack FOLDER. Received: "
            f"--shard-size {arguments.shard_size}"
        )
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


def _pack(arguments, depth):
    from keras_attn.pipelines.sources.load import load_source
    from keras_attn.pipelines.sources.pack import SHARD, pack

    if arguments.name != "pack":
        raise ValueError(
            "Expected one name or path, or pack FOLDER. Received: "
            f"{arguments.name} {arguments.folder}"
        )
    if arguments.output is None:
        raise ValueError("Expected the folder of the shards: --output SHARDS")
    source = load_source("folder", arguments.folder, arguments.on_corrupt, depth=depth)
    size = SHARD if arguments.shard_size is None else arguments.shard_size
    paths = pack(source, arguments.output, size)
    print(
        f"{len(source)} images of {len(source.class_names)} classes in {len(paths)} "
        f"shards: {arguments.output}"
    )
    if source.left_out:
        print(f"Left out: {source.left_out}")
