"""Ctrl-C at seeded moments of every command.

`python -m tests.training.interrupts --moments 3` runs each command once, then stops it
at that many moments of this time and repeats those that save. With `--imports` each is
a process of its own, with all its imports.
"""

import argparse
import collections
import contextlib
import multiprocessing
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from tests.training.commands import test_failures

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["tensorflow", "keras_attn.training.cli", "keras_attn.training.fit.train"]
)
SECONDS = 2
# Exit statuses of a command that was stopped, and of one that had ended.
ENDS = ("130", "0")
# Of a moment: commands end earlier where less else is running.
ATTEMPTS = 4
SHORT = "--set examples=120 epochs=2 batch_size=16"
# {out} is a new folder, others are those of `given`.
COMMANDS = {
    "recipes": "recipes",
    "summary": "summary generated_rn26_baseline",
    "train": f"train generated_rn26_baseline {SHORT} --workdir {{out}}/w",
    "tune": f"tune generated_rn26_baseline {SHORT} --workdir {{out}}/w --trials 2 "
    "--grid 1 --search batch_size=8,16",
    "reproduce": f"reproduce class_embedding_table1_generated {SHORT} "
    "--rows rn26_baseline --workdir {out}/w --results {out}/r",
    "demo": "demo --workdir {out}/w",
    "evaluate": "evaluate {good} --dataset folder --data {images} --split all",
    "predict": "predict {good} {images}",
    "report": "report {good} --dataset folder --data {images} --split all "
    "--output {out}/r.html",
    "explain": "explain {good} {images} --output {out}/e --metrics",
    "localize": "localize {localizer} {images} --output {out}/l",
    "index": "index {good} {images} --output {out}/i",
    "search": "search {searched} {image} --output {out}/s",
    "retrieval": "retrieval {good} {json} --images {images}",
    "masks": "masks {maps} {images} --output {out}/m",
    "bulk": "bulk predict {good} {images} --output {out}/b --workers 2",
    "export": "export {good} --name n --output {out}/s",
    "promote": "promote n --output {served}",
    "serve": "serve {served} --port 0 --rest-port 0",
    "request": "request http://127.0.0.1:9/v1/models/m {image} --retries 9",
    "view": "view {good} --no-browser --port 0",
    "data": "data folder --data {images} --output {out}/d.png",
    "fit": "exit-policy fit {table} --output {out}/p.json",
    "judge": "exit-policy judge {table} --results {out}/r",
    "table": "exit-policy table {patches} --resized {square} --data {photos} "
    "--split train --output {out}/t.npz",
    "model": "exit-policy model {patches} --resized {square} --policy {exits} "
    "--budget 9 --output {out}/m.keras",
    "check": "data {photos} --check --output {out}/d.html",
    "adopt": "adopt {good} --output {out}/a.keras",
    "places": "places {good}",
    "finetune": "finetune {photos} --from {square} --epochs 3 --workdir {out}/w",
    "compare": "compare {photos} --from {square} --blocks none cbam --epochs 2 "
    "--workdir {out}/w --results {out}/r",
}
# Commands that last until they are stopped, or longer than anybody waits here.
ENDLESS = {"demo": 60, "serve": 15, "view": 15, "request": 15}
SAVING = (
    "train",
    "tune",
    "reproduce",
    "index",
    "masks",
    "bulk",
    "export",
    "report",
    "explain",
)
SAVING += ("finetune", "compare", "adopt")


def made(root):
    """Paths of all that the commands read."""
    from keras_attn.training.serving.export import export

    root.mkdir()
    paths = test_failures.given(root)
    paths["served"] = root / "served"
    export(paths["good"], name="n", output=paths["served"])
    return paths


def _run(words, log, ready):
    """The body of a process, like that of the program."""
    with open(log, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ready.set()
    sys.argv = ["keras-attn", *words]
    from keras_attn.training import cli

    sys.exit(cli.main())


class Process:
    """A command: a process of the program, or forked from one with its imports."""

    def __init__(self, command, paths, out, imports):
        words = [word.format(**paths, out=out) for word in command.split()]
        self.log = out.with_suffix(".txt")
        self.log.touch()
        if imports:
            program = pathlib.Path(sys.executable).with_name("keras-attn")
            with open(self.log, "w") as file:
                process = subprocess.Popen([program, *words], stdout=file, stderr=file)
            self.wait, self.pid = process.wait, process.pid
        else:
            ready = CONTEXT.Event()
            process = CONTEXT.Process(target=_run, args=(words, str(self.log), ready))
            process.start()
            ready.wait()
            self.wait, self.pid = process.join, process.pid
        self.process = process

    def end(self, seconds=None):
        """Exit status, `None` for a process that does not end in time, and output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(seconds)
        names = ("returncode", "exitcode")
        (status,) = (
            getattr(self.process, name) for name in names if hasattr(self.process, name)
        )
        if status is None:
            self.process.kill()
        return status, self.log.read_text()


def complete(*command):
    """Seconds that a command takes, which has to succeed."""
    started = time.monotonic()
    status, output = Process(*command).end()
    assert status == 0, (command, output[-2000:])
    return time.monotonic() - started


def interrupted(moment, *command):
    """`(outcome, seconds)` of Ctrl-C after `moment` seconds."""
    process = Process(*command)
    time.sleep(moment)
    sent = time.monotonic()
    with contextlib.suppress(ProcessLookupError):  # It has ended.
        os.kill(process.pid, signal.SIGINT)
    status, output = process.end(30)
    seconds = time.monotonic() - sent
    if status is None:
        return "HANGS", seconds
    if "Traceback" in output or "Exception ignored" in output:
        return f"TRACEBACK {status}: {output[-1500:]}", seconds
    return f"{status} {(output.splitlines() or [''])[-1]}", seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS))
    parser.add_argument("--imports", action="store_true", help="start the program")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    slow = collections.Counter()
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        paths = made(root / "given")
        # Starts what all processes are forked from.
        complete("recipes", paths, root / "first", options.imports)
        for name in options.commands:
            command = COMMANDS[name]
            given = command, paths, root / name, options.imports
            lasts = ENDLESS.get(name) or complete(*given)
            print(f"{name}: {lasts:.1f} s", flush=True)
            for number in range(options.moments):
                share, outcome = draw.random(), "0"
                for attempt in range(ATTEMPTS):
                    out = root / f"{name}{number}{attempt}"
                    given = command, paths, out, options.imports
                    moment = lasts * share
                    outcome, seconds = interrupted(moment, *given)
                    if not outcome.startswith("0"):
                        break
                    # It had ended.
                    lasts = 0.8 * moment
                print(f"  at {moment:5.1f} s: {seconds:4.1f} s, {outcome}", flush=True)
                if seconds > SECONDS or outcome.split()[0] not in ENDS:
                    slow[name] += 1
                if name in SAVING:
                    again = complete(*given)
                    print(f"  again: {again:.1f} s", flush=True)
    print(f"too slow, or with a traceback: {dict(slow)}")
    return bool(slow)


if __name__ == "__main__":
    sys.exit(main())
