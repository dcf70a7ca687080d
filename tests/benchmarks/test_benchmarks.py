"""The measuring, not the measured: made-up clocks and numbers."""

import csv
import importlib
import pathlib

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    measure,
    patch_selection,
    perturbed_memory,
    soft_maximizers,
    table,
)
from benchmarks.catalogue import BENCHMARKS, Target


class FakeClock:
    """Time passes only while a case runs."""

    def __init__(self):
        self.now = 100.0
        self.calls = []

    def case(self, name, durations):
        durations = iter(durations)

        def run():
            self.calls.append(name)
            self.now += next(durations)

        return run


def test_cases_take_turns_and_warmup_is_not_counted():
    clock = FakeClock()
    cases = {
        "a": clock.case("a", [90.0, 1.0, 2.0, 3.0]),
        "b": clock.case("b", [70.0, 4.0, 5.0, 6.0]),
    }
    seconds = measure.interleaved(cases, 3, warmup=1, clock=lambda: clock.now)
    assert clock.calls == ["a", "b"] * 4
    assert seconds == {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}


def test_no_repetition_is_refused():
    with pytest.raises(ValueError, match="at least one repetition"):
        measure.interleaved({}, 0)


def test_ratio_is_of_rounds_so_a_slow_round_cancels():
    reference = [1.0, 10.0, 2.0]
    other = [1.5, 15.0, 3.0]
    assert measure.median_ratio(other, reference) == pytest.approx(1.5)
    rounds = np.divide([2.0, 3.0, 40.0, 5.0], [1.0, 2.0, 4.0, 2.0])
    ratio = measure.median_ratio([2.0, 3.0, 40.0, 5.0], [1.0, 2.0, 4.0, 2.0])
    assert ratio == pytest.approx(np.median(rounds))
    with pytest.raises(ValueError):
        measure.median_ratio([1.0], [1.0, 2.0])


def test_relative_times_are_median_milliseconds():
    seconds = {"bn": [0.1, 0.3, 0.2], "other": [0.2, 0.3, 0.6]}
    first, second = measure.relative_times(seconds, "bn", "off")
    assert (first.case, first.unit, first.xla) == ("bn", "ms", "off")
    assert first.value == pytest.approx(200.0) and first.ratio == 1.0
    assert second.value == pytest.approx(300.0)
    assert second.ratio == pytest.approx(2.0)


def test_rates_compare_images_not_rounds():
    from benchmarks.input_pipeline import rates

    seconds = {"pipeline": [2.0, 4.0, 1.0], "step": [1.0, 1.0, 2.0]}
    counts = {"pipeline": 1000, "step": 100}
    pipeline, step = rates(seconds, counts, 32)
    assert pipeline.case == "pipeline, batch 32"
    assert pipeline.value == pytest.approx(500.0)
    # Rounds: 500 / 100, 250 / 100, 1000 / 50.
    assert pipeline.ratio == pytest.approx(5.0)
    assert step.value == pytest.approx(100.0) and step.ratio == 1.0


def test_given_patches_are_those_of_the_paper():
    from benchmarks import patches_against_full_image as benchmark

    branches, patches = np.array(benchmark.BRANCHES), np.array(benchmark.PATCHES)
    shares = np.bincount(branches) / len(branches)
    np.testing.assert_allclose(
        shares, np.divide([15050, 18047, 16903], 50000), atol=0.03
    )
    means = [patches[branches == branch].mean() for branch in range(3)]
    np.testing.assert_allclose(means, [5.6, 2.9, 2.1], atol=0.11)
    sizes = {63: 21, 95: 17, 111: 15}
    random = np.random.default_rng(0)
    maps = {}
    for size, cells in sizes.items():
        maps[f"logits_{size}"] = random.normal(size=(16, 2)).astype("float32")
        evidence = random.normal(size=(16, cells, cells, 2))
        maps[f"evidence_{size}"] = evidence.astype("float32")
    layer = benchmark.GivenPatches(
        [{"name": str(size), "patch_size": size} for size in sizes], (6, 3, 3)
    )
    found = layer(maps)
    np.testing.assert_array_equal(found["branch"], branches)
    np.testing.assert_array_equal(np.sum(found["valid"], axis=1), patches)
    sides = np.asarray(found["boxes"])[:, 0]
    np.testing.assert_array_equal(
        sides[:, 2] - sides[:, 0], np.take(list(sizes), branches)
    )


def test_speedups_say_how_many_times_faster_a_case_is():
    seconds = {"Python loop": [2.0, 6.0, 4.0], "batched": [1.0, 2.0, 0.5]}
    loop, batched = patch_selection.speedups(seconds, "Python loop", "on")
    assert (loop.ratio, batched.ratio) == (1.0, 3.0)
    assert (loop.xla, batched.xla) == ("", "on")
    assert batched.value == pytest.approx(1000.0)


def test_loops_over_images_choose_the_same_patches():
    maps = np.random.default_rng(0).standard_normal((4, 17, 17))
    boxes = patch_selection.batched_selection(maps.astype("float32"), False)()
    patch_selection.check(maps.astype("float32"), [boxes])
    boxes = np.array(boxes)
    boxes[2, 1] += 1
    with pytest.raises(RuntimeError, match="same patches"):
        patch_selection.check(maps.astype("float32"), [boxes])


def test_targets_bound_the_ratio_from_their_side():
    assert Target("<=", 1.1).verdict(1.1) == "<= 1.10: met"
    assert Target("<=", 1.1).verdict(1.11) == "<= 1.10: MISSED"
    assert Target(">=", 3.0).verdict(2.9) == ">= 3.00: MISSED"
    assert Target(">=", 3.0).verdict(3.0) == ">= 3.00: met"


