"""An experiment: the rows of one table or figure of a paper, on one data set."""

import dataclasses

from keras_attn.training.recipes.schema import Recipe


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: its label, what is trained for it, and what the paper reports.

    Args:
        label: Name of the row in the results.
        recipe: Recipe to train, once per seed.
        paper_value: The paper's number, or `None` where it prints none.
        needs: Fields of the recipe that name another row's run of the same seed, as
            pairs `(field, label)`: `(("initial", "full"),)` starts from row `full`.
        runs_of: Label of the row whose runs these are, in an experiment that shares
            the runs of another one; by default the same label.
    """

    label: str
    recipe: Recipe
    paper_value: float | None = None
    needs: tuple[tuple[str, str], ...] = ()
    runs_of: str = ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Rows that are trained with identical recipes and seeds, and compared.

    Args:
        method: Method of the paper.
        table: Its table or figure, such as `table1`.
        dataset: Name of the data set.
        title: What is compared.
        rows: The rows.
        measure: Name of a measure in `keras_attn.training.experiments.measures` in
            place of accuracy.
        figure: Name of a figure in `keras_attn.training.experiments.figures` to draw
            of the trained runs in place of the plot of the values.
        study: Name of a study in `keras_attn.training.experiments.studies` that
            measures all runs of a seed together, in place of a measure of each.
        paper_values: The paper's numbers for a study, as pairs `((row, metric),
            value)`.
        runs_of: Name of the experiment whose rows of the same labels are the same
            runs; they are trained once for both.
    """

    method: str
    table: str
    dataset: str
    title: str
    rows: tuple[Row, ...]
    measure: str = "accuracy"
    figure: str = ""
    study: str = ""
    paper_values: tuple = ()
    runs_of: str = ""

    @property
    def name(self):
        return f"{self.method}_{self.table}_{self.dataset}"


def by_dataset(method, table, title, rows):
    """An `Experiment` per data set of a dict from data sets to rows."""
    return tuple(
        Experiment(method, table, dataset, title, each)
        for dataset, each in rows.items()
    )
