import keras
import numpy as np
import pytest

from keras_attn.training.methods.optimizers import (
    LayerwiseSGD,
    learning_rate,
    make_optimizer,
)
from tests.training.tiny import tiny_recipe


def network(optimizer):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, name="backbone")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    model.compile(optimizer, "mse")
    return model


def moved(optimizer, steps):
    """Distances by which steps on the same batch move the two kernels."""
    model = network(optimizer)
    before = [w.numpy() if hasattr(w, "numpy") else np.array(w) for w in model.weights]
    batch = np.ones((8, 3), "float32"), np.full((8, 2), 3.0, "float32")
    for _ in range(steps):
        model.train_on_batch(*batch)
    after = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    return [b - a for a, b in zip(before, after, strict=True)]


def test_named_layers_move_by_the_factor():
    plain = moved(keras.optimizers.SGD(1e-3, momentum=0.9), 1)
    ours = moved(LayerwiseSGD(1e-3, {"logits": 5.0}, momentum=0.9), 1)
    for index, factor in enumerate((1.0, 1.0, 5.0, 5.0)):
        np.testing.assert_allclose(ours[index], factor * plain[index], rtol=1e-3)


def test_without_factors_it_is_sgd():
    plain = moved(keras.optimizers.SGD(1e-2, momentum=0.9), 3)
    ours = moved(LayerwiseSGD(1e-2, momentum=0.9), 3)
    for theirs, own in zip(plain, ours, strict=True):
        np.testing.assert_array_equal(theirs, own)


def test_survives_its_configuration():
    optimizer = LayerwiseSGD(1e-2, {"logits": 5.0}, momentum=0.8)
    revived = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(revived, LayerwiseSGD)
    assert revived.factors == {"logits": 5.0} and revived.momentum == 0.8


def test_the_learning_rate_drops_at_the_fractions():
    recipe = tiny_recipe(learning_rate=0.4, decay_factor=0.1, decay_at=(0.5, 0.75))
    rate = learning_rate(recipe, 100)
    rates = [float(rate(step)) for step in (0, 50, 51, 75, 76, 99)]
    assert rates == pytest.approx([0.4, 0.4, 0.04, 0.04, 0.004, 0.004])
    constant = tiny_recipe(decay_at=())
    assert learning_rate(constant, 100) == 1e-2
    optimizer = make_optimizer(recipe, 100)
    assert float(optimizer.learning_rate) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.AdamW),
        ("sgd", keras.optimizers.SGD),
    ],
)
def test_decoupled_decay_shrinks_kernels_only(optimizer, kind):
    recipe = tiny_recipe(
        optimizer=optimizer,
        weight_decay=0.5,
        weight_decay_mode="decoupled",
        learning_rate=0.1,
        decay_at=(),
    )
    made = make_optimizer(recipe, 10)
    assert type(made) is kind
    assert optimizer != "sgd" or made.momentum == 0.9
    names = ("kernel", "bias", "gamma", "beta")
    weights = [keras.Variable(np.ones(2, "float32"), name=name) for name in names]
    made.apply([np.zeros(2, "float32")] * 4, weights)
    values = [float(weight.numpy()[0]) for weight in weights]
    assert values == pytest.approx([0.95, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_with_an_l2_penalty_the_optimizer_itself_does_not_decay(optimizer):
    made = make_optimizer(tiny_recipe(optimizer=optimizer, weight_decay=0.5), 10)
    weight = keras.Variable(np.ones(2, "float32"), name="kernel")
    made.apply([np.zeros(2, "float32")], [weight])
    np.testing.assert_array_equal(weight.numpy(), 1.0)


def test_a_cosine_schedule_ends_at_zero():
    recipe = tiny_recipe(schedule="cosine", learning_rate=0.2)
    rate = learning_rate(recipe, 100)
    values = [float(rate(step)) for step in (0, 25, 50, 100)]
    wanted = [0.1 * (1 + np.cos(np.pi * step / 100)) for step in (0, 25, 50, 100)]
    np.testing.assert_allclose(values, wanted, atol=1e-6)
