"""Models for TensorFlow Serving, ONNX and LiteRT."""

from keras_attn.training.commands.arguments import add_model


def add(command):
    added = command(export, "write a model that is served without this package")
    add_model(added)
    added.add_argument("--name", help="name of the served model")
    added.add_argument("--version", type=int, help="version number (the next one)")
    _add_output(added)
    added.add_argument(
        "--format",
        nargs="+",
        default=["saved_model"],
        choices=("saved_model", "onnx", "litert"),
        help="one or several (saved_model)",
    )

    added = command(promote, "call the newest version of a served model the stable one")
    added.add_argument("names", metavar="NAME", nargs="+")
    _add_output(added)


def _add_output(added):
    added.add_argument(
        "--output",
        default="saved_models",
        metavar="FOLDER",
        help="of all models (saved_models)",
    )


def export(arguments):
    from keras_attn.training.serving.export import export_formats

    written = export_formats(
        arguments.model,
        arguments.name,
        arguments.version,
        arguments.output,
        arguments.checkpoint,
        arguments.format,
    )
    for folder in written.values():
        print(folder)


def promote(arguments):
    from keras_attn.training.serving.configs import write_models_config

    print(write_models_config(arguments.output, arguments.names))
