"""Explanations of a model's answers, as pictures."""

from keras_attn.training.commands.arguments import (
    add_images,
    add_json,
    add_model,
    add_output,
    note,
    print_result,
    report_skipped,
    source_of,
)
from keras_attn.training.explain.names import ALL, AUTO, METHODS, TITLES


def add(command):
    added = command(explain, "maps of classes drawn over images, as PNG")
    add_model(added, classes=False)
    add_images(added)
    add_output(added, "folder of the pictures", metavar="FOLDER", required=True)
    added.add_argument(
        "--classes",
        nargs="+",
        metavar="NAMES.txt|CLASS",
        help="file with a class name per line; or names of the classes to draw",
    )
    which = added.add_mutually_exclusive_group()
    which.add_argument(
        "--draw", nargs="+", metavar="CLASS", help="names of the classes to draw"
    )
    which.add_argument("--top", type=int, default=3, help="or the most probable (3)")
    added.add_argument(
        "--method",
        choices=METHODS,
        default=AUTO,
        help="the model's own maps, or a method for any model (auto)",
    )
    added.add_argument(
        "--layer",
        metavar="NAME",
        help="layer for grad_cam..., such as backbone/conv5_block3_out (the last map)",
    )
    added.add_argument(
        "--metrics",
        action="store_true",
        help="measure the maps: metrics.json and metrics.md",
    )
    added.add_argument(
        "--compare",
        nargs="+",
        choices=(*TITLES, ALL),
        metavar="METHOD",
        help="score several methods, or all, beside controls; draws nothing",
    )

    added = command(localize, "the patches that decide a class, as PNG and JSON")
    add_model(added, of_others=False)
    add_images(added)
    add_output(added, "folder of pictures and JSON", metavar="FOLDER", required=True)
    added.add_argument(
        "--max-patches",
        type=int,
        nargs="+",
        metavar="K",
        help="most patches per image, one value or one per branch (the recipe's)",
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
        help="share of the cells to choose among, one value or one per branch",
    )
    add_json(added)


def explain(arguments):
    from keras_attn.training.explain.files import explain

    if arguments.compare:
        return _compare(arguments)
    drawn = arguments.draw
    if arguments.classes and not _is_file(arguments.classes):
        drawn, arguments.classes = drawn or arguments.classes, None
    elif arguments.classes:
        (arguments.classes,) = arguments.classes
    written, problems = explain(
        source_of(arguments, says=False),
        arguments.images,
        arguments.output,
        classes=drawn,
        top=arguments.top,
        checkpoint=arguments.checkpoint,
        on_corrupt=arguments.on_corrupt,
        method=arguments.method,
        layer=arguments.layer,
        metrics=arguments.metrics,
        say=lambda text: note(arguments, text),
    )
    report_skipped(problems)
    for path in written:
        print(path)
    if arguments.metrics:
        print(f"\n{written[-1].read_text()}", end="")


def _compare(arguments):
    from keras_attn.training.explain.comparison import compare

    if arguments.metrics or arguments.method != AUTO or arguments.layer:
        raise ValueError(
            "Expected --compare, or --method, --layer and --metrics. Received: both"
        )
    if arguments.classes and _is_file(arguments.classes):
        (arguments.classes,) = arguments.classes
    _, written, problems = compare(
        source_of(arguments, says=False),
        arguments.images,
        arguments.output,
        arguments.compare,
        checkpoint=arguments.checkpoint,
        on_corrupt=arguments.on_corrupt,
        say=lambda text: note(arguments, text),
    )
    report_skipped(problems)
    print("\n".join(map(str, written)))
    print(f"\n{written[-1].read_text()}", end="")


def _is_file(classes):
    """Test for a file of names, rather than names of classes."""
    return len(classes) == 1 and classes[0].lower().endswith((".txt", ".json"))


def localize(arguments):
    from keras_attn.training.explain.localize import localize

    result, written, problems = localize(
        arguments.model,
        arguments.images,
        arguments.output,
        max_patches=arguments.max_patches,
        iou_threshold=arguments.iou_threshold,
        coverage=arguments.coverage,
        checkpoint=arguments.checkpoint,
        on_corrupt=arguments.on_corrupt,
    )
    report_skipped(problems)
    print_result(arguments, result, lambda _: "\n".join(map(str, written)))
