"""Two processes, and two devices, train on JAX what one of them trains."""

import signal

import pytest

from keras_attn.training.runs.run import Run
from tests.training.runs.test_state import history_of
from tests.training.two_processes import Processes, check_end, difference

pytest.importorskip("jax", "0.4.36")
CASE = "class_embedding"
# Compiled quickly, sums of parts are rounded otherwise than those of the whole.
WEIGHTS, LOGS = 5e-3, 2e-4


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the same training in one process, in two, and on two devices."""
    root = tmp_path_factory.mktemp("runs")
    started = {
        "one": Processes(root / "one", [CASE], 1),
        "two": Processes(root / "two", [CASE], 2),
        "devices": Processes(root / "devices", [CASE], 1, devices=2),
    }
    for each in started.values():
        statuses, output = each.end()
        assert not any(statuses), output
    assert "on 1 devices" in started["one"].output
    assert "on 2 devices" in started["devices"].output
    return root


@pytest.mark.parametrize("which", ["two", "devices"])
def test_weights_statistics_and_logs_are_those_of_one(runs, which):
    """With dropout and batch normalisation, and 11 images to validate on."""
    one, other = runs / "one" / CASE, runs / which / CASE
    assert difference(one, other) < WEIGHTS
    for mine, theirs in zip(history_of(one), history_of(other), strict=True):
        assert mine.keys() == theirs.keys() and "val_logits_accuracy" in mine
        for name in mine:
            assert float(theirs[name]) == pytest.approx(float(mine[name]), rel=LOGS)


def test_process_0_alone_writes_and_prints(runs):
    assert not (runs / "two" / "nothing").exists()
    assert "Epoch" not in (runs / "two" / "log-1.txt").read_text()
    card = (Run.open(runs / "two" / CASE).workdir / "card.md").read_text()
    assert "- Processes: 2, from epoch 1\n" in card
    assert "Processes" not in (runs / "one" / CASE / "card.md").read_text()


def test_a_killed_process_ends_the_other_and_the_run_resumes(runs, tmp_path):
    broken = Processes(tmp_path, [CASE], options=["--pause", "0.1"])
    broken.wait_for("step 3 of epoch 2")
    broken.kill(1)
    statuses, output = broken.end(20)
    assert statuses == [2, -signal.SIGKILL]
    assert "Process 1 of 2 has ended" in check_end(statuses, output, 1)

    again = Processes(tmp_path, [CASE])
    assert again.end()[0] == [0, 0], again.output
    assert "after epoch 1 of 2" in again.output
    assert difference(runs / "two" / CASE, tmp_path / CASE) == 0
