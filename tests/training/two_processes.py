"""Every method in one process and in two, on JAX, which end with the same weights.

`python -m tests.training.two_processes` trains all of `CASES` both ways and prints how
far the weights are from each other, relative to the greatest. With `--kills N` one of
two processes dies at N seeded moments of a training, which then has to end with the
same weights to the last bit.
"""

import argparse
import atexit
import contextlib
import functools
import importlib
import multiprocessing.forkserver
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from unittest import mock

SGD = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 2, "deterministic": False}
# Compiling takes longer than all the rest. Unoptimised, XLA computes the case `online`
# otherwise on two devices; XLA_FLAGS=--xla_backend_optimization_level=2 does not.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
ENVIRONMENT = {
    "XLA_FLAGS": f"{FLAGS} --xla_cpu_use_fusion_emitters=false",
    **os.environ,
    "KERAS_BACKEND": "jax",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Threads of XLA. With one per core, devices of one process that wait for each other
    # may hold all of them.
    "NPROC": "16",
}
# Name of a case -> changes of its recipe; see `recipe_of`.
CASES = {
    "class_embedding": {"batch_size": 18},
    "anchornet": {"row": "localizer", "backbone": "anchornet"},
    "patches": {
        "row": "patches",
        "backbone": "small_resnet",
        "localizer": "{given}/localizer",
        # Four patches of each image.
        "batch_size": 16,
    },
    "volumetric_transformer": {"row": "vtn"},
    "masked": {"map_model": "{given}/transformer"},
    "online": {"map_model": "{given}/transformer", "map_mode": "online"},
    "dino": {"local_views": 2},
    "finetune": {"model": "{given}/net.keras"},
}


def recipe_of(name, given):
    """The recipe of a case; its networks become tiny ones in this process."""
    from keras_attn.models.vit import VIT_SIZES
    from tests.training import tiny_dino

    VIT_SIZES["tiny"] = tiny_dino.TINY_SIZE
    changes = {
        key: value.format(given=given) if isinstance(value, str) else value
        for key, value in CASES[name].items()
    }
    return MAKERS[name](changes)


def _class_embedding(changes):
    from keras_attn.training.methods import class_embedding
    from tests.training.tiny import tiny_model, tiny_recipe

    class_embedding.build_model = tiny_model
    return tiny_recipe(**SGD, **changes)


def _anchornet(changes):
    from keras_attn.training.methods import anchornet
    from tests.training.methods import test_anchornet as tiny

    anchornet.anchornet = tiny.tiny_anchornet
    anchornet.build_downstream = tiny.tiny_network
    return tiny.recipe(**{"augmentation": "translate_flip_erase", **SGD, **changes})


def _volumetric_transformer(changes):
    from tests.training.methods import test_volumetric_transformer as tiny

    models = importlib.import_module("keras_attn.models.warped_classifier")
    models.feature_backbone = tiny.tiny_backbone
    return tiny.recipe(**{**tiny.WARPED, **SGD, "learning_rate": 1e-3, **changes})


def _masked(changes):
    from keras_attn.training.recipes.schema import Recipe

    fields = {
        "name": "tiny",
        "method": "attention_masked_residual",
        "dataset": "generated",
        "split": "official",
        "backbone": "resnet8",
        "row": "masked",
        "image_size": 32,
        "examples": 130,
        "batch_size": 20,
    }
    return Recipe(**{**fields, **SGD, "epochs": 1, **changes})


def _dino(changes):
    from tests.training import tiny_dino

    return tiny_dino.tiny_recipe(batch_size=16, epochs=2, **changes)


def _finetune(changes):
    from keras_attn.training.recipes.schema import Recipe

    fields = {
        "name": "tiny",
        "method": "finetune",
        "dataset": "generated",
        "split": "official",
        "image_size": 32,
        "examples": 130,
        "batch_size": 10,
        "dropout": 0.2,
        "blocks": "squeeze_excitation",
        "new_epochs": 2,
    }
    fields |= {"learning_rate": 1e-3, "epochs": 2, "deterministic": False}
    return Recipe(**{**fields, **changes})


