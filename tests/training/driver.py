"""Trains the tiny recipe in a process of its own, which the tests stop or starve.

To be imported by `tests.training.processes` only.
"""

import argparse
import functools
import json
import os
import resource
import signal
import time

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf

from keras_attn.training.fit import callbacks
from keras_attn.training.fit.train import train
from keras_attn.training.methods import class_embedding
from keras_attn.training.runs import state
from tests.training.tiny import tiny_model, tiny_recipe


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--recipe", type=json.loads, default={})
    parser.add_argument("--model", type=json.loads, default={})
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds per step")
    parser.add_argument("--die-saving-epoch", type=int)
    parser.add_argument("--largest-file", type=int, help="bytes, as on a full disk")
    options = parser.parse_args(arguments)
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpus[0], [tf.config.LogicalDeviceConfiguration()] * options.devices
    )
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    class_embedding.build_model = functools.partial(tiny_model, **options.model)
    if options.pause:
        _pause_after_steps(options.pause)
    if options.die_saving_epoch:
        _die_saving(options.die_saving_epoch)
    if options.largest_file:
        _limit_files(options.largest_file)
    try:
        train(tiny_recipe(**options.recipe), options.workdir, verbose=2)
    except callbacks.SaveError as error:
        print(f"SaveError: {error}", flush=True)
    except KeyboardInterrupt as interrupt:
        print(interrupt, flush=True)
        return 130
    return 0


def _pause_after_steps(seconds):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            print(f"first step of epoch {self.epoch + 1}", flush=True)
        time.sleep(seconds)

    callbacks.StopAtNotFinite.on_train_batch_end = on_train_batch_end


def _die_saving(epoch):
    """SIGKILL in the middle of writing the training state of an epoch."""

    def savez(file, progress, **arrays):
        if len(json.loads(str(progress))["history"]) == epoch:
            file.write(b"the first half of a state")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        original(file, progress=progress, **arrays)

    original = np.savez
    state.np.savez = savez


def _limit_files(size):
    """After the first saved epoch, writing more than this to a file fails."""

    def save_state(path, model, progress):
        original(path, model, progress)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    original = callbacks.save_state
    callbacks.save_state = save_state
