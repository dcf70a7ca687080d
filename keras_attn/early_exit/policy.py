"""When to stop: exit policies fitted to data, one rule for each budget.

The data are an exit table: the confidence and correctness of every answer of a network
with early exits, see `keras_attn.early_exit.table`.

At a price of `p` accuracy for a unit of cost, continuing from exit `i` is worth
 `E[correct_j - correct_i - p (cost_j - cost_i) | confidence_i]`, where `j` is the
exit at which the image will then stop. That is estimated from the last exit to the
first (backward induction), by least squares as a cubic polynomial in the doubt
`u = 1 - confidence_i`; an image continues where the polynomial is positive. It need not
be monotone: where an answer is hopeless, more computation gains nothing either. Every
price is one point of the curve, and rules between two neighbouring ones are found by
interpolating their coefficients, so that budgets are met.

Three families of rules are fitted, and cross-validation chooses one: one polynomial for
the first exit and one for all later ones, `"shared gain"`; one for every exit,
`"separate gains"`; and fitted `"thresholds"`. The first has the fewest numbers to
estimate; another one is taken only if it is better by more than its standard error.

The early-exit inference is that of the code that followed the AnchorNet paper, where
thresholds are set by hand.
"""

import json
import math
import pathlib

import keras
import numpy as np
from keras import ops

from keras_attn._checks import integer, one_of
from keras_attn.early_exit import rules
from keras_attn.early_exit.table import check_cost, check_exit_table

FORMAT = "keras-attn exit policy"
VERSION = 1
FOLDS = 5
# Number of rules in the final fit, and in the fits that only choose the family.
FINE, COARSE = 60, 24


