"""What a trained model answers, and how often it is right."""

import json
import sys

from keras_attn.training.commands.arguments import (
    add_data,
    add_images,
    add_json,
    add_model,
    report_skipped,
)


def add(command):
    added = command(evaluate, "accuracy and cross-entropy of a trained model")
    add_model(added)
    add_data(added, on_corrupt=True)
    added.add_argument("--dataset", help="name of the data set, if not the run's own")
    added.add_argument("--split", choices=("test", "validation", "train", "all"))
    add_json(added)

    added = command(predict, "classes of images")
    add_model(added)
    add_images(added)
    added.add_argument("--top", type=int, default=5, help="classes an image (5)")
    add_json(added)


def evaluate(arguments):
    from keras_attn.training.evaluation.evaluate import evaluate, format_evaluation

    result = evaluate(
        arguments.model,
        arguments.split,
        arguments.data,
        arguments.dataset,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    if arguments.split is None and result["split"] != "test":
        print(
            f"No test images; evaluated on split {result['split']!r}.", file=sys.stderr
        )
    if result["same_data"] is False:
        print(
            "These are not the images that the run was trained on, so another split: "
            "some may have been trained on.",
            file=sys.stderr,
        )
    print(json.dumps(result, indent=2) if arguments.json else format_evaluation(result))


def predict(arguments):
    from keras_attn.training.evaluation.predict import format_predictions, predict

    predictions, problems = predict(
        arguments.model,
        arguments.images,
        arguments.top,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    report_skipped(problems)
    if arguments.json:
        print(json.dumps(predictions, indent=2))
    else:
        print(format_predictions(predictions))