MAKERS = {
    "class_embedding": _class_embedding,
    "anchornet": _anchornet,
    "patches": _anchornet,
    "volumetric_transformer": _volumetric_transformer,
    "masked": _masked,
    "online": _masked,
    "dino": _dino,
    "finetune": _finetune,
}


def make_given(folder):
    """Trained models that the recipes start from, the same on every call."""
    import keras

    from keras_attn.training.data.load import load_data
    from keras_attn.training.fit.train import initial_model
    from keras_attn.training.runs.run import Run
    from tests.training.methods.test_finetune import network

    for name, case in (("localizer", "anchornet"), ("transformer", "dino")):
        recipe = recipe_of(case, folder)
        run = Run.create(folder / name, recipe)
        initial_model(recipe, load_data(recipe)[0]).save(run.checkpoints / "best.keras")
    keras.utils.set_random_seed(0)
    network().save(folder / "net.keras")


def work(options):
    """Trains the cases, alone or as one of several processes."""
    from keras_attn.training.fit.train import train
    from keras_attn.training.runs import devices, hosts

    root = pathlib.Path(options.root)
    joined = contextlib.nullcontext(hosts.group())
    if options.coordinator:
        joined = hosts.joined(options.coordinator, 2, options.number, options.timeout)
    with joined as group:
        if options.pause:
            _pause(options.pause)
        for name in options.cases:
            recipe = recipe_of(name, root / "given")
            if options.epochs:
                import dataclasses

                recipe = dataclasses.replace(recipe, epochs=options.epochs)
            # Of the others nothing is to be written.
            train(recipe, root / (name if group.is_first else "nothing"), verbose=2)
            print(f"trained {name} on {devices.share_count()} devices", flush=True)


def _pause(seconds):
    import time

    from keras_attn.training.fit import callbacks

    def on_train_batch_end(self, batch, logs=None):
        print(f"step {batch + 1} of epoch {self.epoch + 1}", flush=True)
        time.sleep(seconds)

    callbacks.StopAtNotFinite.on_train_batch_end = on_train_batch_end


@functools.cache
def template():
    """A process that has imported what all others need, from which they are forked."""
    server = multiprocessing.forkserver.ForkServer()
    server.set_forkserver_preload(["jax", "keras_attn.training.fit.train"])
    with mock.patch.dict(os.environ, ENVIRONMENT):
        server.ensure_running()
    return server


def fork(log, devices, arguments):
    """A started process of `main`, whose output goes to a file."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_run, args=(str(log), devices, arguments))
    connect = template().connect_to_new_process
    module = multiprocessing.forkserver
    with mock.patch.object(module, "connect_to_new_process", connect):
        process.start()
    return process


def _run(log, devices, arguments):
    with open(log, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    from jax._src import compiler
    from jax._src.interpreters import mlir

    from tests.numpy_random import numpy_weights

    # As `tests.conftest` does.
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)
    # Each process keeps what it compiles; JAX lets process 0 do so alone.
    write, first = compiler._cache_write, types.SimpleNamespace(process_id=0)

    def written(*values):
        with mock.patch.object(compiler.distributed, "global_state", first):
            write(*values)

    compiler._cache_write = written
    try:
        with numpy_weights():
            main(arguments)
    finally:
        # A fork would leave them out.
        atexit._run_exitfuncs()


class Processes:
    """One or two processes that train the cases.

    Args:
        root: Folder of the runs.
        cases: Names of the cases.
        count: Number of processes.
        devices: Devices of each.
        *options: Further options of `work`.
    """

    def __init__(self, root, cases, count=2, devices=1, options=()):
        root.mkdir(parents=True, exist_ok=True)
        self.place = f"127.0.0.1:{free_port()}"
        self.logs, self.started = [], []
        for number in range(count):
            own = ["--coordinator", self.place] if count > 1 else []
            own += ["--number", str(number), "--root", str(root), "--cases", *cases]
            self.logs.append(root / f"log-{number}.txt")
            self.started.append(fork(self.logs[-1], devices, [*own, *options]))

    @property
    def output(self):
        """The lines of process 0 so far."""
        return self.logs[0].read_text() if self.logs[0].exists() else ""

    def wait_for(self, words):
        """Waits until process 0 has printed these words."""
        while words not in self.output:
            assert self.started[0].is_alive(), self.output
            time.sleep(0.02)

    def kill(self, number):
        os.kill(self.started[number].pid, signal.SIGKILL)

    def end(self, seconds=600):
        """Exit statuses, and what the processes printed."""
        for process in self.started:
            process.join(seconds)
            assert not process.is_alive(), self.output
        statuses = [process.exitcode for process in self.started]
        return statuses, [log.read_text() for log in self.logs]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def difference(one, two):
    """Greatest relative difference of the weights of two runs' last models."""
    import numpy as np

    from keras_attn.pipelines.files import read_arrays

    first, second = (
        read_arrays(run / "checkpoints" / "last.npz", lambda name: name != "progress")
        for run in (one, two)
    )
    assert first.keys() == second.keys()
    return max(
        float(
            np.abs(first[name] - second[name]).max()
            / (np.abs(first[name]).max() + 1e-3)
        )
        for name in first
        if first[name].dtype.kind == "f"
    )


