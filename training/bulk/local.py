"""Runner of a bulk job by processes of this machine."""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import wait

# Workers that end before their first shard, one after the other.
FAILED_STARTS = 3
VISIBLE = "CUDA_VISIBLE_DEVICES"


def start(connection, environment):
    """A worker's process, which has the other end of a connection; `subprocess.Popen`.

    In a group of its own, so that Ctrl-C reaches the driver alone.
    """
    number = connection.fileno()
    command = [sys.executable, "-m", "keras_attn.training.bulk.process", str(number)]
    return subprocess.Popen(
        command,
        pass_fds=[number],
        process_group=0,
        env={**os.environ, **environment},
    )


def visible_gpus():
    """Names of the GPUs that CUDA shows to this process."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [name for name in given.split(",") if name]
    import tensorflow as tf

    return [
        str(index) for index, _ in enumerate(tf.config.list_physical_devices("GPU"))
    ]


class LocalWorker:
    """A process with the connection to it, and the number of the shard it computes.

    Args:
        gpu: Name of the only GPU that it sees; `None`: it sees what there is.
    """

    def __init__(self, gpu=None):
        self.connection, other = multiprocessing.Pipe()
        self.gpu = gpu
        self.process = start(other, {} if gpu is None else {VISIBLE: gpu})
        other.close()
        self.begun = self.ready = False
        self.number = None

    def end(self):
        self.process.kill()
        self.process.wait()
        self.connection.close()


def run_local(queue, workers):
    """Computes the shards of a `keras_attn.training.bulk.run.Queue`.

    Args:
        workers: Number of processes. One that ends is replaced.

    Raises:
        ValueError: If a worker meets an error of the input or the surroundings.
        RuntimeError: For a defect, or if workers do not begin.
    """
    there, failed = [], 0
    gpus = visible_gpus() if workers > 1 else []
    try:
        while True:
            while len(there) < min(workers, queue.open()):
                used = [each.gpu for each in there]
                # With one GPU, or none, all see the same.
                gpu = min(gpus, key=used.count) if len(gpus) > 1 else None
                there.append(LocalWorker(gpu))
            if not there:
                return
            for connection in wait([each.connection for each in there]):
                (worker,) = (each for each in there if each.connection is connection)
                try:
                    raise_error(connection.recv())
                except (EOFError, ConnectionResetError):
                    failed = 0 if worker.ready else failed + 1
                    there.remove(worker)
                    _bury(queue, worker)
                    if failed == FAILED_STARTS:
                        raise RuntimeError(
                            f"Expected workers that begin. Received: {failed} that "
                            "ended while they loaded the model"
                        ) from None
                    continue
                if not worker.begun:
                    # Millions of names are sent once somebody reads them.
                    worker.begun = True
                    _send(worker, queue.plan.plain())
                    continue
                worker.ready, failed = True, 0
                if worker.number is not None:
                    queue.finished(worker.number)
                worker.number = queue.next()
                if worker.number is None:
                    there.remove(worker)
                    worker.end()
                else:
                    _send(worker, worker.number)
    finally:
        for worker in there:
            worker.end()
            queue.plan.forget(queue.writer(worker.process.pid))
            queue.plan.clean(queue.writer(worker.process.pid))


def _send(worker, message):
    try:
        worker.connection.send(message)
    except OSError:
        # It has ended; reading says so.
        pass


def _bury(queue, worker):
    worker.end()
    queue.plan.clean(queue.writer(worker.process.pid))
    if worker.number is not None:
        queue.died(worker.number)


def raise_error(answer):
    """Raises what a worker answered, if it is an error."""
    if answer is not None:
        message, expected = answer
        raise (ValueError if expected else RuntimeError)(message)
