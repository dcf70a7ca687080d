"""Optimizers of recipes."""

import keras


@keras.saving.register_keras_serializable(package="keras_attn")
class LayerwiseSGD(keras.optimizers.SGD):
    """SGD with a learning rate of its own for some layers.

    For fine-tuning: layers that are new learn faster than those with learned weights.

    Args:
        learning_rate: Learning rate of all other layers, a number or a schedule.
        factors: Dict from a layer's name to the factor on its learning rate. A layer
            of a functional model is known by the first part of its variables' paths.
        **kwargs: Passed on to `keras.optimizers.SGD`.
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
    options, schedules = recipe.options, keras.optimizers.schedules
    if options.schedule == "cosine":
        return schedules.CosineDecay(recipe.learning_rate, steps)
    boundaries = [round(fraction * steps) for fraction in options.decay_at]
    if not boundaries:
        return recipe.learning_rate
    rates = [
        recipe.learning_rate * options.decay_factor**drop
        for drop in range(len(boundaries) + 1)
    ]
    return schedules.PiecewiseConstantDecay(boundaries, rates)


def _sgd(rate, decay, factors):
    options = {"momentum": 0.9, "weight_decay": decay or None}
    if factors:
        return LayerwiseSGD(rate, factors, **options)
    return keras.optimizers.SGD(rate, **options)


# Each is called with the learning rate, the decoupled weight decay and the factors.
BUILDERS = {
    "adam": lambda rate, decay, _: keras.optimizers.Adam(
        rate, weight_decay=decay or None
    ),
    "adamw": lambda rate, decay, _: keras.optimizers.AdamW(rate, weight_decay=decay),
    "sgd": _sgd,
}


def make_optimizer(recipe, steps, factors=None):
    """The recipe's optimizer.

    Args:
        recipe: `Recipe` of a classifier.
        steps: Steps of the whole training.
        factors: See `LayerwiseSGD`; only with `sgd`.
    """
    options = recipe.options
    decoupled = options.weight_decay_mode == "decoupled"
    decay = recipe.weight_decay if decoupled else 0.0
    rate = learning_rate(recipe, steps)
    optimizer = BUILDERS[options.optimizer](rate, decay, factors)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer
