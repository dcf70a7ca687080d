"""Exit policies on tables whose best policy is known, or found by trying all."""

import itertools
import json
import math

import keras
import numpy as np
import pytest

from keras_attn.early_exit.policy import ExitPolicy, ExitRule, fit_exit_policy
from tests.harness import to_numpy


def shrinking_doubt(images, seed):
    """Two exits: the second makes good three tenths of what the first gets wrong."""
    generator = np.random.default_rng(seed)
    first = generator.random(images)
    second = first + 0.3 * (1 - first)
    confidence = np.stack([first, second], axis=1).astype("float32")
    luck = generator.random((images, 1))
    return confidence, luck < confidence, np.array([1.0, 2.0])


def three_exits(images, seed, hopeless=False):
    """Calibrated confidences that wander; hopeless images do not profit."""
    generator = np.random.default_rng(seed)
    start = generator.normal(0.5, 1.5, images)
    steps = generator.gamma(1.0, 0.7, (images, 2))
    if hopeless:
        steps *= (start > -0.5)[:, None]
    logits = start[:, None] + np.cumsum(np.pad(steps, ((0, 0), (1, 0))), axis=1)
    confidence = (1 / (1 + np.exp(-logits))).astype("float32")
    return confidence, generator.random((images, 1)) < confidence, np.array([1, 3, 4.5])


def brute_force(table, budgets, steps=15):
    """Best accuracy of any thresholds within each budget."""
    confidence, correct, cost = table
    grids = [np.quantile(column, np.linspace(0, 1, steps)) for column in confidence.T]
    images = np.arange(len(correct))
    points = []
    for limits in itertools.product(*grids[:-1]):
        stops = np.ones(confidence.shape, bool)
        stops[:, :-1] = confidence[:, :-1] >= limits
        exits = stops.argmax(axis=1)
        points.append((cost[exits].mean(), correct[images, exits].mean()))
    costs, accuracies = np.array(points).T
    return [accuracies[costs <= budget].max() for budget in budgets]


def curve(points):
    return [np.array([point[name] for point in points]) for name in points[0]]


@pytest.mark.parametrize("family", [None, "shared gain", "separate gains"])
def test_the_curve_is_the_known_best_one(family):
    policy = fit_exit_policy(*shrinking_doubt(4000, 0), points=21, family=family)
    cost, accuracy = curve(policy.evaluate(*shrinking_doubt(100_000, 1)))
    # The least certain images continue: the share cost - 1 of the images, whose mean
    # gain is the integral of 0.3 (1 - c).
    share = cost - 1
    best = 0.5 + 0.3 * (share - share**2 / 2)
    np.testing.assert_allclose(accuracy, best, atol=0.006)
    np.testing.assert_allclose(cost, np.linspace(1, cost[-1], 21), atol=0.03)
    assert cost[-1] > 1.8


def test_a_price_decides_where_its_gain_ends():
    policy = fit_exit_policy(*shrinking_doubt(20_000, 0), family="shared gain")
    confidence = np.linspace(0, 1, 1001, dtype="float32")[:, None]
    rules = [rule for rule in policy.rules if 1.3 < rule.cost < 1.9]
    assert len(rules) > 20
    for rule in rules:
        stops = to_numpy(rule.stop(0, keras.ops.convert_to_tensor(confidence)))
        limit = confidence[stops.argmax(), 0]
        # Confidences are uniform: a share as large as the threshold continues.
        assert limit == pytest.approx(rule.cost - 1, abs=0.02)
        assert stops[confidence[:, 0] > limit].all()


def test_no_worse_than_the_best_thresholds_of_all():
    policy = fit_exit_policy(*three_exits(4000, 0))
    test = three_exits(15_000, 1)
    cost, accuracy = curve(policy.evaluate(*test))
    # In favour of the thresholds: chosen on the data of the test.
    best = brute_force(test, cost)
    assert np.all(accuracy > np.array(best) - 0.004)
    assert accuracy[-1] > accuracy[0] + 0.1


