"""Validation where the devices of JAX share the batches of a training."""

import keras
import numpy as np

from keras_attn.training.runs import devices, hosts


class Validation(keras.callbacks.Callback):
    """Adds the values of a validation to the logs of every epoch.

    Keras's own needs batches that all devices can share, down to the last one. Here a
    process evaluates whole batches of its own, and the sums that the metrics keep are
    added up over the processes: every example counts once, in its batch.

    Args:
        batches: `tf.data.Dataset` of the batches of this process; may be empty.
    """

    def __init__(self, batches):
        super().__init__()
        self.batches = batches
        self.step = None

    def on_epoch_end(self, epoch, logs=None):
        logs |= {f"val_{name}": value for name, value in self.values().items()}

    def values(self):
        """The metrics of the model after all batches of all processes."""
        import jax

        model = self.model
        self.step = self.step or jax.jit(model.test_step)
        model.reset_metrics()
        state = [
            devices.on_this_process([variable.value for variable in variables])
            for variables in (
                model.trainable_variables,
                model.non_trainable_variables,
                model.metrics_variables,
            )
        ]
        for batch in self.batches:
            batch = devices.on_this_process(batch, shared=True)
            _, state = self.step(state, batch)
        for variable, own in zip(model.metrics_variables, state[2], strict=True):
            variable.assign(np.sum(hosts.group().arrays(np.asarray(own)), axis=0))
        found = {
            name: float(value) for name, value in model.get_metrics_result().items()
        }
        model.reset_metrics()
        return found