@pytest.mark.parametrize("compiled", [False, True])
def test_gradient_step_runs_the_backward_pass(compiled, monkeypatch):
    import keras

    seen = []
    monkeypatch.setattr(measure, "wait_for", seen.append)
    keras.utils.set_random_seed(0)
    layers = soft_maximizers.bn_relu()
    soft_maximizers.gradient_step(layers, (3, 5, 7, 2), compiled)()
    gradient = keras.ops.convert_to_numpy(seen[0])
    # Batch normalisation ignores a shift of all inputs: every channel sums to zero.
    assert gradient.shape == (3, 5, 7, 2) and np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(gradient.sum(axis=(0, 1, 2)), 0.0, atol=1e-3)


def test_peak_memory_agrees_with_the_kernel():
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux tells the peak in a second way")
    peak = perturbed_memory.peak_memory()
    kib = next(
        int(line.split()[1])
        for line in status.read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    assert peak == pytest.approx(kib * 1024 / 1e6, rel=0.02)


def row(benchmark="step_time", case="baseline", **changes):
    return {
        "benchmark": benchmark,
        "case": case,
        "backend": "jax",
        "xla": "on",
        "value": 12345.678,
        "unit": "ms",
        "ratio": 1.0,
        "commit": "abc",
        "versions": "keras 3, jax 1",
        "hardware": "a processor",
        **changes,
    }


def test_csv_has_the_columns_and_reads_back(tmp_path):
    rows = [row(), row(case="class_embedding", value=0.012345, ratio=1.2)]
    table.write(tmp_path, rows)
    with open(tmp_path / "benchmarks.csv", newline="") as file:
        assert next(csv.reader(file)) == list(table.COLUMNS)
    back = table.read_csv(tmp_path / "benchmarks.csv")
    assert [line["case"] for line in back] == ["baseline", "class_embedding"]
    assert back[0]["value"] == 12346.0 and back[0]["versions"] == "keras 3, jax 1"
    assert back[1]["value"] == pytest.approx(0.01235, rel=1e-3)
    assert back[1]["ratio"] == 1.2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "benchmarks.csv",
        "benchmarks.md",
    ]


def test_a_strange_file_is_refused(tmp_path):
    (tmp_path / "benchmarks.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="Expected the columns benchmark, case"):
        table.read_csv(tmp_path / "benchmarks.csv")


def test_markdown_judges_targets_and_names_what_was_left_out():
    rows = [row(), row(case="class_embedding", ratio=1.25)]
    text = table.markdown(rows, ["step_time on torch: torch is not installed"])
    lines = text.splitlines()
    header = next(line for line in lines if line.startswith("| benchmark"))
    body = [line for line in lines if line.startswith("| step_time")]
    assert len(body) == 2
    assert all(line.count("|") == header.count("|") for line in body)
    assert body[0].endswith("| 1.00 |  |")
    assert body[1].endswith("| 1.25 | <= 1.10: MISSED |")
    assert "- step_time on torch: torch is not installed." in lines
    assert "hardware: a processor" in lines


def fake_run(monkeypatch, installed, failing=()):
    def measured(name, backend, quick):
        if (name, backend) in failing:
            raise command.subprocess.CalledProcessError(1, name, stderr="a reason")
        return [row(name, "a case", backend=backend)]

    monkeypatch.setattr(command, "measured", measured)
    monkeypatch.setattr(
        command.importlib.util, "find_spec", lambda name: name in installed or None
    )


def test_missing_backends_are_left_out_without_an_error(tmp_path, monkeypatch, capsys):
    fake_run(monkeypatch, {"tensorflow"})
    assert command.main(["step_time", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "- step_time on jax: jax is not installed." in printed
    assert printed.count("| step_time |") == 1


def test_a_failing_case_is_named_and_the_others_are_kept(tmp_path, monkeypatch, capsys):
    fake_run(monkeypatch, {"tensorflow", "jax"}, {("step_time", "jax")})
    assert command.main(["--results", str(tmp_path)]) == 1
    rows = table.read_csv(tmp_path / "benchmarks.csv")
    assert {line["benchmark"] for line in rows} == set(BENCHMARKS)
    captured = capsys.readouterr()
    assert "- step_time on jax: failed." in captured.out and "a reason" in captured.err


def test_a_named_run_replaces_its_own_rows_only(tmp_path, monkeypatch):
    fake_run(monkeypatch, {"tensorflow"})
    old = [row("step_time", "old"), row("input_pipeline", "old")]
    table.write(tmp_path, old)
    command.main(["step_time", "--results", str(tmp_path)])
    rows = table.read_csv(tmp_path / "benchmarks.csv")
    assert [(line["benchmark"], line["case"]) for line in rows] == [
        ("step_time", "a case"),
        ("input_pipeline", "old"),
    ]


def test_quick_writes_no_files(tmp_path, monkeypatch):
    fake_run(monkeypatch, {"tensorflow"})
    monkeypatch.chdir(tmp_path)
    command.main(["--quick"])
    assert not list(tmp_path.iterdir())
    command.main([])
    assert (tmp_path / "results" / "benchmarks.csv").exists()


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["step_tiem"])
    assert stopped.value.code == 2
    assert "Received: 'step_tiem'" in capsys.readouterr().err


def test_every_comparison_is_a_file_with_a_run():
    for name, benchmark in BENCHMARKS.items():
        module = importlib.import_module(f"benchmarks.{name}")
        assert callable(module.run)
        assert set(benchmark.backends) <= {"tensorflow", "jax", "torch"}
