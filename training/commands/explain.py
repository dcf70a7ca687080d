"""Pictures of what a trained model sees."""

import json
import sys

from keras_attn.training.commands.arguments import (
    add_images,
    add_json,
    add_model,
    add_output,
    report_skipped,
)


def add(command):
    added = command(explain, "maps of classes drawn over images, as PNG")
    add_model(added)
    add_images(added)
    add_output(added, "folder of the pictures", metavar="FOLDER", required=True)
    which = added.add_mutually_exclusive_group()
    which.add_argument("--classes", nargs="+", help="names of the classes to draw")
    which.add_argument("--top", type=int, default=3, help="or the most probable (3)")
    added.add_argument(
        "--method",
        # As `keras_attn.training.explain.saliency.METHODS`, which would load Keras.
        choices=(
            "auto",
            "grad_cam",
            "grad_cam_plus_plus",
            "cam",
            "rollout",
            "occlusion",
        ),
        default="auto",
        help="what the model itself tells, or a method for any model (auto)",
    )
    added.add_argument(
        "--layer",
        metavar="NAME",
        help="layer for grad_cam..., such as backbone/conv5_block3_out (the last map)",
    )
    added.add_argument(
        "--pixels",
        choices=("0..255", "0..1", "-1..1"),
        default="0..255",
        help="values that a model of others wants (0..255)",
    )
    added.add_argument(
        "--metrics",
        action="store_true",
        help="measure the maps: metrics.json and metrics.md",
    )

    added = command(localize, "the patches that decide a class, as PNG and JSON")
    add_model(added)
    add_images(added)
    add_output(added, "folder of pictures and JSON", metavar="FOLDER", required=True)
    added.add_argument(
        "--max-patches",
        type=int,
        nargs="+",
        metavar="K",
        help="most patches of an image, one value or one a branch (the recipe's)",
    )
    added.add_argument(
        "--iou-threshold",
        type=float,
        metavar="T",
        help="patches overlap by less than this, 0 to 1 (the recipe's)",
    )
    added.add_argument(
        "--coverage",
        type=float,
        nargs="+",
        metavar="P",
        help="share of the cells to choose among, one value or one a branch",
    )
    add_json(added)


def explain(arguments):
    from keras_attn.training.explain.files import explain

    written, problems = explain(
        arguments.model,
        arguments.images,
        arguments.output,
        arguments.classes,
        arguments.top,
        arguments.checkpoint,
        arguments.on_corrupt,
        arguments.method,
        arguments.layer,
        arguments.pixels,
        arguments.metrics,
        say=lambda text: print(text, file=sys.stderr),
    )
    report_skipped(problems)
    for path in written:
        print(path)
    if arguments.metrics:
        print(f"\n{written[-1].read_text()}", end="")


def localize(arguments):
    from keras_attn.training.explain.localize import localize

    result, written, problems = localize(
        arguments.model,
        arguments.images,
        arguments.output,
        arguments.max_patches,
        arguments.iou_threshold,
        arguments.coverage,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    report_skipped(problems)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print("\n".join(map(str, written)))
