"""Answers of a trained model, and their accuracy."""

import sys

from keras_attn.training.commands.arguments import (
    add_data,
    add_images,
    add_json,
    add_model,
    add_split,
    note,
    print_result,
    report_skipped,
    source_of,
)


def add(command):
    added = command(evaluate, "accuracy and cross-entropy of a trained model")
    add_model(added)
    add_data(added, on_corrupt=True)
    add_split(added)
    add_json(added)

    added = command(predict, "classes of images")
    add_model(added)
    add_images(added)
    added.add_argument("--top", type=int, default=5, help="classes per image (5)")
    add_json(added)


def evaluate(arguments):
    from keras_attn.training.evaluation.evaluate import (
        OTHER_DATA,
        evaluate,
        format_evaluation,
    )

    result = evaluate(
        source_of(arguments),
        split=arguments.split,
        data=arguments.data,
        dataset=arguments.dataset,
        checkpoint=arguments.checkpoint,
        on_corrupt=arguments.on_corrupt,
    )
    if arguments.split is None and result["split"] != "test":
        note(arguments, f"No test images; evaluated on split {result['split']!r}.")
    if result["same_data"] is False:
        print(OTHER_DATA, file=sys.stderr)
    print_result(arguments, result, format_evaluation)


def predict(arguments):
    from keras_attn.training.evaluation.predict import format_predictions, predict

    predictions, problems = predict(
        source_of(arguments, says=False),
        arguments.images,
        top=arguments.top,
        checkpoint=arguments.checkpoint,
        on_corrupt=arguments.on_corrupt,
        say=lambda text: note(arguments, text),
    )
    report_skipped(problems)
    print_result(arguments, predictions, format_predictions)