@keras.saving.register_keras_serializable(package="keras_attn")
class ExitRule:
    """The stopping rule for one budget.

    Args:
        cost: Mean cost on the images that it was fitted to.
        accuracy: Accuracy there.
        coefficients: `(exits - 1, 4)`; at exit `i` an image continues where
            `a + b u + c u^2 + d u^3 > 0`, with `u = 1 - confidence`.

    Example:

    >>> rule = keras_attn.ExitPolicy.load("policy.json").at(1.3)
    >>> model = keras_attn.models.early_exit_classifier(..., policy=rule)
    """

    def __init__(self, cost, accuracy, coefficients):
        self.cost = _number("cost", cost)
        self.accuracy = _number("accuracy", accuracy)
        self.coefficients = _coefficients(coefficients)

    @property
    def exits(self):
        """Number of exits."""
        return len(self.coefficients) + 1

    def stop(self, stage, confidences):
        """Images that stop at an exit, in any backend and inside a graph.

        Args:
            stage: Number of the exit, from 0.
            confidences: `(batch, stage + 1)` confidences so far.

        Returns:
            `(batch,)` bool; at the last exit all.

        Raises:
            ValueError: For an exit that there is not, or another number of confidences.
        """
        if not 0 <= stage < self.exits:
            raise ValueError(
                f"Expected an exit of the rule, 0 to {self.exits - 1}. "
                f"Received: stage={stage}"
            )
        if len(confidences.shape) != 2 or confidences.shape[1] != stage + 1:
            raise ValueError(
                f"Expected confidences of shape (batch, {stage + 1}) at exit {stage}. "
                f"Received: confidences.shape={tuple(confidences.shape)}"
            )
        confidence = ops.cast(confidences[:, stage], "float32")
        if stage == self.exits - 1:
            return ops.ones_like(confidence, dtype="bool")
        doubt = ops.maximum(1.0 - confidence, 0.0)
        value = ops.zeros_like(doubt)
        for coefficient in reversed(self.coefficients[stage]):
            value = value * doubt + coefficient
        return value <= 0.0

    def exits_of(self, confidence):
        """The exit of each image of an array `(N, exits)`, in NumPy."""
        return rules.exits_of(self.coefficients, rules.doubt(confidence))

    def get_config(self):
        return {
            "cost": self.cost,
            "accuracy": self.accuracy,
            "coefficients": self.coefficients,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class ExitPolicy:
    """A curve of stopping rules, from the cheapest to the most accurate.

    Args:
        rules: `ExitRule`s in the order of their costs.
        cost: `(exits,)` costs of the table that it was fitted to.
        family: What kind of rule was chosen.
        scores: Dict from family to the cross-validated accuracy, averaged over the
            range of costs; empty where there was nothing to choose.
    """

    def __init__(self, rules, cost, family="", scores=None):
        self.rules = tuple(rules)
        self.cost = check_cost(cost).tolist()
        self.family = str(family)
        self.scores = {
            str(name): _number(f"the score of {name!r}", score)
            for name, score in dict(scores or {}).items()
        }
        if not self.rules:
            raise ValueError("Expected at least one rule. Received: none")
        for rule in self.rules:
            if rule.exits != len(self.cost):
                raise ValueError(
                    f"Expected rules for {len(self.cost)} exits, one for each cost. "
                    f"Received: one for {rule.exits}"
                )
        costs = [rule.cost for rule in self.rules]
        if costs != sorted(costs):
            raise ValueError(
                f"Expected rules in the order of their costs. Received: costs {costs}"
            )

    def at(self, cost):
        """The `ExitRule` for a budget: the last one whose mean cost is within it.

        Raises:
            ValueError: If no rule is as cheap.
        """
        # A budget that was printed with fewer digits still names its rule.
        limit = _number("cost", cost) * (1 + 1e-9)
        within = [rule for rule in self.rules if rule.cost <= limit]
        if not within:
            raise ValueError(
                f"Expected a budget of at least {self.rules[0].cost:g}, the cost of "
                f"the first exit. Received: cost={cost}"
            )
        return within[-1]

    def evaluate(self, confidence, correct, cost):
        """Cost and accuracy of every rule on a table.

        Args:
            confidence, correct, cost: An exit table with as many exits; its costs
                count.

        Returns:
            List of `{"cost": mean cost, "accuracy": share of right answers}`.
        """
        table = check_exit_table(confidence, correct, cost)
        if len(table.cost) != len(self.cost):
            raise ValueError(
                f"Expected a table with the policy's {len(self.cost)} exits. "
                f"Received: {len(table.cost)} exits"
            )
        return [table.point(rule.exits_of(table.confidence)) for rule in self.rules]

    def save(self, path):
        """Writes the policy as JSON, numbers and names only."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "family": self.family,
            "scores": self.scores,
            "cost": self.cost,
            "rules": [rule.get_config() for rule in self.rules],
        }
        pathlib.Path(path).write_text(json.dumps(data, indent=1) + "\n")

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote.

        Raises:
            ValueError: If the file is no exit policy or damaged.
        """
        try:
            data = json.loads(pathlib.Path(path).read_text())
            if not isinstance(data, dict) or data.get("format") != FORMAT:
                raise ValueError(f'Expected the format "{FORMAT}".')
            if data.get("version") != VERSION:
                raise ValueError(
                    f"Expected version {VERSION}. Received: {data.get('version')!r}"
                )
            loaded = [ExitRule.from_config(rule) for rule in data["rules"]]
            return cls(loaded, data["cost"], data["family"], data["scores"])
        except KeyError as error:
            raise ValueError(
                f"{path} is not an exit policy: {error} is missing"
            ) from error
        # Undecodable text and malformed JSON are ValueErrors too.
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is not an exit policy: {error}") from error


def fit_exit_policy(
    confidence,
    correct,
    cost,
    points: int = 40,
    family: str | None = None,
    seed: int = 0,
):
    """Fits the policy that is best for each budget.

    Args:
        confidence, correct, cost: An exit table, see
            `keras_attn.early_exit.table`.
        points: Number of budgets, evenly spread from the cost of the first exit to
            the cost at which more computation gains nothing.
        family: `"shared gain"`, `"separate gains"` or `"thresholds"`; `None`: chosen by
            cross-validation.
        seed: Seed of the folds of the cross-validation.

    Returns:
        `ExitPolicy` with one rule per budget; with a single rule where continuing gains
        nothing. Deterministic.

    Raises:
        ValueError: If this is not an exit table, for fewer than two points, or for an
            unknown family.

    Example:

    >>> table = np.load("table.npz")
    >>> policy = fit_exit_policy(table["confidence"], table["correct"], table["cost"])
    >>> policy.at(1.3).cost
    """
    table = check_exit_table(confidence, correct, cost)
    integer("points", points, minimum=2)
    one_of("family", family, (None, *rules.FITS))
    confidence, correct, cost = table
    if len(cost) == 1:
        return ExitPolicy([ExitRule(cost[0], correct.mean(), ())], cost)
    scores = {}
    if family is None:
        family, scores = _choose_family(table, seed)
    path = rules.FITS[family](confidence, correct, cost, FINE)
    # The first rule of the path may be any that stops everywhere: this one does for
    # all tables.
    path[0] = [[-1.0, 0.0, 0.0, 0.0]] * (len(cost) - 1)
    return ExitPolicy(_spread(path, table, points), cost, family, scores)


def _choose_family(table, seed):
    """Family of rules by cross-validation, and all families' scores."""
    confidence, correct, cost = table
    folds = np.random.default_rng(seed).permutation(len(correct)) % FOLDS
    if len(correct) < 2 * FOLDS:
        return next(iter(rules.FITS)), {}
    right = {}
    for family, fit in rules.FITS.items():
        exits = np.empty((COARSE, len(correct)), int)
        for fold in range(FOLDS):
            inside = folds != fold
            doubts = rules.doubt(confidence[~inside])
            path = fit(confidence[inside], correct[inside], cost, COARSE)
            exits[:, ~inside] = [rules.exits_of(rule, doubts) for rule in path]
        right[family] = exits
    top = max(cost[exits].mean(axis=1).max() for exits in right.values())
    budgets = np.linspace(cost[0], top, 50)
    right = {
        family: _mean_right(exits, correct, cost, budgets)
        for family, exits in right.items()
    }
    chosen = next(iter(right))
    for family, score in right.items():
        difference = score - right[chosen]
        if difference.mean() > difference.std() / math.sqrt(len(difference)):
            chosen = family
    return chosen, {family: float(score.mean()) for family, score in right.items()}


def _mean_right(exits, correct, cost, budgets):
    """Share of right answers of each image, `(N,)`, over equally likely budgets."""
    costs = np.maximum.accumulate(cost[exits].mean(axis=1))
    # Linear interpolation between the rules, as the weight of each rule.
    weights = np.mean(
        [np.interp(budgets, costs, unit) for unit in np.eye(len(costs))], axis=1
    )
    images = np.arange(correct.shape[0])
    return sum(
        weight * correct[images, row]
        for weight, row in zip(weights, exits, strict=True)
    )


def _spread(path, table, points):
    """Rules for evenly spread budgets, from a path of rules."""
    doubts = rules.doubt(table.confidence)

    def measured(coefficients):
        exits = rules.exits_of(coefficients, doubts)
        return ExitRule(**table.point(exits), coefficients=coefficients)

    kept = [measured(path[0])]
    for rule in map(measured, path[1:]):
        if rule.cost > kept[-1].cost:
            kept.append(rule)
    if len(kept) == 1:
        return kept
    spread = []
    for budget in np.linspace(kept[0].cost, kept[-1].cost, points):
        rule = _within(kept, budget, measured)
        # Costs of interpolated rules need not grow evenly.
        spread.append(spread[-1] if spread and rule.cost < spread[-1].cost else rule)
    return spread


def _within(path, budget, measured, steps=12):
    """The rule between two neighbours that spends most within a budget."""
    lower = [rule for rule in path if rule.cost <= budget][-1]
    above = [rule for rule in path if rule.cost > budget]
    if not above:
        return lower
    start = np.array(lower.coefficients)
    end = np.array(above[0].coefficients)
    low, high = 0.0, 1.0
    for _ in range(steps):
        share = (low + high) / 2
        rule = measured(start + share * (end - start))
        if rule.cost <= budget:
            low = share
            lower = max(lower, rule, key=lambda rule: rule.cost)
        else:
            high = share
    return lower


def _number(name, value):
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"Expected {name} to be a finite number. Received: {value}")
    return number


def _coefficients(coefficients):
    rows = [[float(value) for value in row] for row in coefficients]
    width = rules.DEGREE + 1
    if not all(len(row) == width and all(map(math.isfinite, row)) for row in rows):
        raise ValueError(
            f"Expected coefficients of shape (exits - 1, {width}), finite. "
            f"Received: {coefficients}"
        )
    return rows
