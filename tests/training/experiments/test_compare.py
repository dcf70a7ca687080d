"""Comparison of blocks: statistics, and two rows with two seeds from end to end."""

import math

import numpy as np
import pytest

from keras_attn.training.cli import main
from keras_attn.training.experiments import compare, results
from keras_attn.training.methods.frozen_part import FrozenPart
from tests.training.methods.test_finetune import files, pytestmark  # noqa: F401


@pytest.fixture(scope="module")
def computed():
    """Places whose features were computed, in order."""
    return []


@pytest.fixture(scope="module")
def compared(files, computed):  # noqa: F811
    features = FrozenPart.features

    def counted(part, *examples):
        computed.append(part.places)
        return features(part, *examples)

    def run(*words):
        given = "compare", files / "photos", "--from", files / "net.keras"
        given += "--seeds", 2, "--first-seed", 3
        given += "--epochs", 1, "--set", "new_epochs=1", "--per-class", 4
        given += "--workdir", files / "runs", "--results", files / "results"
        assert main([str(word) for word in (*given, *words)]) == 0
        return files / "results" / "finetune_compare_photos_4_per_class.csv"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrozenPart, "features", counted)
        run("--blocks", "none", "squeeze_excitation", "cbam")
    return run


def test_rows_of_a_seed_share_the_features(compared, computed):
    # For `none` the vector in front of the head, for the blocks the last map.
    assert len(computed) == 4 and len({*computed}) == 2


def test_rows_seeds_and_costs_are_recorded_once(compared, capsys):
    path = compared("--blocks", "none", "squeeze_excitation")
    assert "training in" not in capsys.readouterr().out
    rows = results.read_rows(path)
    scores = [row for row in rows if row["metric"] == "test_accuracy"]
    assert sorted((row["row"], row["seed"]) for row in scores) == [
        (row, seed) for row in ("cbam", "none", "squeeze_excitation") for seed in (3, 4)
    ]
    costs = {(row["row"], row["metric"]): row["value"] for row in rows}
    for metric in ("parameters", "multiply_adds"):
        assert costs["none", metric] <= costs["squeeze_excitation", metric]
    assert len(rows) == 6 + 3 * 3


def test_the_page_and_the_table_have_the_verdict(compared):
    path = compared("--blocks", "none", "squeeze_excitation")
    found = compare.differences(results.read_rows(path))["squeeze_excitation"]
    for suffix in (".md", ".html"):
        text = path.with_suffix(suffix).read_text()
        assert found.verdict in text and "squeeze_excitation" in text
        assert "--first-seed 3" in text and "Seeds 3 to 4. " in text
    assert path.with_suffix(".png").is_file()


def test_interval_is_that_of_student():
    values = [1.0, 2.0, 4.0]
    found = compare.difference(values)
    # Of the paired t-test: mean 7/3, deviation sqrt(7/3), t(0.975, 2) = 4.3027.
    half = 4.3027 * math.sqrt(7 / 3) / math.sqrt(3)
    np.testing.assert_allclose(
        [found.mean, found.low, found.high],
        [7 / 3, 7 / 3 - half, 7 / 3 + half],
        rtol=1e-3,
    )


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0, 2.0, 4.0], "no difference that three seeds can tell"),
        ([1.0, 1.1, 0.9], "better by 1.00 points"),
        ([-1.0, -1.1, -0.9], "worse by 1.00 points"),
        ([3.0], "no difference that one seed can tell"),
        ([1.87, 1.87], "no difference that two seeds can tell"),
        ([0.0] * 12, "no difference that 12 seeds can tell"),
    ],
)
def test_verdicts(values, verdict):
    assert compare.difference(values).verdict == verdict
