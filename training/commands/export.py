"""Exports for TensorFlow Serving, ONNX, LiteRT and OpenVINO."""

from keras_attn.training.commands.arguments import add_model, add_output, source_of

SAVED = {
    "help": "folder of all served models (saved_models)",
    "metavar": "FOLDER",
    "default": "saved_models",
}


def add(command):
    added = command(export, "write a model that is served without this package")
    add_model(added)
    added.add_argument("--name", help="name of the served model")
    added.add_argument("--version", type=int, help="version number (the next one)")
    add_output(added, **SAVED)
    added.add_argument(
        "--format",
        nargs="+",
        default=["saved_model"],
        choices=("saved_model", "onnx", "litert", "openvino", "preset"),
        help="one or several formats (saved_model)",
    )

    added = command(promote, "label the newest version of a served model as stable")
    added.add_argument("names", metavar="NAME", nargs="+")
    add_output(added, **SAVED)


def export(arguments):
    from keras_attn.training.serving.export import export_formats

    written = export_formats(
        source_of(arguments),
        name=arguments.name,
        version=arguments.version,
        output=arguments.output,
        checkpoint=arguments.checkpoint,
        formats=arguments.format,
    )
    for folder in written.values():
        print(folder)


def promote(arguments):
    from keras_attn.training.serving.configs import write_models_config

    print(write_models_config(arguments.output, arguments.names))
