"""Timing of alternatives against each other in one process."""

import dataclasses
import statistics
import time


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One line of the table, but for its commit, versions and hardware.

    Args:
        case: Name of the case.
        value: Number.
        unit: Unit of the value.
        ratio: Value in relation to the comparison's reference case.
        xla: `"on"`, `"off"`, or empty where the question does not arise.
    """

    case: str
    value: float
    unit: str
    ratio: float
    xla: str = ""


def interleaved(cases, repetitions, warmup=1, clock=time.perf_counter):
    """Times the cases in turn: A B C A B C ...

    A slow spell of the machine then affects all cases equally.

    Args:
        cases: Dict from a name to a function that returns when its work is done.
        repetitions: Rounds that are timed.
        warmup: Rounds before them that are not timed.
        clock: Function that returns the time in seconds.

    Returns:
        Dict from the name to the list of seconds, one per round.
    """
    if repetitions < 1:
        raise ValueError(
            f"Expected at least one repetition. Received: repetitions={repetitions}"
        )
    seconds = {name: [] for name in cases}
    for round_number in range(warmup + repetitions):
        for name, function in cases.items():
            start = clock()
            function()
            elapsed = clock() - start
            if round_number >= warmup:
                seconds[name].append(elapsed)
    return seconds


def median_ratio(numerators, denominators):
    """Median over rounds of the ratio within a round."""
    pairs = zip(numerators, denominators, strict=True)
    return statistics.median(above / below for above, below in pairs)


def relative_times(seconds, reference, xla=""):
    """Measurements in milliseconds, with the ratio to the reference case.

    Args:
        seconds: Result of `interleaved`.
        reference: Name of the case to compare with.
        xla: See `Measurement`.
    """
    return [
        Measurement(
            case,
            1000 * statistics.median(times),
            "ms",
            median_ratio(times, seconds[reference]),
            xla,
        )
        for case, times in seconds.items()
    ]


def wait_for(tensor):
    """Returns when the tensor has been computed, on any backend and device."""
    import keras

    keras.ops.convert_to_numpy(tensor[(0,) * len(tensor.shape)])
