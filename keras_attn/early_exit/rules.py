"""Fits of stopping rules, each for a price of computation.

A rule is one polynomial for every exit but the last, in the doubt of an answer,
`u = 1 - confidence`: an image continues where `a + b u + c u^2 + d u^3 > 0`. Rules are
arrays `(exits - 1, 4)` of these coefficients; a path of rules, from stopping at once to
the best accuracy at any cost, is `(rules, exits - 1, 4)`.
"""

import numpy as np

DEGREE = 3
# Images that an earlier exit stops count less where the later exits are fitted, but
# not nothing, since for some prices few continue.
WEIGHT_OF_STOPPED = 0.3
SWEEPS = 5
# Relative ridge of the least squares, against confidences that are all the same.
RIDGE = 1e-6


def doubt(confidence):
    """`u = 1 - confidence`, in single precision as it will be where the rule runs."""
    return np.maximum(1 - np.asarray(confidence, "float32"), 0)


def continues(coefficients, doubts):
    """Images that continue at one exit, by Horner's rule as in the graph.

    Args:
        coefficients: `(4,)`.
        doubts: `(N,)` of `doubt`.
    """
    value = np.zeros_like(doubts)
    for coefficient in np.asarray(coefficients, "float32")[::-1]:
        value = value * doubts + coefficient
    return value > 0


def exits_of(rule, doubts):
    """The exit that each image takes, `(N,)`: the first whose rule stops it."""
    stops = np.ones(doubts.shape, bool)
    for stage, coefficients in enumerate(rule):
        stops[:, stage] = ~continues(coefficients, doubts[:, stage])
    return stops.argmax(axis=1)


def prices(cost, count):
    """Falling prices of a unit of cost, in accuracy; the last is zero.

    At the first one no gain of accuracy, being at most one, is worth the cheapest step.
    """
    first = 1 / np.diff(cost).min()
    last = 1e-4 / (cost[-1] - cost[0])
    return np.append(np.geomspace(first, last, count - 1), 0.0)


def shared_gain(confidence, correct, cost, count):
    """One gain for the first exit and one, common to all of them, for the later exits.

    The gain of continuing is estimated by least squares as `b u + c u^2 + d u^3`:
    nothing for an image of confidence one.
    """
    exits = len(cost)
    groups = [group for group in (range(1), range(1, exits - 1)) if len(group)]
    return _gain_path(confidence, correct, cost, count, groups, first_power=1)


def separate_gains(confidence, correct, cost, count):
    """A gain of its own for every exit: all four coefficients are estimated."""
    groups = [range(stage, stage + 1) for stage in range(len(cost) - 1)]
    return _gain_path(confidence, correct, cost, count, groups, first_power=0)


def _gain_path(confidence, correct, cost, count, groups, first_power):
    """Backward induction for each price; see `keras_attn.early_exit.policy`."""
    doubts = doubt(confidence).astype("float64")
    powers = np.arange(first_power, DEGREE + 1)
    # (exits - 1, N, coefficients)
    features = doubts.T[:-1, :, None] ** powers
    alone = [range(stage, stage + 1) for stage in range(len(features))]
    path = []
    for price in prices(cost, count):
        worth = correct - price * cost
        on, weights = None, None
        for sweep in range(SWEEPS):
            gains, weights = _gains(worth, on, features)
            fitted = _least_squares(
                features, gains, weights, groups if sweep else alone
            )
            before = on
            on = (features @ fitted[:, :, None])[..., 0] > 0
            if sweep > 1 and before is not None and np.array_equal(before, on):
                break
        rule = np.zeros((len(features), DEGREE + 1))
        rule[:, powers] = fitted
        path.append(rule)
    return np.array(path)


def _gains(worth, on, features):
    """Gain of each image from continuing at each exit, and the images' weights there.

    Args:
        worth: `(N, exits)` worth of each answer, less its cost.
        on: `(exits - 1, N)` images that continue at each exit; `None` at first, when
            the exits are decided here, from the last to the first, by a fit of each.
        features: `(exits - 1, N, coefficients)`.

    Returns:
        `(gains, weights)`, both `(exits - 1, N)`.
    """
    decided = on is not None
    gains = np.empty(features.shape[:2])
    value = worth[:, -1]
    for stage in range(len(features))[::-1]:
        gains[stage] = value - worth[:, stage]
        if decided:
            goes = on[stage]
        else:
            alone = slice(stage, stage + 1)
            ones = np.ones((1, len(worth)))
            fit = _least_squares(features[alone], gains[alone], ones, [range(1)])
            goes = features[stage] @ fit[0] > 0
        value = np.where(goes, value, worth[:, stage])
    weights = np.ones_like(gains)
    if decided:
        reached = np.cumprod(on[:-1], axis=0)
        weights[1:] = WEIGHT_OF_STOPPED + reached
    return gains, weights


def _least_squares(features, targets, weights, groups):
    """Coefficients `(exits - 1, coefficients)`, equal within a group of exits."""
    fitted = np.empty((len(features), features.shape[2]))
    for group in groups:
        size = features.shape[2]
        matrix, vector = np.zeros((size, size)), np.zeros(size)
        for stage in group:
            weighted = features[stage].T * weights[stage]
            matrix = matrix + weighted @ features[stage]
            vector = vector + weighted @ targets[stage]
        scale = np.sqrt(np.diag(matrix))
        scale[scale == 0] = 1.0
        matrix = matrix / np.outer(scale, scale) + RIDGE * np.eye(len(scale))
        fitted[list(group)] = np.linalg.solve(matrix, vector / scale) / scale
    return fitted


def thresholds(confidence, correct, cost, count):
    """One threshold for every exit: an image continues below it.

    For each price, one threshold after the other takes its best value for the given
    others, until none moves.
    """
    confidence = np.asarray(confidence, "float64")
    sorting = np.argsort(confidence[:, :-1], axis=0, kind="stable")
    path = []
    for price in prices(cost, count):
        worth = correct - price * cost
        limits = np.full(len(cost) - 1, 0.9)
        for _ in range(2 * SWEEPS):
            before = limits.copy()
            for stage in range(len(limits))[::-1]:
                limits[stage] = _best_threshold(
                    confidence, worth, limits, stage, sorting[:, stage]
                )
            if np.array_equal(before, limits):
                break
        path.append(rule_of_thresholds(limits))
    return np.array(path)


def _best_threshold(confidence, worth, limits, stage, sorting):
    below = confidence[:, :-1] < limits
    value = worth[:, -1]
    for later in range(stage + 1, len(limits))[::-1]:
        value = np.where(below[:, later], value, worth[:, later])
    gain = np.where(below[:, :stage].all(axis=1), value - worth[:, stage], 0.0)
    ordered = confidence[sorting, stage]
    # Entry k: the k least confident images continue.
    total = np.append(0.0, np.cumsum(gain[sorting]))
    total[1:-1][ordered[1:] == ordered[:-1]] = -np.inf
    # Rounding must not decide between equally good ones.
    best = int(np.argmax(total >= total.max() - 1e-9))
    if best == 0:
        return 0.0
    if best == len(ordered):
        return 1.0 + 1e-6
    return (ordered[best - 1] + ordered[best]) / 2


def rule_of_thresholds(limits):
    """Thresholds as a rule: `confidence < t` is `u - (1 - t) > 0`."""
    rule = np.zeros((len(limits), DEGREE + 1))
    rule[:, 0] = np.asarray(limits, "float64") - 1
    rule[:, 1] = 1
    return rule


FITS = {
    "shared gain": shared_gain,
    "separate gains": separate_gains,
    "thresholds": thresholds,
}
