"""The search of hyperparameters: at random, then on a grid around the best.

"Refining Residual Mappings Using Regions of High Attention", section 5.1, for the
fields of any recipe. Trials are compared by the accuracy on the validation images after
the last epoch; test images are not looked at.
"""

import csv
import dataclasses
import io
import itertools
import json
import pathlib

import numpy as np

from keras_attn.pipelines.files import DAMAGE, read_json, write_then_rename
from keras_attn.training.data.load import load_data, load_source_of
from keras_attn.training.fit.callbacks import NotFiniteError
from keras_attn.training.fit.train import train
from keras_attn.training.methods import method_of
from keras_attn.training.recipes.assignments import split_assignment
from keras_attn.training.recipes.schema import apply_overrides
from keras_attn.training.runs.environment import next_command
from keras_attn.training.runs.state import load_progress

# Searched by default where a recipe has them: the fields of section 5.1, and the factor
# by which the learning rate drops.
SPACE = (
    "learning_rate=1e-4:1e-2",
    "weight_decay=1e-5:1e-2",
    "decay_factor=0.1,0.2,0.5",
    "batch_size=64,128,256",
)
# They decide what is judged on which images, so trials would not be comparable.
FIXED = (
    "name",
    "method",
    "dataset",
    "split",
    "split_seed",
    "image_size",
    "crop_fraction",
    "examples",
    "difficulty",
    "seed",
)
# On the grid, neighbours of the best are this many times closer than a range's ends.
GRID_STEPS = 6
# Draws in a row that give a known trial before all trials of a space count as made.
MISSES = 1000
SEARCH, RESULTS, BEST = "search.json", "trials.csv", "best.json"
OBJECTIVE = "validation_accuracy"
VERSION = 2


@dataclasses.dataclass(frozen=True)
class Field:
    """Values of a field of a recipe, as texts: a list, or the ends of a range.

    A range is searched evenly in its logarithm, in steps of three digits.
    """

    name: str
    values: tuple[str, ...]
    is_range: bool

    def draw(self, random):
        """A random value."""
        if not self.is_range:
            return self.values[random.integers(len(self.values))]
        low, high = map(float, self.values)
        return f"{low * (high / low) ** random.random():.3g}"

    def around(self, value):
        """A value, and of a range also its neighbours on the grid."""
        if not self.is_range:
            return (value,)
        low, high = map(float, self.values)
        step = (high / low) ** (1 / GRID_STEPS)
        near = [min(max(float(value) * step**k, low), high) for k in (-1, 1)]
        return tuple(dict.fromkeys([value, *(f"{each:.3g}" for each in near)]))


def parse_space(recipe, texts):
    """`Field`s from `NAME=LOW:HIGH` and `NAME=A,B,C`, checked against the recipe.

    Raises:
        ValueError: For another form, a field that is not to be searched, or a value
            that the recipe refuses.
    """
    fields = {}
    for text in texts:
        expected = "NAME=LOW:HIGH or NAME=A,B,C to search a field of the recipe"
        name, values = split_assignment(text, expected)
        is_range = ":" in values
        parts = tuple(values.split(":" if is_range else ","))
        if "" in parts or (is_range and len(parts) > 2):
            raise ValueError(f"Expected {expected}. Received: {text!r}")
        if name in FIXED or name in fields:
            raise ValueError(
                f"Expected fields of the training, each once. Received: {text!r}"
            )
        known = [
            apply_overrides(recipe, [f"{name}={part}"]).to_dict()[name]
            for part in parts
        ]
        kinds = float if is_range else (int, float, str, bool)
        if not all(isinstance(value, kinds) for value in known):
            raise ValueError(
                "Expected a range of a field with fractions, or a list of single "
                f"values. Received: {text!r}"
            )
        if is_range and not 0 < known[0] < known[1]:
            raise ValueError(
                f"Expected a range from a positive number up. Received: {text!r}"
            )
        fields[name] = Field(name, parts, is_range)
    return tuple(fields.values())


def default_space(recipe):
    """The parts of `SPACE` whose fields the recipe has."""
    known = recipe.to_dict()
    return tuple(text for text in SPACE if split_assignment(text)[0] in known)


