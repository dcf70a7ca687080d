"""Processes that train the tiny recipe, forked from one with TensorFlow imported."""

import json
import multiprocessing
import os
import signal
import time

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.training.driver"])


class Driver:
    """A process that runs `tests.training.driver` on CPU devices.

    Args:
        workdir: Folder of the run; the output goes to a file beside it.
        *options: Options of the driver.
        recipe: Dict of changes to the recipe.
    """

    count = 0

    def __init__(self, workdir, *options, recipe):
        Driver.count += 1
        self.log = workdir.with_name(f"output-{Driver.count}.txt")
        arguments = [str(workdir), "--recipe", json.dumps(recipe), *options]
        self.process = CONTEXT.Process(target=_run, args=(arguments, str(self.log)))
        self.process.start()

    def wait_for(self, words):
        """Waits until the output has these words."""
        while words not in self.output:
            assert self.process.is_alive(), self.output
            time.sleep(0.01)

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    def end(self):
        """Waits for the end of the process; its exit status and its output."""
        self.process.join(300)
        return self.process.exitcode, self.output

    @property
    def output(self):
        return self.log.read_text() if self.log.exists() else ""


def _run(arguments, log):
    with open(log, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from tests.training import driver

    raise SystemExit(driver.main(arguments))
