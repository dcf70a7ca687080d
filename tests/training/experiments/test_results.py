"""The results file: schema, replacement, summaries, provenance."""

import csv
import math
import re
import statistics

import pytest

from keras_attn.training.experiments import results
from keras_attn.training.runs import environment
from keras_attn.training.runs.environment import commit, hardware, versions


def line(**changes):
    values = {
        "method": "class_embedding",
        "table": "table1",
        "dataset": "cifar10",
        "row": "rn26_aux",
        "metric": "test_accuracy",
        "value": 90.5,
        "unit": "%",
        "paper_value": 90.57,
        "seed": 0,
        "epochs": 200,
        "commit": "abc",
        "versions": 'keras 3; "numpy", 2',
        "hardware": "2 cores",
        "seconds": 12.5,
    }
    return {**values, **changes}


def test_the_columns_are_the_promised_ones(tmp_path):
    path = results.results_path(tmp_path, "class_embedding", "table1", "cifar10")
    assert path.name == "class_embedding_table1_cifar10.csv"
    results.write_rows(path, [line()])
    assert path.read_text().splitlines()[0] == (
        "method,table,dataset,row,metric,value,unit,paper_value,seed,epochs,commit,"
        "versions,hardware,seconds"
    )


def test_rows_survive_a_round_trip(tmp_path):
    rows = [line(), line(seed=1, value=1 / 3, paper_value=None)]
    results.write_rows(tmp_path / "new" / "r.csv", rows)
    assert results.read_rows(tmp_path / "new" / "r.csv") == rows
    assert results.read_rows(tmp_path / "nothing.csv") == []


def test_files_of_earlier_versions_have_no_units(tmp_path):
    path = tmp_path / "r.csv"
    results.write_rows(path, [line()])
    with open(path, newline="") as file:
        table = list(csv.reader(file))
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([*cells[:6], *cells[7:]] for cells in table)
    assert results.read_rows(path) == [line(unit=None)]
    results.add_row(path, line(seed=1))
    assert results.read_rows(path) == [line(unit=None), line(seed=1)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": math.nan}, "value to be a finite number"),
        ({"value": math.inf}, "value to be a finite number"),
        ({"value": None}, "value to be a finite number"),
        ({"value": ""}, "value to be a finite number"),
        ({"paper_value": "high"}, "paper_value to be a finite number"),
        ({"seed": 1.5}, "seed to be an integer"),
        ({"seed": "one"}, "seed to be an integer"),
        ({"commit": ""}, "commit to be a text"),
        ({"commit": None}, "commit to be a text"),
        ({"method": "class_embeding"}, "method to be one of"),
        ({"colour": "red"}, r"Differing: \['colour'\]"),
    ],
)
def test_a_wrong_row_is_refused_and_the_file_stays(tmp_path, changes, words):
    path = tmp_path / "r.csv"
    results.write_rows(path, [line()])
    with pytest.raises(ValueError, match=words):
        results.add_row(path, line(**changes))
    assert results.read_rows(path) == [line()]


def test_a_missing_column_is_refused():
    row = line()
    del row["seconds"]
    with pytest.raises(ValueError, match=r"Differing: \['seconds'\]"):
        results.check_row(row)


@pytest.mark.parametrize("cells", [-1, 1])
def test_a_line_of_another_length_is_refused(tmp_path, cells):
    path = tmp_path / "r.csv"
    header = list(results.COLUMNS)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerow((["1"] * (len(header) + 1))[: len(header) + cells])
    with pytest.raises(ValueError, match="r.csv is not a results file"):
        results.read_rows(path)


def test_a_row_replaces_that_of_the_same_run_only(tmp_path):
    path = tmp_path / "r.csv"
    others = [
        line(seed=1),
        line(epochs=2),
        line(row="rn26_baseline"),
        line(metric="validation_accuracy"),
    ]
    for row in [line(), *others, line(value=77.0)]:
        results.add_row(path, row)
    assert results.read_rows(path) == [*others, line(value=77.0)]


def test_summaries_agree_with_the_statistics_module():
    values = [90.5, 91.25, 89.0]
    rows = [
        line(seed=2 - seed, value=value, seconds=10.0 * seed)
        for seed, value in enumerate(values)
    ]
    rows.append(line(row="rn26_baseline", value=80.0, paper_value=None))
    rows.append(line(epochs=2, value=10.0))
    summary = results.summarize(rows)
    assert len(summary) == 3
    group = summary["rn26_aux", "test_accuracy", 200]
    assert group.mean == pytest.approx(statistics.mean(values))
    assert group.spread == pytest.approx(statistics.stdev(values))
    assert group.seconds == 10.0
    assert group.seeds == [0, 1, 2]
    assert group.paper_value == 90.57
    single = summary["rn26_baseline", "test_accuracy", 200]
    assert single.mean == 80.0 and math.isnan(single.spread)
    assert single.paper_value is None


def test_provenance_says_what_ran():
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|version .+", commit())
    assert "keras 3." in versions() and "python 3." in versions()
    assert hardware().strip()


def test_installed_code_gives_its_version(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert commit().startswith("version 0.")