def tune(
    recipe,
    folder,
    data=None,
    trials=20,
    grid=9,
    space=None,
    seed=0,
    on_corrupt="error",
    report=print,
):
    """Searches the fields of a recipe, or resumes such a search.

    Every trial is a run in `FOLDER/runs`. After each of them `trials.csv`, `trials.md`
    and `best.json` in the folder are up to date; a search resumes from the first. A
    trial whose loss becomes infinite counts as failed.

    Args:
        recipe: `Recipe`.
        folder: Folder of the search.
        data, on_corrupt: See `keras_attn.training.fit.train.train`.
        trials: Random trials; more than before are added, unless the grid has begun.
        grid: Limit of the number of trials on the grid around the best random one.
        space: Fields and values, see `parse_space`; by default `default_space`.
        seed: Seed of the random trials.
        report: Called with lines of text.

    Returns:
        Dict of `recipe`, `overrides` (texts for `--set`), `validation_accuracy` (in
        per cent) and `trials`.

    Raises:
        ValueError: If the space or the recipe is wrong, the folder is that of another
            search, there are no validation images, or no trial succeeded.
    """
    if trials < 1 or grid < 0 or seed < 0:
        raise ValueError(
            "Expected at least one random trial, and no fewer than 0 on the grid, and "
            f"a seed of at least 0. Received: trials={trials}, grid={grid}, seed={seed}"
        )
    fields = parse_space(recipe, space or default_space(recipe))
    method_of(recipe).check(recipe)
    folder = pathlib.Path(folder)
    description = {
        "version": VERSION,
        "recipe": recipe.to_dict(),
        "space": [dataclasses.asdict(field) for field in fields],
        "seed": seed,
    }
    description = json.dumps(description, indent=2) + "\n"
    _check_folder(folder, json.loads(description))
    search = _Search(recipe, folder, [field.name for field in fields], report)
    made = search.count("random")
    if trials > made and search.count("grid"):
        raise ValueError(
            f"Expected no more random trials than the {made} that the grid in {folder} "
            f"was made around. Received: trials={trials}. Choose another --workdir."
        )
    source = load_source_of(recipe, data, on_corrupt)
    spec, splits = load_data(recipe, source=source)
    if not len(splits["validation"][1]):
        raise ValueError(
            f"Expected a split with validation images. Received: {recipe.split!r} of "
            f"{recipe.dataset}"
        )
    _check_batches(fields, len(splits["train"][1]))
    del splits
    source = source.decoded(spec)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / SEARCH, description)
    search.run("random", itertools.islice(_drawn(fields, seed), trials), source)
    near = _grid(fields, search.best(["random"]))
    search.run("grid", itertools.islice(near, grid), source)
    return search.summary()


def _check_batches(fields, count):
    """Raises ValueError for batches of more than all training images."""
    sizes = [each.values for each in fields if each.name == "batch_size"]
    large = [size for values in sizes for size in values if int(size) > count]
    if large:
        raise ValueError(
            f"Expected batches of at most the {count} training images. Received: "
            f"batch_size={','.join(large)}. Name all fields to search with --search."
        )


def _drawn(fields, seed):
    """Yields different random trials, always the same."""
    random, seen, misses = np.random.default_rng(seed), [], 0
    while misses < MISSES:
        values = [field.draw(random) for field in fields]
        misses = misses + 1 if values in seen else 0
        if not misses:
            seen.append(values)
            yield values


def _grid(fields, best):
    """The trials around the best: those that differ in the fewest fields first."""
    centre = [best[field.name] for field in fields]
    near = itertools.product(*(field.around(best[field.name]) for field in fields))
    return sorted(
        map(list, near),
        key=lambda values: sum(map(str.__ne__, values, centre)),
    )


