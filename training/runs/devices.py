"""Use of the devices by a run: those of a machine, or of all its processes.

Every device holds the whole model and computes on its share of each batch; gradients
are added up. Batch normalisation would take the statistics of a device's share only,
so several devices would train another model than one does. Its statistics are
therefore computed over the whole batch (Keras's `synchronized=True`), and the number
of devices changes the results by rounding errors only. What a layer draws at random
itself, such as dropout, differs between devices.

On JAX a step is one computation over the whole batch however many devices and
processes share it, so that all of this, dropout too, is as on one device.
"""

import contextlib
import functools

import keras
import numpy as np

from keras_attn.graph.keras_graph import layers_of
from keras_attn.training.runs import hosts


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


@functools.cache
def data_parallel():
    """JAX's counterpart: `DataParallel` over the devices of all processes, or `None`.

    Every process makes its own part of a batch, so Keras is not to cut the data.
    """
    if keras.backend.backend() != "jax":
        return None
    import jax

    if jax.device_count() < 2:
        return None
    return keras.distribution.DataParallel(auto_shard_dataset=False)


def device_count():
    """Number of devices that each have a share of a batch for themselves."""
    strategy = mirrored_strategy()
    return strategy.num_replicas_in_sync if strategy else 1


def share_count():
    """Number of equal shares of a batch."""
    parallel = data_parallel()
    return parallel.device_mesh.devices.size if parallel else device_count()


def scope():
    """Context in which a model is built and compiled."""
    strategy = mirrored_strategy() or data_parallel()
    return strategy.scope() if strategy else contextlib.nullcontext()


def fit_scope():
    """Context of `fit`, where Keras reads a `DataParallel` and no strategy."""
    parallel = data_parallel()
    return parallel.scope() if parallel else contextlib.nullcontext()


def on_this_process(values, shared=False):
    """JAX's arrays on the devices of this process alone.

    Args:
        values: A structure of arrays, of which each process may have others.
        shared: Whether to share their first axis between the devices where these
            divide it; by default each device has everything.
    """
    import jax

    devices = jax.local_devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))

    def put(value):
        value = np.asarray(value)
        cut = shared and len(value) % len(devices) == 0
        spec = jax.sharding.PartitionSpec(*["batch"] * cut)
        return jax.device_put(value, jax.sharding.NamedSharding(mesh, spec))

    return keras.tree.map_structure(put, values)


def check_recipe(recipe):
    """One clear error for what several devices cannot do."""
    shares = share_count()
    if recipe.batch_size % shares:
        processes = hosts.group().count
        where = f" of {processes} processes" if processes > 1 else ""
        raise ValueError(
            f"Expected a batch size that {shares} devices{where} can share. "
            f"Received: batch_size={recipe.batch_size}"
        )
    devices = device_count()
    is_shared = devices > 1 and keras.backend.backend() == "tensorflow"
    if is_shared and recipe.jit_compile:
        raise ValueError(
            "Expected jit_compile=false: XLA does not compile a step that "
            f"{devices} devices share. Received: jit_compile=True"
        )


def compiles(recipe):
    """`True` where XLA compiles the step.

    JAX has no graphs of its own: without XLA it runs operation by operation.
    """
    return recipe.jit_compile or keras.backend.backend() == "jax"


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
