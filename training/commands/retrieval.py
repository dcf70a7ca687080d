"""Search for images by images."""

import json
import sys

from keras_attn.pipelines.progress import counted
from keras_attn.training.choices import INDEX_METHODS, INDEX_TYPES
from keras_attn.training.commands.arguments import (
    add_images,
    add_json,
    add_model,
    add_on_corrupt,
    add_output,
    add_source,
    print_result,
    report_skipped,
    source_of,
)


def add(command):
    added = command(
        index, "describe all images of a folder, to be searched; again: update"
    )
    add_model(added)
    added.add_argument("folder", metavar="FOLDER", help="folder of the images")
    add_output(added, "folder of the index", metavar="INDEX", required=True)
    added.add_argument(
        "--index-type",
        choices=INDEX_TYPES,
        help="exact, exact in half the memory, or approximate (flat)",
    )
    added.add_argument(
        "--method",
        choices=INDEX_METHODS,
        help="one descriptor per image, or visual words of local ones (global)",
    )
    added.add_argument(
        "--words",
        type=int,
        metavar="N",
        help="number of visual words of asmk (one per 39 descriptors, at most 65536)",
    )
    add_on_corrupt(added)
    add_json(added)

    added = command(search, "the images of an index most like the given ones")
    added.add_argument("index", metavar="INDEX", help="folder that `index` made")
    add_images(added)
    added.add_argument("--top", type=int, default=10, help="hits per image (10)")
    add_output(added, "write contact sheets as PNG", metavar="FOLDER")
    added.add_argument(
        "--model",
        metavar="WORKDIR|MODEL",
        help="the model that made the index, if it was moved",
    )
    add_source(added)
    add_json(added)

    added = command(
        retrieval, "mAP and mP@k by the protocol of revisited Oxford and Paris"
    )
    add_model(added)
    added.add_argument("ground_truth", metavar="GROUND_TRUTH", help="JSON or pickle")
    added.add_argument(
        "--images", required=True, metavar="FOLDER", help="folder of the images"
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
            source_of(arguments),
            arguments.folder,
            arguments.output,
            index_type=arguments.index_type,
            checkpoint=arguments.checkpoint,
            on_corrupt=arguments.on_corrupt,
            progress=counted("Described"),
            method=arguments.method,
            words=arguments.words,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "Interrupted. What was described is kept; repeat to resume."
        ) from None
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
        top=arguments.top,
        output=arguments.output,
        model=source_of(arguments, says=False),
        on_corrupt=arguments.on_corrupt,
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
        source_of(arguments),
        arguments.ground_truth,
        arguments.images,
        scales=arguments.scales,
        longest_side=arguments.longest_side,
        whitening=arguments.whitening,
        dimensions=arguments.dimensions,
        checkpoint=arguments.checkpoint,
        progress=counted("Described"),
    )
    print_result(arguments, result, format_retrieval)
