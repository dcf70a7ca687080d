"""A page about a trained model."""

from keras_attn.pipelines.progress import counted
from keras_attn.training.commands.arguments import (
    add_data,
    add_model,
    add_output,
    add_split,
    source_of,
)


def add(command):
    added = command(report, "one HTML page: accuracy, mistakes, calibration, recipe")
    add_model(added)
    add_data(added, on_corrupt=True)
    add_split(added)
    add_output(
        added,
        "the page (report.html in the run's folder, or beside the model file)",
        metavar="FILE.html",
    )
    added.add_argument(
        "--mistakes", type=int, default=12, help="worst mistakes to show, at most (12)"
    )


def report(arguments):
    from keras_attn.training.evaluation.report import write_report

    written = write_report(
        source_of(arguments),
        arguments.output,
        split=arguments.split,
        data=arguments.data,
        dataset=arguments.dataset,
        checkpoint=arguments.checkpoint,
        on_corrupt=arguments.on_corrupt,
        mistakes=arguments.mistakes,
        progress=counted,
    )
    print(written)
