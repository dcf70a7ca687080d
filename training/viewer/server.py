"""Runs the page on this machine until Ctrl-C."""

import contextlib
import pathlib
import signal
import threading
import webbrowser

from keras_attn.pipelines.images.files import image_files
from keras_attn.training.adoption import ModelSource
from keras_attn.training.viewer.library import Library, find_runs

HOST = "127.0.0.1"
PORT = 7860
EXAMPLES_SHOWN = 12


def view(
    paths=(),
    index=None,
    examples=(),
    data=None,
    port=PORT,
    browser=True,
    checkpoint="best",
    runs="runs",
):
    """Shows models in the browser; returns after Ctrl-C.

    Args:
        paths: Run folders and `.keras` files; by default all runs below `runs`.
        index: Folder of an index to search, or `None`.
        examples: Images, and folders of images, to pick from; by default those that
            lie in a folder `images` beside a run.
        data: Path of the runs' data, for their mistakes.
        port: 0: any free one.
        browser: Whether to open it.
        checkpoint: `best` or `last` model of the runs.
        runs: Folder of the runs that are found by default.
    """
    server = make_server(paths, index, examples, data, port, checkpoint, runs)
    address = f"http://{HOST}:{server.server_address[1]}/"
    print(f"Viewer: {address}\nCtrl-C stops it.", flush=True)
    with _interrupted_by_sigterm(), contextlib.suppress(KeyboardInterrupt):
        if browser:
            opened = threading.Thread(target=webbrowser.open, args=(address,))
            opened.daemon = True
            opened.start()
        server.serve_forever()
    server.server_close()
    print("Stopped.", flush=True)


def make_server(
    paths=(),
    index=None,
    examples=(),
    data=None,
    port=PORT,
    checkpoint="best",
    runs="runs",
):
    """The server of the page, bound to its port; arguments as above.

    Raises:
        ImportError: If Flask is not installed.
        OSError: If the port is taken.
    """
    _require_flask()
    from werkzeug.serving import make_server

    from keras_attn.training.viewer.mistakes import Searches
    from keras_attn.training.viewer.neighbours import Neighbours
    from keras_attn.training.viewer.page import Viewer, make_app

    if not 0 <= port <= 65535:
        raise ValueError(f"Expected a port from 0 to 65535. Received: port={port}")
    library = Library(paths or find_runs(runs), checkpoint)
    chosen = image_files(examples or _images_beside(library.paths.values()))
    viewer = Viewer(
        library,
        Searches(library, data),
        _spread(chosen, EXAMPLES_SHOWN),
        None if index is None else Neighbours(index),
    )
    # Bound here: Werkzeug would end the process where the port is taken.
    listening = _bind(port)
    with listening:
        return make_server(
            HOST,
            listening.getsockname()[1],
            make_app(viewer),
            threaded=True,
            request_handler=_quiet_handler(),
            fd=listening.fileno(),
        )


def _bind(port):
    import socket

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise OSError(
            f"Port {port} is not available ({error.strerror}). --port names another "
            "one, --port 0 takes any that is free."
        ) from error
    listening.listen()
    return listening


def _quiet_handler():
    from werkzeug.serving import WSGIRequestHandler

    class Handler(WSGIRequestHandler):
        """Logs errors only."""

        # Seconds that a connection may stay silent.
        timeout = 60

        def log_request(self, code="-", size="-"):
            pass

    return Handler


def _images_beside(paths):
    """Folders `images` beside runs, such as the demo's."""
    places = [pathlib.Path(ModelSource.of(path).path) for path in paths]
    folders = {path.parent / "images" for path in places}
    return sorted(folder for folder in folders if folder.is_dir())


def _spread(files, count):
    """At most `count` of the files, evenly spread over the list."""
    step = max(1, len(files) / count)
    return [files[int(place * step)] for place in range(min(count, len(files)))]


@contextlib.contextmanager
def _interrupted_by_sigterm():
    """Makes SIGTERM stop the server as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _require_flask():
    try:
        import flask  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The viewer needs Flask: pip install 'keras-attn[view]'"
        ) from error
