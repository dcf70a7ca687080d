import keras
import numpy as np
import pytest

from keras_attn.models import DinoAdamW, EpochwiseWarmup, WarmupCosine, dino_optimizer
from tests.harness import to_numpy


def official_schedule(base, final, epochs, steps, warmup_epochs=0, start=0.0):
    """As the published code has it, which makes an array of all values."""
    warmup = np.array([])
    count = warmup_epochs * steps
    if warmup_epochs > 0:
        warmup = np.linspace(start, base, count)
    rest = np.arange(epochs * steps - count)
    rest = final + 0.5 * (base - final) * (1 + np.cos(np.pi * rest / len(rest)))
    return np.concatenate((warmup, rest))


@pytest.mark.parametrize(
    ("base", "final", "epochs", "steps", "warmup", "start"),
    [
        (5e-4, 1e-6, 7, 5, 2, 0.0),
        (0.04, 0.4, 3, 4, 0, 0.0),
        (0.996, 1.0, 3, 4, 0, 0.0),
        (1.0, 0.5, 4, 1, 1, 0.2),
    ],
)
def test_schedules_equal_the_official_ones(base, final, epochs, steps, warmup, start):
    wanted = official_schedule(base, final, epochs, steps, warmup, start)
    schedule = WarmupCosine(base, final, epochs * steps, warmup * steps, start)
    found = to_numpy(schedule(np.arange(epochs * steps)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-9)
    if warmup and steps > 1:
        # The base value comes twice, and the final one never.
        np.testing.assert_allclose(found[[warmup * steps - 1, warmup * steps]], base)
    assert abs(found[-1] - final) > 1e-3 * abs(base - final)
    revived = WarmupCosine.from_config(schedule.get_config())
    np.testing.assert_array_equal(to_numpy(revived(np.arange(3))), found[:3])


def test_the_temperature_of_the_teacher():
    schedule = EpochwiseWarmup(0.04, 0.07, warmup_epochs=3, steps_per_epoch=4)
    wanted = np.repeat([*np.linspace(0.04, 0.07, 3), 0.07, 0.07], 4)
    found = to_numpy(schedule(np.arange(20)))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    constant = EpochwiseWarmup(0.04, 0.07, warmup_epochs=0, steps_per_epoch=4)
    assert float(constant(0)) == pytest.approx(0.07)


def adamw(weight, gradients, rates, decays, sleeps):
    """PyTorch's AdamW, in NumPy; a weight that sleeps has no gradient at all."""
    weight, m, v, count = weight.astype("float64"), 0.0, 0.0, 0
    for step, gradient in enumerate(gradients):
        if step < sleeps:
            continue
        count += 1
        gradient = gradient * min(1.0, 3.0 / np.linalg.norm(gradient))
        weight = weight * (1 - rates[step] * decays[step])
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        unbiased = np.sqrt(v / (1 - 0.999**count)) + 1e-8
        weight = weight - rates[step] * m / (1 - 0.9**count) / unbiased
    return weight


def test_equals_adamw_with_clipping_decay_and_rest():
    generator = np.random.default_rng(0)
    shapes = {"kernel": (3, 2), "bias": (2,), "gamma": (2,), "directions": (2, 5)}
    start = {name: generator.standard_normal(shape) for name, shape in shapes.items()}
    steps = [
        {name: 3 * generator.standard_normal(shape) for name, shape in shapes.items()}
        for _ in range(4)
    ]
    optimizer = dino_optimizer(
        2,
        epochs=2,
        batch_size=512,
        learning_rate=0.05,
        final_learning_rate=0.01,
        warmup_epochs=1,
    )
    weights = {
        name: keras.Variable(value.astype("float32"), name=name)
        for name, value in start.items()
    }
    revived = DinoAdamW.from_config(optimizer.get_config())
    assert revived.get_config() == optimizer.get_config()
    for gradients in steps:
        revived.apply(
            [
                keras.ops.convert_to_tensor(g.astype("float32"))
                for g in gradients.values()
            ],
            list(weights.values()),
        )
    rates = official_schedule(0.1, 0.01, 2, 2, 1)
    decays = official_schedule(0.04, 0.4, 2, 2)
    for name, weight in weights.items():
        wanted = adamw(
            start[name],
            [gradients[name] for gradients in steps],
            rates,
            decays if len(shapes[name]) > 1 else [0.0] * 4,
            sleeps=2 if name == "directions" else 0,
        )
        np.testing.assert_allclose(to_numpy(weight), wanted, atol=2e-5, err_msg=name)


def test_a_warm_up_longer_than_the_training():
    with pytest.raises(ValueError, match="steps=8, warmup_steps=8"):
        WarmupCosine(1.0, 0.0, 8, 8)


def test_warm_up_and_rest_end_within_an_epoch():
    optimizer = dino_optimizer(
        10, epochs=2, batch_size=256, warmup_epochs=0.5, resting_epochs=0.25
    )
    wanted = WarmupCosine(5e-4, 1e-6, steps=20, warmup_steps=5)
    found = [float(optimizer._learning_rate(step)) for step in range(20)]
    assert found == pytest.approx([float(wanted(step)) for step in range(20)])
    assert optimizer.resting_steps == 2
