"""Start and end of the server."""

import asyncio
import contextlib
import os
import signal
import sys
import threading

from keras_attn.training.serving.configs import read_models_config
from keras_attn.training.serving.server import grpc_api
from keras_attn.training.serving.server.metrics import Metrics
from keras_attn.training.serving.server.repository import Repository
from keras_attn.training.serving.server.rest_api import RestApi, watch_connections
from keras_attn.training.serving.server.service import Service

# Python's default lets a thread that computes keep one that has just come back from
# TensorFlow waiting for 5 ms, the time of a small batch.
SWITCH_INTERVAL = 0.0005
# Seconds for a thread to end once nobody waits for it.
ENDING = 1.0
# Seconds for requests in progress after Ctrl-C; after SIGTERM it is `grace_seconds`.
INTERRUPTED_SECONDS = 1.5


class Server:
    """A server in this process; `start` and `stop` it in one event loop.

    Args:
        settings: `Settings`.
        report: Function that is called with a line of text on every event.

    Attributes:
        port, rest_port: Ports it listens at.
    """

    def __init__(self, settings, report=print):
        self.settings = settings
        self.port = self.rest_port = None
        self._report = report

    async def start(self):
        """Loads the models, then starts to listen.

        Raises:
            OSError: If there is no such folder, or a port is taken.
        """
        settings = self.settings
        settings.check_folder()
        metrics = Metrics()
        self.repository = Repository(
            settings.folder, settings.versions, self._report, read_labels=read_labels
        )
        await asyncio.to_thread(self.repository.poll, settled=True)
        self._service = Service(settings, self.repository, metrics, self._report)
        rest = RestApi(self._service)
        try:
            self._runner, self.rest_port = await rest.start()
            try:
                self._grpc, self.port = await grpc_api.start(self._service)
            except OSError:
                await self._runner.cleanup()
                raise
        except OSError:
            self._service.close(ENDING)
            raise
        self._connections = asyncio.create_task(
            watch_connections(
                self._runner, rest.busy, rest.since, settings.patience_seconds
            )
        )
        self._stop_watching = threading.Event()
        self._watcher = threading.Thread(
            target=self.repository.watch,
            args=(settings.poll_seconds, self._stop_watching),
            name="models",
            daemon=True,
        )
        self._watcher.start()

    async def stop(self):
        """Stops listening, finishes the requests in progress, and ends."""
        self._service.stopping = True
        self._connections.cancel()
        self._stop_watching.set()
        await asyncio.gather(
            self._grpc.stop(self.settings.grace_seconds), self._runner.cleanup()
        )
        await asyncio.to_thread(self._service.close, ENDING)
        await asyncio.to_thread(self._watcher.join, ENDING)
        self.repository.close()


@contextlib.contextmanager
def running(settings, report=print):
    """Context of a `Server` that listens, in a thread with an event loop of its own."""
    server = Server(settings, report)
    started, failed = threading.Event(), []

    async def serve(stop):
        try:
            await server.start()
        except BaseException as error:
            failed.append(error)
            return
        finally:
            started.set()
        await stop.wait()
        await server.stop()

    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(stop),))
    thread.start()
    started.wait()
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def read_labels(folder):
    """Labels of versions, from the configuration of TensorFlow Serving."""
    models = read_models_config(folder).model_config_list.config
    return {model.name: dict(model.version_labels) for model in models}


def serve(settings):
    """Serves until SIGTERM or SIGINT.

    Args:
        settings: `Settings`.
    """
    import tensorflow as tf

    sys.setswitchinterval(SWITCH_INTERVAL)
    # A request decodes up to ten images at a time, beside which others find a thread.
    threads = 16 + (os.cpu_count() or 1)
    with contextlib.suppress(RuntimeError):  # TensorFlow has started already.
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    asyncio.run(_serve(settings))


def _exit():
    """Ends the process at once: threads may still compute or load for minutes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _serve(settings):
    def report(line):
        print(line, flush=True)

    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def ask(number):
        # A second signal ends the process at once.
        for each in signals:
            loop.remove_signal_handler(each)
        if number == signal.SIGINT:
            loop.call_later(INTERRUPTED_SECONDS, _exit)
        asked.set()

    for number in signals:
        loop.add_signal_handler(number, ask, number)
    report(
        "This server is for development. In production use TensorFlow Serving, which "
        "reads the same folder."
    )
    server = Server(settings, report)
    starting = asyncio.create_task(server.start())
    waiting = asyncio.create_task(asked.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        _exit()
    await starting
    if not server.repository.available():
        report(f"No models yet; waiting for NAME/VERSION/ in {settings.folder}")
    host = settings.url_host
    report(f"gRPC at {host}:{server.port}")
    report(f"REST at http://{host}:{server.rest_port}/v1/models/NAME")
    report("Ctrl+C stops it.")
    await waiting
    report("Stopping: finishing the requests in progress.")
    await server.stop()
    _exit()
