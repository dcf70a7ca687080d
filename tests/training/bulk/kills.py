"""Kills of a bulk job at seeded moments: nothing lost, nothing twice, equal bytes.

`python -m tests.training.bulk.kills --kills 50` kills the driver, a worker or all of a
job with two workers, starts it again, and begins a new job when one is complete. Every
complete one is compared with a job that was left alone.
"""

import argparse
import collections
import multiprocessing
import os
import pathlib
import random
import signal
import tempfile
import time

import numpy as np

from keras_attn.training.bulk import local, worker
from keras_attn.training.bulk.merge import merge
from keras_attn.training.bulk.plan import Plan
from keras_attn.training.bulk.run import run
from tests.training import tiny_models as tiny
from tests.training.bulk import jobs

VICTIMS = ("driver", "worker", "all")
# Seconds after which a worker without its driver has to be gone.
GRACE = 5


def drive(folder, serve, retry):
    """The driver of a job, in a group of processes of its own."""
    os.setsid()
    # Jobs of a shell in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    local.start = lambda *arguments: jobs.Forked(*arguments, serve)
    run(Plan.open(folder), workers=2, retry=retry)


class Job:
    """A job and the process of its driver.

    Args:
        folder: Folder of a plan.
        context: Context of `multiprocessing` that drivers are started in.
        serve: Function of the worker's process, see `keras_attn.training.bulk.worker`.
    """

    def __init__(self, folder, context, serve):
        self.folder, self.context, self.serve = folder, context, serve
        self.driver = None

    def start(self, retry=False):
        self.driver = self.context.Process(
            target=drive, args=(self.folder, self.serve, retry)
        )
        self.driver.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.driver and self.driver.is_alive():
            self.driver.kill()

    def open(self):
        """Starts the driver again if it is gone; `False` if nothing is left to do."""
        if self.driver is None or not self.driver.is_alive():
            if not Plan.open(self.folder).state().waiting:
                return False
            self.start()
        return True

    def workers(self):
        try:
            path = f"/proc/{self.driver.pid}/task/{self.driver.pid}/children"
            return [int(each) for each in pathlib.Path(path).read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            return []

    def kill(self, victim, draw):
        """Kills a victim; `False` if there is none."""
        workers = self.workers()
        if not self.driver.is_alive() or not workers:
            return False
        try:
            if victim == "all":
                os.killpg(self.driver.pid, signal.SIGKILL)
            else:
                pids = {"driver": self.driver.pid, "worker": draw.choice(workers)}
                os.kill(pids[victim], signal.SIGKILL)
        except ProcessLookupError:
            return False
        if victim != "worker":
            self.driver.join()
            self.check_gone(workers)
        return True

    def check_gone(self, pids):
        end = time.monotonic() + GRACE
        while any(map(is_running, pids)):
            assert time.monotonic() < end, f"{pids} outlive their driver"
            time.sleep(0.01)

    def complete(self):
        """Lets the job end, shards that were set aside included."""
        if self.driver is not None:
            self.driver.join()
        for retry in (False, True):
            if retry and not Plan.open(self.folder).state().aside:
                break
            self.start(retry)
            self.driver.join()
            assert self.driver.exitcode == 0, self.driver.exitcode
        return Plan.open(self.folder)


def is_running(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.split()[0] not in "ZX"


def check(plan, expected):
    """Nothing is lost, nothing is there twice, and bytes are those of another job."""
    assert plan.state().done == len(plan)
    assert jobs.contents(plan.path) == expected
    merged = merge(plan.path)["output"]
    with np.load(merged) as arrays:
        assert arrays["name"].tolist() == plan.images.names(0, len(plan))


def kill(make, kills, context, serve, seed=0, show=lambda *numbers: None):
    """Kills jobs and completes them.

    Args:
        make: Function that makes a plan in a folder.
        kills: Number of kills.
        context, serve: See `Job`.
        seed: Seed of the victims and the moments.
        show: Function that is called with what was killed.

    Returns:
        `Counter` of the victims, of complete `jobs` and of attempts that left a trace.
    """
    draw, counts = random.Random(seed), collections.Counter()
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        started = time.monotonic()
        alone = Job(make(root / "alone").path, context, serve).complete()
        span, expected = time.monotonic() - started, jobs.contents(alone.path)
        while True:
            job = Job(make(root / str(counts["jobs"])).path, context, serve)
            with job:
                while sum(counts[each] for each in VICTIMS) < kills and job.open():
                    victim = draw.choice(VICTIMS)
                    time.sleep(span * draw.random())
                    if job.kill(victim, draw):
                        counts[victim] += 1
                        show(victim, Plan.open(job.folder).state().done)
                counts["traces"] += sum(Plan.open(job.folder).attempts().values())
                check(job.complete(), expected)
            counts["jobs"] += 1
            if sum(counts[each] for each in VICTIMS) >= kills:
                return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=400)
    options = parser.parse_args()
    # Their drivers import what workers need, and compute nothing before they fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.bulk.kills"])
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        photos = jobs.photos(root / "photos", options.images)
        model = tiny.save_colour_model(root)
        counts = kill(
            lambda folder: jobs.make("predict", model, photos, folder),
            options.kills,
            context,
            worker.serve,
            options.seed,
            lambda *killed: print(*killed, flush=True),
        )
    print(dict(counts))


if __name__ == "__main__":
    main()
