"""Models for TensorFlow Serving."""

from training.commands.arguments import (
    add_model,
)


def add(command):
    added = command(export, "write a SavedModel that TensorFlow alone can serve")
    add_model(added)
    added.add_argument("--name", help="name of the served model")
    added.add_argument("--version", type=int, help="version number (the next one)")
    added.add_argument("--output", default="saved_models", help="(saved_models)")


def export(arguments):
    from training.serving.export import export

    target = export(
        arguments.model,
        arguments.name,
        arguments.version,
        arguments.output,
        arguments.checkpoint,
    )
    print(
        f"{target}\nSignatures: serving_default (image_bytes: encoded files), "
        "images (images: raw pixels)"
    )