def kills(root, count, seed):
    """Kills of one of two processes, at random moments of a run that resumes."""
    draw = random.Random(seed)
    options = ["--epochs", "20", "--pause", "0.1", "--timeout", "30"]
    started = time.monotonic()
    whole = Processes(root / "whole", ["class_embedding"], options=options)
    assert whole.end()[0] == [0, 0], whole.output
    lasts = time.monotonic() - started
    print(f"whole: {lasts:.1f} s", flush=True)
    for _ in range(count):
        broken = Processes(root / "broken", ["class_embedding"], options=options)
        victim, moment = draw.randrange(2), draw.random() * lasts
        time.sleep(moment)
        # What resumes may have ended by then.
        with contextlib.suppress(ProcessLookupError):
            broken.kill(victim)
        killed = time.monotonic()
        statuses, output = broken.end()
        line = check_end(statuses, output, victim)
        print(
            f"process {victim} at {moment:.1f} s: the other ended after "
            f"{time.monotonic() - killed:.1f} s, {statuses}: {line}",
            flush=True,
        )
    last = Processes(root / "broken", ["class_embedding"], options=options)
    assert last.end()[0] == [0, 0], last.output
    found = difference(root / "whole/class_embedding", root / "broken/class_embedding")
    print(f"difference: {found}")
    assert found == 0


def check_end(statuses, output, victim):
    """The line of the process that was not killed; none where both were done."""
    other = 1 - victim
    if statuses[other] == 0:
        return ""
    lines = [each for each in output[other].splitlines() if each.startswith("error: ")]
    assert statuses[other] == 2 and len(lines) == 1, output[other]
    assert "Traceback" not in output[other], output[other]
    return lines[0]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--root")
    parser.add_argument("--coordinator")
    parser.add_argument("--number", type=int)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--make", action="store_true")
    options = parser.parse_args(arguments)
    if options.make:
        make_given(pathlib.Path(options.root))
        return
    if options.number is not None:
        try:
            work(options)
        except (OSError, ValueError) as error:
            # As the command does.
            sys.exit(print(f"error: {error}", flush=True) or 2)
        return
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(options.root or root)
        if options.kills:
            kills(root, options.kills, options.seed)
            return
        command = [sys.executable, "-m", "tests.training.two_processes", "--make"]
        subprocess.run(
            [*command, "--root", root / "given"],
            check=True,
            env=ENVIRONMENT,
        )
        for name in ("one", "two"):
            shutil.copytree(root / "given", root / name / "given")
        runs = {
            "one": Processes(root / "one", options.cases, 1),
            "two": Processes(root / "two", options.cases, 2),
        }
        for name, each in runs.items():
            statuses, output = each.end()
            if any(statuses):
                sys.exit(f"{name}: {statuses}\n" + "\n".join(output))
        for name in options.cases:
            print(f"{name}: {difference(root / 'one' / name, root / 'two' / name):.1e}")


if __name__ == "__main__":
    main()
