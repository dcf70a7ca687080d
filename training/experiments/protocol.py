"""Protocols of measures, studies and figures, and their results."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

PERCENT = "%"


class Value(NamedTuple):
    """A number about a trained run.

    Args:
        metric: Its name in the results, such as `test_accuracy`.
        value: The number.
        unit: Its unit; empty for a number without one.
    """

    metric: str
    value: float
    unit: str = PERCENT


class RowValue(NamedTuple):
    """A number about a row of an experiment; see `Value`."""

    row: str
    metric: str
    value: float
    unit: str = PERCENT


class Drawing(NamedTuple):
    """A picture of trained runs.

    Args:
        figure: Matplotlib `Figure`.
        notes: Sentences for the page that shows it.
    """

    figure: Any
    notes: list[str]


@runtime_checkable
class Measure(Protocol):
    """A function of a trained run that gives a number."""

    def __call__(self, run, splits) -> Value:
        """Measures a run.

        Args:
            run: `keras_attn.training.runs.run.Run`, finished.
            splits: Dict from `train`, `validation` and `test` to `(images, labels)`.
        """
        ...


@runtime_checkable
class Study(Protocol):
    """A measure of several runs of one seed together: a module of `studies`.

    It may have `figure(rows)`, from the rows of the results file to a matplotlib
    `Figure` in place of the plot of all values.
    """

    def study(self, runs, sources) -> Iterable[RowValue]:
        """Measures the runs of all rows.

        Args:
            runs: Dict from the rows' labels to `Run`.
            sources: Dict from the rows' labels to the `Source` of the run's data, at
                the run's image size.
        """
        ...


@runtime_checkable
class Figure(Protocol):
    """A function of trained runs that gives a picture."""

    def __call__(self, runs, examples, class_names) -> Drawing:
        """Draws runs of one seed.

        Args:
            runs: Dict from the rows' labels to `Run`.
            examples: `(images, labels)` that are held out.
            class_names: One name per class.
        """
        ...
