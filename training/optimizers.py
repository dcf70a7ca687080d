"""Optimizers that Keras lacks."""

import keras


@keras.saving.register_keras_serializable(package="keras_attn")
class LayerwiseSGD(keras.optimizers.SGD):
    """SGD with a learning rate of its own for some layers.

    For fine-tuning: layers that are new learn faster than those with learned weights.

    Args:
        learning_rate: Of all other layers, a number or a schedule.
        factors: Dict from a layer's name to the factor on its learning rate. A layer
            of a functional model is known by the first part of its variables' paths.
        **kwargs: As of `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate=0.01, factors=None, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.factors = dict(factors or {})

    def update_step(self, gradient, variable, learning_rate):
        # TensorFlow gives its own variable, which does not know its layer.
        known = self._trainable_variables[self._get_variable_index(variable)]
        factor = self.factors.get(known.path.split("/")[0], 1.0)
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self):
        return {**super().get_config(), "factors": self.factors}
