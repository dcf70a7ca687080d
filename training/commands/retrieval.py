"""Finding images by images."""

import json
import sys

from keras_attn.training.commands.arguments import (
    add_images,
    add_json,
    add_model,
    add_on_corrupt,
    add_output,
    print_result,
    report_skipped,
    show_described,
)


def add(command):
    added = command(
        index, "describe all images of a folder, to be searched; again: update"
    )
    add_model(added)
    added.add_argument("folder", metavar="FOLDER", help="of the images")
    add_output(added, "folder of the index", metavar="INDEX", required=True)
    added.add_argument(
        "--index-type",
        choices=("flat", "float16", "ivf"),
        help="exact, exact in half the memory, or approximate (flat)",
    )
    add_on_corrupt(added)
    add_json(added)

    added = command(search, "the images of an index most like the given ones")
    added.add_argument("index", metavar="INDEX", help="what `index` has made")
    add_images(added)
    added.add_argument("--top", type=int, default=10, help="hits an image (10)")
    add_output(added, "write contact sheets as PNG", metavar="FOLDER")
    added.add_argument(
        "--model",
        metavar="WORKDIR|MODEL.keras",
        help="the model that made the index, if it was moved",
    )
    add_json(added)

    added = command(
        retrieval, "mAP and mP@k by the protocol of revisited Oxford and Paris"
    )
    add_model(added)
    added.add_argument("ground_truth", metavar="GROUND_TRUTH", help="JSON or pickle")
    added.add_argument(
        "--images", required=True, metavar="FOLDER", help="of the images"
    )
    added.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[1.0],
        metavar="S",
        help="scales whose descriptors are averaged, such as 1 1.4142 0.7071 (1)",
    )
    added.add_argument(
        "--longest-side",
        type=int,
        metavar="PIXELS",
        help="keep aspect ratios, at most this large (the model's own size)",
    )
    added.add_argument(
        "--whitening",
        metavar="FOLDER",
        help="other images, to learn a PCA whitening from",
    )
    added.add_argument(
        "--dimensions", type=int, metavar="D", help="kept by the whitening (all)"
    )
    add_json(added)


def index(arguments):
    from keras_attn.training.retrieval.index import format_summary, index_folder

    try:
        summary, problems = index_folder(
            arguments.model,
            arguments.folder,
            arguments.output,
            arguments.index_type,
            arguments.checkpoint,
            arguments.on_corrupt,
            show_described,
        )
    except KeyboardInterrupt:
        print("\nWhat was described is kept; repeat to go on.", file=sys.stderr)
        raise
    report_skipped(problems)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        print(f"{arguments.output}: {format_summary(summary)}")


def search(arguments):
    from keras_attn.training.retrieval.search import format_results, search

    results, written, problems = search(
        arguments.index,
        arguments.images,
        arguments.top,
        arguments.output,
        arguments.model,
        arguments.on_corrupt,
    )
    report_skipped(problems)
    print(json.dumps(results, indent=2) if arguments.json else format_results(results))
    for path in written:
        print(path, file=sys.stderr if arguments.json else sys.stdout)


def retrieval(arguments):
    from keras_attn.training.retrieval.revisited import (
        evaluate_retrieval,
        format_retrieval,
    )

    result = evaluate_retrieval(
        arguments.model,
        arguments.ground_truth,
        arguments.images,
        arguments.scales,
        arguments.longest_side,
        arguments.whitening,
        arguments.dimensions,
        arguments.checkpoint,
        show_described,
    )
    print_result(arguments, result, format_retrieval)