def test_thresholds_are_as_good_as_all_that_were_tried():
    table = three_exits(3000, 0)
    policy = fit_exit_policy(*table, points=20, family="thresholds")
    cost, accuracy = curve(policy.evaluate(*table))
    assert np.all(accuracy > np.array(brute_force(table, cost)) - 0.005)
    assert policy.family == "thresholds" and policy.scores == {}


def test_hopeless_images_are_given_up():
    policy = fit_exit_policy(*three_exits(4000, 0, hopeless=True))
    test = three_exits(15_000, 1, hopeless=True)
    cost, accuracy = curve(policy.evaluate(*test))
    middle = np.abs(cost - 2) < 0.5
    gain = accuracy[middle] - brute_force(test, cost[middle])
    assert middle.sum() > 5 and gain.mean() > 0.015
    assert policy.family != "thresholds"
    assert set(policy.scores) == {"shared gain", "separate gains", "thresholds"}
    assert policy.scores[policy.family] > policy.scores["thresholds"] + 0.005


def test_thresholds_are_chosen_where_gains_are_no_polynomials():
    generator = np.random.default_rng(0)
    confidence = 1 - 10.0 ** generator.uniform(-6, 0, (4000, 3)).astype("float32")
    confidence[:, 1:] = confidence[:, :1]
    # Right from the start, or only at the second exit, by the doubt's magnitude.
    right = confidence[:, 0] > 1 - 1e-4
    correct = np.stack([right, np.ones_like(right), right], axis=1)
    policy = fit_exit_policy(confidence, correct, [1, 2, 3])
    assert policy.family == "thresholds"
    share = 1 - right.mean()
    assert policy.at(1 + 1.01 * share).accuracy > 0.99


def test_budgets_are_even_met_and_not_exceeded():
    table = three_exits(2000, 3)
    policy = fit_exit_policy(*table, points=30)
    cost, accuracy = curve(policy.evaluate(*table))
    assert len(policy.rules) == 30
    assert [rule.cost for rule in policy.rules] == pytest.approx(cost)
    assert [rule.accuracy for rule in policy.rules] == pytest.approx(accuracy)
    budgets = np.linspace(1, cost[-1], 30)
    assert cost[0] == 1 and np.all(cost <= budgets + 1e-9)
    assert np.all(cost > budgets - 0.015) and np.all(np.diff(cost) > 0)
    assert policy.at(2.0).cost == cost[cost <= 2.0].max()
    assert policy.at(policy.rules[7].cost) is policy.rules[7]
    assert policy.at(100) is policy.rules[-1]
    with pytest.raises(ValueError, match="budget of at least 1, .*Received: cost=0.9"):
        policy.at(0.9)


def test_the_costs_of_the_evaluated_table_count():
    confidence, correct, cost = three_exits(500, 3)
    policy = fit_exit_policy(confidence, correct, cost)
    before = policy.evaluate(confidence, correct, cost)
    after = policy.evaluate(confidence, correct, 10 * cost)
    assert [10 * point["cost"] for point in before] == pytest.approx(
        [point["cost"] for point in after]
    )


def test_the_unit_of_cost_does_not_matter():
    confidence, correct, cost = three_exits(500, 3)
    small = fit_exit_policy(confidence, correct, cost)
    large = fit_exit_policy(confidence, correct, 1e9 * cost)
    assert [rule.accuracy for rule in small.rules] == pytest.approx(
        [rule.accuracy for rule in large.rules], abs=0.01
    )


def test_fits_are_deterministic():
    first, second = (fit_exit_policy(*three_exits(300, 0)) for _ in range(2))
    assert [rule.get_config() for rule in first.rules] == [
        rule.get_config() for rule in second.rules
    ]


class Stops(keras.layers.Layer):
    """A rule inside a model, whose `predict` runs compiled."""

    def __init__(self, rule, stage):
        super().__init__()
        self.rule, self.stage = rule, stage

    def call(self, confidences):
        return keras.ops.cast(self.rule.stop(self.stage, confidences), "int32")


