"""Optimizers that Keras lacks."""

import keras

from keras_attn.training.methods import method_of


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


def learning_rate(recipe, steps):
    """The recipe's learning rate, or its schedule over that many steps."""
    schedules = keras.optimizers.schedules
    if recipe.schedule == "cosine":
        return schedules.CosineDecay(recipe.learning_rate, steps)
    boundaries = [round(fraction * steps) for fraction in recipe.decay_at]
    if not boundaries:
        return recipe.learning_rate
    rates = [
        recipe.learning_rate * recipe.decay_factor**drop
        for drop in range(len(boundaries) + 1)
    ]
    return schedules.PiecewiseConstantDecay(boundaries, rates)


def make_optimizer(recipe, steps):
    """The recipe's optimizer; `steps` are those of the whole training."""
    rate = learning_rate(recipe, steps)
    decay = recipe.weight_decay if recipe.weight_decay_mode == "decoupled" else None
    options = {"weight_decay": decay or None}
    if recipe.optimizer == "sgd":
        options["momentum"] = 0.9
    classes = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
    }
    if recipe.optimizer == "adamw":
        options["weight_decay"] = decay or 0.0
    if recipe.new_layers_rate != 1:
        options["factors"] = dict.fromkeys(
            method_of(recipe).NEW_LAYERS, recipe.new_layers_rate
        )
        classes["sgd"] = LayerwiseSGD
    optimizer = classes[recipe.optimizer](rate, **options)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer
