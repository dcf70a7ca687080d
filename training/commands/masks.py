"""Attention maps of whole data sets."""

from keras_attn.pipelines.progress import counted
from keras_attn.training.commands.arguments import (
    add_data,
    add_json,
    add_output,
    add_set,
    print_result,
    report_skipped,
)


def add(command):
    added = command(masks, "compute the attention maps of a data set and keep them")
    added.add_argument(
        "model",
        metavar="WORKDIR|MODEL",
        help="a transformer, or a model from images to maps: a run, file or preset",
    )
    added.add_argument(
        "dataset", metavar="DATA", help="name of a data set, or a folder of images"
    )
    add_output(added, "folder of the maps", metavar="FOLDER", required=True)
    add_data(added, on_corrupt=True)
    added.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side of the images, a recipe's image_size (their own)",
    )
    added.add_argument(
        "--network-size",
        type=int,
        metavar="PIXELS",
        help="side that they are enlarged to (the model's)",
    )
    added.add_argument(
        "--crop-fraction",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="central part of the images, a recipe's crop_fraction (1)",
    )
    added.add_argument(
        "--storage", choices=("uint8", "float16"), default="uint8", help="(uint8)"
    )
    add_heads(added)
    add_set(added, "options of the generated data set: examples, image_size, ...")
    add_json(added)


def add_heads(added):
    added.add_argument(
        "--heads",
        default="all",
        metavar="all|objects|INDEX",
        help="heads of a transformer that are averaged: all of the last block, those "
        "that see objects, or indices in the last block such as 0,2 (all)",
    )


def masks(arguments):
    from keras_attn.training.data.attention_maps import format_summary, masks

    try:
        summary, problems = masks(
            arguments.model,
            arguments.dataset,
            arguments.output,
            data=arguments.data,
            size=arguments.size,
            network_size=arguments.network_size,
            crop_fraction=arguments.crop_fraction,
            storage=arguments.storage,
            heads=arguments.heads,
            on_corrupt=arguments.on_corrupt,
            assignments=arguments.set,
            progress=counted("Described"),
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "Interrupted. The finished maps are kept; the same command resumes."
        ) from None
    report_skipped(problems)
    print_result(arguments, summary, format_summary)