@pytest.mark.parametrize("family", ["shared gain", "thresholds"])
def test_the_rule_in_a_graph_is_the_one_that_was_evaluated(family):
    confidence, correct, cost = three_exits(997, 0)
    rule = fit_exit_policy(confidence, correct, cost, family=family).at(2.5)
    stops = []
    for stage in range(3):
        inputs = keras.Input((stage + 1,))
        model = keras.Model(inputs, Stops(rule, stage)(inputs))
        found = model.predict(confidence[:, : stage + 1], batch_size=500, verbose=0)
        stops.append(found)
    assert all(0 < found.sum() < 997 for found in stops[:2]) and stops[2].all()
    exits = np.argmax(stops, axis=0)
    np.testing.assert_array_equal(exits, rule.exits_of(confidence))
    assert cost[exits].mean() == pytest.approx(rule.cost)
    assert correct[np.arange(997), exits].mean() == pytest.approx(rule.accuracy)


def test_a_rule_follows_its_polynomial():
    # u^2 - 0.3 u + 0.02 = (u - 0.1) (u - 0.2): stops in between, ends included.
    rule = ExitRule(1, 0.5, [[0, 0, 0, 1], [0.02, -0.3, 1, 0]])
    u = np.array([0.05, 0.15, 0.25], "float32")
    confidences = keras.ops.convert_to_tensor(np.stack([u, 1 - u], axis=1))
    np.testing.assert_array_equal(
        to_numpy(rule.stop(1, confidences)), [False, True, False]
    )
    certain = keras.ops.convert_to_tensor(np.array([[1.0], [0.0]], "float32"))
    np.testing.assert_array_equal(to_numpy(rule.stop(0, certain)), [True, False])


def test_rules_survive_keras_serialization():
    rule = fit_exit_policy(*three_exits(300, 0)).at(2)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(rule)))
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, ExitRule) and again.get_config() == rule.get_config()


def test_an_exit_that_is_always_right_ends_it():
    confidence, _, cost = three_exits(200, 0)
    policy = fit_exit_policy(confidence, np.ones((200, 3), bool), cost)
    for point in policy.evaluate(confidence, np.ones((200, 3)), cost):
        assert point == {"cost": 1.0, "accuracy": 1.0}


def test_exits_that_only_get_worse_are_not_taken():
    confidence, correct, cost = three_exits(400, 0)
    policy = fit_exit_policy(confidence, correct[:, ::-1], cost)
    assert policy.rules[-1].cost < 1.05


@pytest.mark.parametrize("images", [1, 2, 9, 10, 40])
def test_small_tables(images):
    table = three_exits(images, 0)
    points = fit_exit_policy(*table).evaluate(*table)
    assert all(1 <= point["cost"] <= 4.5 for point in points)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_confidences_that_are_all_alike(value):
    _, correct, cost = three_exits(60, 0)
    table = (np.full((60, 3), value, "float32"), correct, cost)
    assert math.isfinite(fit_exit_policy(*table).evaluate(*table)[-1]["accuracy"])


def test_a_single_exit():
    table = (np.array([[0.5], [0.25]]), np.array([[True], [False]]), [7])
    policy = fit_exit_policy(*table)
    assert policy.evaluate(*table) == [{"cost": 7.0, "accuracy": 0.5}]
    stops = policy.at(7).stop(0, keras.ops.ones((3, 1)))
    np.testing.assert_array_equal(to_numpy(stops), [True] * 3)