class _Search:
    """The trials of a search, as lines of texts, and the files that hold them."""

    def __init__(self, recipe, folder, names, report):
        self.recipe, self.folder, self.names = recipe, folder, names
        self.columns = ["stage", "trial", *names, OBJECTIVE]
        self.report, self.lines = report, []
        path = folder / RESULTS
        if path.is_file():
            try:
                header, *rows = csv.reader(path.read_text().splitlines())
                self.lines = [dict(zip(header, row, strict=True)) for row in rows]
                [float(line[OBJECTIVE] or 0) for line in self.lines]
            except (csv.Error, *DAMAGE):
                header = None
            if header != self.columns:
                raise ValueError(f"{path} is not a table of the search's trials.")

    def count(self, stage):
        return sum(line["stage"] == stage for line in self.lines)

    def run(self, stage, planned, source):
        """Makes the trials of a stage that were not made before."""
        made = self.count(stage)
        for number, values in enumerate(planned):
            if number >= made:
                score = self._score(f"{stage}-{number:03d}", values, source)
                line = [stage, f"{number:03d}", *values, score]
                self.lines.append(dict(zip(self.columns, line, strict=True)))
                self._write()

    def _score(self, name, values, source):
        for line in self.lines:
            if [line[name] for name in self.names] == values:
                return line[OBJECTIVE]
        settings = list(map("=".join, zip(self.names, values, strict=True)))
        recipe = apply_overrides(self.recipe, settings)
        self.report(f"{name}: {' '.join(settings)}")
        try:
            run = train(recipe, self.folder / "runs" / name, source=source)
            score = f"{accuracy_of(run):.4f}"
        except NotFiniteError:
            score = ""
        self.report(f"{name}: {score or 'failed, its loss became infinite'}")
        return score

    def best(self, stages=("random", "grid")):
        known = [
            line for line in self.lines if line[OBJECTIVE] and line["stage"] in stages
        ]
        if not known:
            raise ValueError(
                f"Expected a trial that succeeds. Received: {len(self.lines)} trials "
                f"in {self.folder} whose loss became infinite"
            )
        return max(known, key=lambda line: float(line[OBJECTIVE]))

    def summary(self):
        best = self.best()
        return {
            "recipe": self.recipe.name,
            "overrides": [f"{name}={best[name]}" for name in self.names],
            OBJECTIVE: float(best[OBJECTIVE]),
            "trials": len(self.lines),
        }

    def _write(self):
        ordered = sorted(self.lines, key=lambda line: -float(line[OBJECTIVE] or -1))
        rows = [self.columns, ["---"] * len(self.columns), *map(dict.values, ordered)]
        text = [
            f"# Hyperparameters of {self.recipe.name}\n",
            "Accuracy on the validation images after the last epoch, per cent.\n",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
        _write((self.folder / RESULTS).with_suffix(".md"), "\n".join(text) + "\n")
        if ordered[0][OBJECTIVE]:
            _write(self.folder / BEST, json.dumps(self.summary(), indent=2) + "\n")
        text = io.StringIO()
        table = [self.columns, *map(dict.values, self.lines)]
        csv.writer(text, lineterminator="\n").writerows(table)
        # Last, since the search resumes from it.
        _write(self.folder / RESULTS, text.getvalue())


def accuracy_of(run):
    """Validation accuracy of a run's last epoch, in per cent."""
    watched = method_of(run.recipe).watched(run.load_model("last"))
    return 100 * load_progress(run.checkpoints / "last.npz").history[-1][watched]


def format_summary(summary):
    """The best of a search, as the command that trains it."""
    best = next_command("train", summary["recipe"], "--set", *summary["overrides"])
    return (
        f"Best of {summary['trials']} trials: {summary[OBJECTIVE]:.2f} % of the "
        f"validation images\n{best}"
    )


def _write(path, text):
    with write_then_rename(path) as file:
        file.write(text.encode())


def _check_folder(folder, wanted):
    """Raises ValueError for a folder that is neither new nor that of this search."""
    path = folder / SEARCH
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                "Expected a new folder or the folder of a search. "
                f"Received: {folder}, which holds something else."
            )
        return
    try:
        found = dict(read_json(path))
    except DAMAGE as error:
        raise ValueError(
            f"Cannot read {path}, which is damaged ({error}). Choose another --workdir."
        ) from error
    different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        raise ValueError(
            f"The folder {folder} belongs to a search with another "
            f"{' and '.join(different)}. Choose another --workdir."
        )
