"""Models in the browser."""


def add(command):
    added = command(view, "look at what models see, in the browser")
    added.add_argument(
        "models",
        metavar="WORKDIR|MODEL.keras",
        nargs="*",
        help="folders of runs, or model files (all runs below runs/)",
    )
    added.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="which model of a run (best)",
    )
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
        arguments.models,
        arguments.index,
        arguments.examples,
        arguments.data,
        arguments.port,
        not arguments.no_browser,
        arguments.checkpoint,
    )
