"""A page about a trained model."""

import sys

from keras_attn.training.commands.arguments import add_data, add_model, add_output


def add(command):
    added = command(report, "one HTML page: how good a trained model is, and where not")
    add_model(added)
    add_data(added, on_corrupt=True)
    added.add_argument("--dataset", help="name of the data set, if not the run's own")
    added.add_argument("--split", choices=("test", "validation", "train", "all"))
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

    print(
        write_report(
            arguments.model,
            arguments.output,
            arguments.split,
            arguments.data,
            arguments.dataset,
            arguments.checkpoint,
            arguments.on_corrupt,
            arguments.mistakes,
            _show,
        )
    )


def _show(what, done, total):
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    if end == "\r" or done == total:
        print(f"{what} {done} of {total} images", end=end, file=sys.stderr, flush=True)
