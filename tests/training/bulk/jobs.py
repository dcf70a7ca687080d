"""Small bulk jobs, and forked workers that compute something simple in no time."""

import contextlib
import multiprocessing
import os
import stat
import zlib

import numpy as np

from keras_attn.training.bulk import worker
from keras_attn.training.bulk.plan import Plan
from tests.training import tiny_models as tiny

FORK = multiprocessing.get_context("fork")
SHARD, BATCH = 4, 2


def photos(folder, count=14, seed=0):
    """A folder of random images, and a damaged file among them."""
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        tiny.save_image(folder / "abc"[number % 3] / f"{number:03}.png", pixels)
    (folder / "b" / "broken.jpg").write_bytes(b"no image")
    return folder


def make(task, model, source, output, **options):
    options = {"shard": SHARD, "batch_size": BATCH, **options}
    return Plan.make(task, model, source, output, **options)


def compute(plan, numbers=None):
    """Computes shards in this process, in this order."""
    made = worker.Worker(*plan.plain())
    for number in range(len(plan.shards())) if numbers is None else numbers:
        made.compute(number)
    return plan


def contents(folder):
    """Bytes of the files of shards by their names."""
    return {file.name: file.read_bytes() for file in sorted(folder.glob("0*-0*.*"))}


class StandIn(worker.Worker):
    """A worker without a model: each value is the checksum of a file."""

    def __init__(self, path, maker, notes, images):
        self.plan, self.images = Plan(path, maker, notes=notes), images
        self.shards = self.plan.shards()

    def rows(self, shard):
        sums = [zlib.crc32(each) for each in self.images.read(range(*shard[:2]))]
        names = np.array(self.images.names(*shard[:2]))
        rows = {"name": names, "problem": np.full(len(names), "")}
        for name, (dtype, shape) in self.plan.columns.items():
            rows[name] = np.empty((len(names), *shape), dtype)
            rows[name] = np.array(
                [np.full(shape, s % 99, rows[name].dtype) for s in sums]
            )
        return rows


def serve(connection):
    worker.Worker = StandIn
    worker.serve(connection)


class Forked:
    """A worker's process in place of `keras_attn.training.bulk.local.start`'s."""

    def __init__(self, connection, environment, serve=serve):
        self.process = FORK.Process(
            target=_alone, args=(connection, serve), daemon=True
        )
        self.process.start()
        self.pid, self.kill = self.process.pid, self.process.kill
        self.wait = self.process.join


def _alone(connection, serve):
    """Without the sockets of the driver, which only a fork inherits."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, connection.fileno()):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    os.close(int(name))
    serve(connection)
