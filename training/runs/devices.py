"""Use of a machine's devices by a run.

Every device holds the whole model and computes on its share of each batch; gradients
are added up. Batch normalisation would take the statistics of a device's share only,
so several devices would train another model than one does. Its statistics are
therefore computed over the whole batch (Keras's `synchronized=True`), and the number
of devices changes the results by rounding errors only. What a layer draws at random
itself, such as dropout, differs between devices.
"""

import contextlib
import functools

import keras

from keras_attn.graph.keras_graph import layers_of


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


def check_recipe(recipe):
    """One clear error for what several devices cannot do."""
    devices = device_count()
    if recipe.batch_size % devices:
        raise ValueError(
            f"Expected a batch size that {devices} devices can share. "
            f"Received: batch_size={recipe.batch_size}"
        )
    if devices > 1 and recipe.jit_compile:
        raise ValueError(
            "Expected jit_compile=false: XLA does not compile a step that "
            f"{devices} devices share. Received: jit_compile=True"
        )


def synchronize(model, synchronized):
    """Sets whether batch normalisation sees the whole batch or a device's share."""
    for layer in layers_of(model, True):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized


@contextlib.contextmanager
def portable(model):
    """Context in which to save: other backends refuse synchronised layers."""
    synchronize(model, False)
    try:
        yield model
    finally:
        synchronize(model, device_count() > 1)
