"""A frozen model inside a data set, while another one trains."""

import threading

import keras
import numpy as np


def inference(model):
    """A compiled function from arrays to the model's output, an array.

    Any thread may call it at any time. `predict_on_batch` does not allow that: on JAX
    it gives the weights away while it runs.

    Args:
        model: Keras model with one input and one output; it runs in inference mode.
    """
    call, lock = _compiled(model), threading.Lock()

    def run(batch):
        with lock:
            return keras.ops.convert_to_numpy(call(np.asarray(batch)))

    return run


def _compiled(model):
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        @jax.jit
        def stateless(trainable, others, batch):
            return model.stateless_call(trainable, others, batch, training=False)[0]

        def values(variables):
            return [variable.value for variable in variables]

        return lambda batch: stateless(
            values(model.trainable_variables),
            values(model.non_trainable_variables),
            batch,
        )
    if backend == "torch":
        import torch

        def without_gradient(batch):
            with torch.no_grad():
                return model(batch, training=False)

        return without_gradient
    import tensorflow as tf

    return tf.function(
        lambda batch: model(batch, training=False), reduce_retracing=True
    )
