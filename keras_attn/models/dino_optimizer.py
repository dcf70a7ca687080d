"""The optimizer of DINO and its schedules, all functions of the step."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_attn")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A straight line up to a base value, then half a cosine to a final one.

    As in DINO's published code: the base value comes twice, as the last of the warm-up
    and as the first of the cosine, and the final value would come one step after the
    last.

    Args:
        base: Value at the end of the warm-up.
        final: Value after the last step.
        steps: Steps of the whole training.
        warmup_steps: Steps of the warm-up, fewer than `steps`.
        start: Value at step 0 of a warm-up.

    Example:

    >>> schedule = WarmupCosine(1.0, 0.0, steps=8, warmup_steps=3)
    >>> [round(float(schedule(step)), 2) for step in range(8)]
    [0.0, 0.5, 1.0, 1.0, 0.9, 0.65, 0.35, 0.1]
    """

    def __init__(self, base, final, steps, warmup_steps=0, start=0.0):
        if not 0 <= warmup_steps < steps:
            raise ValueError(
                "Expected fewer steps of warm-up than steps. "
                f"Received: steps={steps}, warmup_steps={warmup_steps}"
            )
        super().__init__()
        self.base = base
        self.final = final
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.start = start

    def __call__(self, step):
        step = ops.cast(step, "float32")
        share = step / max(self.warmup_steps - 1, 1)
        rising = self.start + (self.base - self.start) * share
        share = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        cosine = ops.cos(math.pi * ops.clip(share, 0.0, 1.0))
        falling = self.final + (self.base - self.final) * (1 + cosine) / 2
        return ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self):
        names = ("base", "final", "steps", "warmup_steps", "start")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="keras_attn")
class EpochwiseWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A value that rises from epoch to epoch, and then stays.

    DINO's temperature of the teacher. The last epoch of the warm-up has the final
    value already.

    Args:
        start: Value in the first epoch.
        final: Value from the last epoch of the warm-up on.
        warmup_epochs: Epochs of the warm-up; 0: the final value always.
        steps_per_epoch: Steps of an epoch.

    Example:

    >>> schedule = EpochwiseWarmup(0.04, 0.07, warmup_epochs=4, steps_per_epoch=10)
    >>> [round(float(schedule(10 * epoch)), 2) for epoch in range(5)]
    [0.04, 0.05, 0.06, 0.07, 0.07]
    """

    def __init__(self, start, final, warmup_epochs, steps_per_epoch):
        super().__init__()
        self.start = start
        self.final = final
        self.warmup_epochs = warmup_epochs
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step):
        epoch = ops.cast(step // self.steps_per_epoch, "float32")
        share = ops.minimum(epoch / max(self.warmup_epochs - 1, 1), 1.0)
        rising = self.start + (self.final - self.start) * share
        return ops.where(epoch < self.warmup_epochs, rising, self.final)

    def get_config(self):
        names = ("start", "final", "warmup_epochs", "steps_per_epoch")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="keras_attn")
class DinoAdamW(keras.optimizers.Adam):
    """AdamW whose weight decay follows a schedule and that lets weights rest at first.

    Decay is decoupled, `w <- w (1 - rate * decay)`, and spares biases and all other
    weights with a single axis, such as those of normalisations. A resting weight does
    not change at all, and its moments start with its first step, as those of a PyTorch
    parameter without gradients.

    Args:
        learning_rate: A number or a schedule.
        decay: Weight decay, a number or a schedule over the steps.
        resting: Names of weights that rest for the first `resting_steps`.
        resting_steps: Number of these steps.
        **kwargs: See `keras.optimizers.Adam`; `clipnorm` is per weight.
    """

    def __init__(
        self,
        learning_rate=5e-4,
        decay=0.04,
        resting=("directions", "gain"),
        resting_steps=0,
        epsilon=1e-8,
        **kwargs,
    ):
        super().__init__(learning_rate, epsilon=epsilon, **kwargs)
        self.decay = decay
        self.resting = tuple(resting)
        self.resting_steps = resting_steps

    def update_step(self, gradient, variable, learning_rate):
        # TensorFlow gives its own variable, which has another name.
        known = self._trainable_variables[self._get_variable_index(variable)]
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if known.name in self.resting and self.resting_steps:
            awake = self.iterations >= self.resting_steps
            gradient = ops.where(awake, gradient, ops.zeros_like(gradient))
            rate = ops.where(awake, rate, ops.zeros_like(rate))
        if len(known.shape) > 1 and known.name != "bias":
            decay = self.decay
            decay = decay(self.iterations) if callable(decay) else decay
            decay = ops.cast(decay, variable.dtype)
            self.assign_sub(variable, ops.multiply(variable, rate * decay))
        if known.name in self.resting and self.resting_steps:
            rate = rate * self._bias_correction_since(self.resting_steps, rate.dtype)
        super().update_step(gradient, variable, rate)

    def _bias_correction_since(self, steps, dtype):
        """Factor on Adam's bias correction for moments that started later."""

        def correction(step):
            step = ops.cast(step, dtype)
            powers = [ops.power(ops.cast(beta, dtype), step) for beta in betas]
            return ops.sqrt(1 - powers[1]) / (1 - powers[0])

        betas = self.beta_1, self.beta_2
        own = ops.maximum(self.iterations + 1 - steps, 1)
        return correction(own) / correction(self.iterations + 1)

    def get_config(self):
        return {
            **super().get_config(),
            "decay": keras.saving.serialize_keras_object(self.decay),
            "resting": self.resting,
            "resting_steps": self.resting_steps,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        decay = keras.saving.deserialize_keras_object(config["decay"], custom_objects)
        return super().from_config({**config, "decay": decay}, custom_objects)


def dino_optimizer(
    steps_per_epoch: int,
    epochs: int,
    batch_size: int,
    learning_rate: float = 5e-4,
    final_learning_rate: float = 1e-6,
    warmup_epochs: int = 10,
    weight_decay: float = 0.04,
    final_weight_decay: float = 0.4,
    clipnorm: float | None = 3.0,
    resting_epochs: int = 1,
):
    """The published optimizer of `Dino`, its schedules set for a training.

    Args:
        steps_per_epoch, epochs: Length of the training.
        batch_size: Images in a step.
        learning_rate: For 256 images in a step; it grows with their number.
        final_learning_rate: At the end, whatever the size of the batch.
        warmup_epochs: In which the learning rate rises from 0; also a part of one.
        weight_decay, final_weight_decay: At the start and at the end.
        clipnorm: Longest gradient of a weight.
        resting_epochs: Epochs, or a part of one, in which the head's last layer does
            not change.

    Returns:
        `DinoAdamW`.

    Example:

    >>> optimizer = dino_optimizer(10, epochs=20, batch_size=128)
    >>> float(optimizer._learning_rate(99))
    0.0002500000118743628
    """
    steps = steps_per_epoch * epochs
    return DinoAdamW(
        WarmupCosine(
            learning_rate * batch_size / 256,
            final_learning_rate,
            steps,
            round(warmup_epochs * steps_per_epoch),
        ),
        decay=WarmupCosine(weight_decay, final_weight_decay, steps),
        resting_steps=round(resting_epochs * steps_per_epoch),
        clipnorm=clipnorm,
    )
