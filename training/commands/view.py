"""Models in the browser."""

from keras_attn.training.commands.arguments import add_checkpoint, add_source, source_of


def add(command):
    added = command(view, "explore models and their explanations in the browser")
    added.add_argument(
        "models",
        metavar="WORKDIR|MODEL",
        nargs="*",
        help="folders of runs, model files or names (all runs below runs/)",
    )
    add_checkpoint(added)
    add_source(added)
    added.add_argument(
        "--index", metavar="INDEX", help="show its nearest images; made by `index`"
    )
    added.add_argument(
        "--examples",
        nargs="+",
        default=(),
        metavar="IMAGE",
        help="images or folders to pick from (the folder images beside a run)",
    )
    added.add_argument(
        "--data", metavar="PATH", help="folder or archive of a run's images"
    )
    added.add_argument("--port", type=int, default=7860, help="(7860); 0: a free one")
    added.add_argument(
        "--no-browser", action="store_true", help="do not open the browser"
    )


def view(arguments):
    from keras_attn.training.viewer.server import view

    view(
        [source_of(arguments, path) for path in arguments.models],
        index=arguments.index,
        examples=arguments.examples,
        data=arguments.data,
        port=arguments.port,
        browser=not arguments.no_browser,
        checkpoint=arguments.checkpoint,
    )
