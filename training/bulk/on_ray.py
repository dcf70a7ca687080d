"""Runner of a bulk job by actors of Ray, on this machine or a cluster.

Every node has to see the plan's folder, the model and the images at the same paths.
"""

import contextlib
import logging
import os
import re
import socket

from keras_attn.training.bulk.local import FAILED_STARTS
from keras_attn.training.bulk.plan import this_process

# Seconds to wait for an answer from an address.
PATIENCE = 5


def require_ray():
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "Expected Ray, for --runner ray. Install it: pip install 'keras-attn[ray]'"
        ) from error
    return ray


class Actor:
    """A `Worker` in a process of Ray, its model loaded once."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def load(self):
        """Loads the model; the text that tells apart this process."""
        from keras_attn.training.bulk.worker import Worker

        self.worker = Worker(*self.arguments)
        return this_process()

    def compute(self, number):
        self.worker.compute(number)


def run_on_ray(queue, workers, address=None):
    """Computes the shards of a `keras_attn.training.bulk.run.Queue`.

    Each actor takes a shard when it is done with one. An actor that ends is replaced.

    Args:
        workers: Number of actors.
        address: See `connected`.

    Raises:
        ImportError: If Ray is missing.
        ValueError: If nothing answers at the address, or a worker meets an error of the
            input or the surroundings.
        RuntimeError: If workers do not begin.
    """
    ray = require_ray()
    with connected(address, workers):
        # The collection is sent to each node once.
        arguments = [ray.put(each) for each in queue.plan.plain()]
        # Ray hides GPUs that are not asked for.
        gpus = min(1, ray.cluster_resources().get("GPU", 0) / workers)
        make = ray.remote(max_restarts=0, num_cpus=1, num_gpus=gpus)(Actor).remote
        # What an actor does, to it and the number of its shard; none while it loads.
        running, writers, failed = {}, {}, 0
        try:
            while queue.open():
                while len(running) < min(workers, queue.open()):
                    actor = make(*arguments)
                    running[actor.load.remote()] = actor, None
                (done, *_), _ = ray.wait(list(running))
                actor, number = running.pop(done)
                try:
                    answer = ray.get(done)
                except ray.exceptions.RayActorError as error:
                    failed = failed + 1 if number is None else 0
                    if failed == FAILED_STARTS:
                        raise RuntimeError(
                            f"Expected actors that begin. Received: {failed} that "
                            f"ended before ({_line(error)})"
                        ) from None
                    if number is not None:
                        queue.plan.clean(writers.pop(actor))
                        queue.died(number)
                    continue
                except ray.exceptions.RayTaskError as error:
                    # Without the traceback that Ray makes part of its message.
                    known = isinstance(error.cause, Exception)
                    raise error.cause if known else error from None
                failed = 0
                if number is None:
                    writers[actor] = answer
                else:
                    queue.finished(number)
                number = queue.next()
                if number is not None:
                    running[actor.compute.remote(number)] = actor, number
        finally:
            for actor, _ in running.values():
                ray.kill(actor)
                if actor in writers:
                    queue.plan.forget(writers[actor])
                    queue.plan.clean(writers[actor])


@contextlib.contextmanager
def connected(address=None, workers=1):
    """Context of a connection to Ray; one that is there is used as it is.

    Args:
        address: `HOST:PORT` or `ray://HOST:PORT` of a cluster, or `auto` for the one
            that this machine belongs to; `None`: Ray is started on this machine and
            ends with the job.
        workers: Number of actors that it is started for.

    Raises:
        ValueError: If nothing answers there.
    """
    ray = require_ray()
    if ray.is_initialized():
        yield
        return
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options["include_dashboard"] = False
        options["num_cpus"] = max(workers, os.cpu_count() or 1)
    else:
        check_address(address)
        options["address"] = address
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"Expected the address of a Ray cluster. Received: {address}, "
            f"{_line(error)}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address):
    """Raises `ValueError` if nothing answers there; Ray itself waits for minutes."""
    found = re.fullmatch(r"(?:ray://)?([^/:]+):(\d{1,5})", address)
    if address == "auto":
        return
    if found is None:
        raise ValueError(
            "Expected the address of a Ray cluster: HOST:PORT, ray://HOST:PORT or "
            f"auto. Received: {address!r}"
        )
    try:
        socket.create_connection((found[1], int(found[2])), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"Expected the address of a Ray cluster. Received: {address}, where "
            f"nothing answers ({getattr(error, 'strerror', None) or error})"
        ) from error


def _line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
