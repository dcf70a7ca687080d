import os
import signal
import time

import numpy as np
import pytest

from keras_attn.training.bulk import local, worker
from keras_attn.training.bulk.merge import merge
from keras_attn.training.bulk.plan import Plan
from keras_attn.training.bulk.run import part_of, run
from tests.training import tiny_models as tiny
from tests.training.bulk import jobs, kills

KILLS = 1


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    jobs.photos(folder / "photos")
    tiny.save_colour_model(folder)
    plan = jobs.make(
        "predict", folder / "colours.keras", folder / "photos", folder / "a"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "start", jobs.Forked)
        assert run(plan).done == 15
    return folder


def make(given, output):
    return jobs.make("predict", given / "colours.keras", given / "photos", output)


class Deadly(jobs.StandIn):
    """Shard `KILLS` ends it after it was computed."""

    def rows(self, shard):
        if shard.start == KILLS * jobs.SHARD:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().rows(shard)


def deadly(connection):
    worker.Worker = Deadly
    worker.serve(connection)


def test_workers_and_parts_give_the_same_bytes(given, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "start", jobs.Forked)
    shown = []
    plan = make(given, tmp_path / "two")
    state = run(plan, workers=2, progress=lambda *numbers: shown.append(numbers))
    assert (state.done, state.images, state.waiting) == (15, 15, [])
    assert shown[0] == (0, 15) and shown[-1] == (15, 15)
    plan = make(given, tmp_path / "parts")
    assert run(plan, part=(2, 2)).done == 7 and plan.state().done == 7
    assert run(plan, part=(1, 2)).done == 8
    expected = jobs.contents(given / "a")
    assert jobs.contents(tmp_path / "two") == expected
    assert jobs.contents(tmp_path / "parts") == expected


def test_a_shard_that_ends_its_worker_is_set_aside(given, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "start", lambda *a: jobs.Forked(*a, serve=deadly))
    plan = make(given, tmp_path)
    state = run(plan, workers=2)
    name = "00000004-00000008.npz"
    assert [shard.path.name for shard in state.aside] == [name]
    assert (state.done, state.waiting) == (11, []) and name in state.named_aside()
    assert merge(tmp_path, tmp_path / "merged.npz")["aside"] == [name]
    assert len(run(plan).aside) == 1 and plan.attempts()[4] == 3
    monkeypatch.setattr(local, "start", jobs.Forked)
    assert run(plan, retry=True).done == 15
    assert jobs.contents(tmp_path) == jobs.contents(given / "a")
    assert not list(tmp_path.glob(".*.partial"))


def full(connection):
    def write(*arguments):
        raise ValueError("Expected to write. Received: no space")

    worker.Plan.write_shard = write
    jobs.serve(connection)


def ends(connection):
    os._exit(1)


def test_errors_of_workers_are_one_line(given, tmp_path, monkeypatch):
    plan = make(given, tmp_path)
    monkeypatch.setattr(local, "start", lambda *a: jobs.Forked(*a, serve=full))
    with pytest.raises(ValueError, match="^Expected to write. Received: no space$"):
        run(plan, workers=2)
    assert not plan.attempts()
    monkeypatch.setattr(local, "start", lambda *a: jobs.Forked(*a, serve=ends))
    with pytest.raises(RuntimeError, match="3 that ended while they loaded the model"):
        run(plan)


def test_parts():
    assert part_of("2/8") == (2, 8)
    for text in ("0/4", "5/4", "x", "1", "1/0", "1/2/3", "-1/4"):
        with pytest.raises(ValueError, match=f"part I/N .* Received: '{text}'"):
            part_of(text)


def test_kills_at_random_moments(given):
    """Some of those of `python -m tests.training.bulk.kills`."""
    counts = kills.kill(
        lambda folder: make(given, folder), 2, jobs.FORK, slowly, seed=5
    )
    assert sum(counts[victim] for victim in kills.VICTIMS) == 2


class Slow(jobs.StandIn):
    def rows(self, shard):
        time.sleep(0.05)
        return super().rows(shard)


def slowly(connection):
    worker.Worker = Slow
    worker.serve(connection)


def test_ctrl_c_ends_the_job_and_leaves_no_trace(given, tmp_path):
    job = kills.Job(make(given, tmp_path).path, jobs.FORK, slowly)
    with job:
        job.start()
        while not list(tmp_path.glob("attempts/*")):
            time.sleep(0.01)
        workers, sent = job.workers(), time.monotonic()
        os.kill(job.driver.pid, signal.SIGINT)
        job.driver.join(5)
    assert time.monotonic() - sent < 2 and job.driver.exitcode == 1
    job.check_gone(workers)
    assert not Plan.open(tmp_path).attempts()


def test_workers_share_the_gpus(given, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    seen = []

    def forked(connection, environment):
        seen.append(environment)
        return jobs.Forked(connection, environment)

    monkeypatch.setattr(local, "start", forked)
    run(make(given, tmp_path / "three"), workers=3)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in seen] == ["4", "7", "4"]
    run(make(given, tmp_path / "one"))
    assert seen[3:] == [{}]


@pytest.mark.slow
def test_a_process_of_its_own_computes_the_same(given, tmp_path):
    plan = make(given, tmp_path / "out")
    assert run(plan, workers=2).done == 15
    expected = jobs.compute(make(given, tmp_path / "here")).read_shards()
    rows = plan.read_shards()
    assert rows["name"].tolist() == expected["name"].tolist()
    np.testing.assert_allclose(
        rows["probabilities"], expected["probabilities"], rtol=1e-5
    )