def test_files(tmp_path):
    table = three_exits(300, 0)
    policy = fit_exit_policy(*table)
    path = tmp_path / "policy.json"
    policy.save(path)
    again = ExitPolicy.load(path)
    assert again.evaluate(*table) == policy.evaluate(*table)
    for name in ("cost", "family", "scores"):
        assert getattr(again, name) == getattr(policy, name)
    assert json.loads(path.read_text())["format"] == "keras-attn exit policy"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: "[1, 2", "Expecting"),
        (lambda data: "[]", "Expected the format"),
        (lambda data: {**data, "version": 2}, "Expected version 1"),
        (lambda data: {key: data[key] for key in data if key != "cost"}, "'cost'"),
        (lambda data: {**data, "rules": []}, "at least one rule"),
        (lambda data: {**data, "rules": data["rules"][::-1]}, "order of their costs"),
        (lambda data: {**data, "rules": [{"cost": 1}]}, "accuracy"),
        (lambda data: {**data, "rules": [3]}, "is not an exit policy"),
        (lambda data: {**data, "cost": [1, 2]}, "Expected rules for 2 exits"),
        (lambda data: {**data, "cost": [1, 3, math.nan]}, "that increase"),
        (
            lambda data: {
                **data,
                "rules": [{**data["rules"][0], "coefficients": [[1, 2], [3, 4]]}],
            },
            r"coefficients of shape \(exits - 1, 4\)",
        ),
    ],
)
def test_damaged_files(tmp_path, change, words):
    path = tmp_path / "policy.json"
    fit_exit_policy(*three_exits(100, 0), family="shared gain").save(path)
    changed = change(json.loads(path.read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(ValueError, match=words) as caught:
        ExitPolicy.load(path)
    assert str(path) in str(caught.value)


GOOD = {
    "confidence": np.full((4, 2), 0.5),
    "correct": np.ones((4, 2), bool),
    "cost": np.array([1.0, 2.0]),
}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("confidence", np.full((4, 2), 1.1), r"in 0..1. Received: 1.1 at image 0"),
        ("confidence", np.array([[0.5, 0.5]] * 3 + [[0.5, np.nan]]), "image 3, exit 1"),
        ("confidence", np.full((4, 2), -0.1), "in 0..1"),
        ("confidence", np.ones((4, 2), int), "of floats"),
        ("confidence", np.full((4, 3), 0.5), r"shape \(images, 2\)"),
        ("confidence", np.full(4, 0.5), r"Received: shape \(4,\)"),
        ("confidence", np.full((3, 2), 0.5), "same images. Received: 3 and 4"),
        ("confidence", np.zeros((0, 2)), "at least one image"),
        ("correct", np.full((4, 2), 2), "of booleans"),
        ("correct", np.full((4, 2), "yes"), "of booleans"),
        ("correct", np.ones((4, 3), bool), "Expected correct of shape"),
        ("cost", np.array([2.0, 1.0]), "that increase"),
        ("cost", np.array([1.0, 1.0]), "that increase"),
        ("cost", np.array([1.0, np.inf]), "finite numbers"),
        ("cost", np.array([]), r"shape \(exits,\)"),
        ("cost", np.array(["a", "b"]), "finite numbers"),
    ],
)
def test_bad_tables(name, value, words):
    with pytest.raises(ValueError, match=words):
        fit_exit_policy(**{**GOOD, name: value})


def test_rounding_of_a_softmax_is_no_error():
    over = np.nextafter(np.float32(1), np.float32(2))
    rounded, exact = (
        fit_exit_policy(**{**GOOD, "confidence": np.full((4, 2), sure, "float32")})
        for sure in (over, 1.0)
    )
    assert rounded.evaluate(**GOOD) == exact.evaluate(**GOOD)


def test_other_errors():
    with pytest.raises(ValueError, match="`points` to be an integer of at least 2"):
        fit_exit_policy(**GOOD, points=1)
    with pytest.raises(ValueError, match="'shared gain', .*Received: family='x'"):
        fit_exit_policy(**GOOD, family="x")
    policy = fit_exit_policy(**GOOD)
    with pytest.raises(ValueError, match="policy's 2 exits. Received: 3 exits"):
        policy.evaluate(np.full((4, 3), 0.5), np.ones((4, 3), bool), [1, 2, 3])
    rule = policy.rules[0]
    with pytest.raises(ValueError, match="0 to 1. Received: stage=2"):
        rule.stop(2, keras.ops.ones((4, 3)))
    with pytest.raises(ValueError, match=r"shape \(batch, 2\) at exit 1"):
        rule.stop(1, keras.ops.ones((4, 1)))
    with pytest.raises(ValueError, match="cost to be a finite number"):
        ExitRule(math.nan, 0.5, [[0, 0, 0, 0]])
