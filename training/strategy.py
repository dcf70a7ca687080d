"""How a run uses the devices of its machine."""

import contextlib
import functools

import keras


@functools.cache
def mirrored_strategy():
    """One MirroredStrategy over all devices, or `None` on a single device.

    One object for the process: TensorFlow's collective operations fail when a second
    strategy is made. CPU devices reduce on one device, which needs no collectives.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        return None
    reduction = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(
        [device.name for device in devices], cross_device_ops=reduction
    )


def device_count():
    """Number of devices that share a batch."""
    strategy = mirrored_strategy()
    return strategy.num_replicas_in_sync if strategy else 1


def scope():
    """Context in which a model is built and compiled."""
    strategy = mirrored_strategy()
    return strategy.scope() if strategy else contextlib.nullcontext()
