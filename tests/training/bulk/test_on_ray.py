"""Actors of Ray; one Ray for all tests, since starting it takes seconds."""

import os
import signal

import pytest

from keras_attn.training.bulk import local, on_ray
from keras_attn.training.bulk.run import run
from tests.training import tiny_models as tiny
from tests.training.bulk import jobs


class Computing(on_ray.Actor):
    """Computes something simple; shard 1 ends the first process that takes it."""

    def load(self):
        self.worker = jobs.StandIn(*self.arguments)
        return on_ray.this_process()

    def compute(self, number):
        plan = self.worker.plan
        write, again = plan.write_shard, plan.attempts()[jobs.SHARD]

        def written(shard, arrays):
            if number == 1 and not again:
                os.kill(os.getpid(), signal.SIGKILL)
            write(shard, arrays)

        plan.write_shard = written
        self.worker.compute(number)
        plan.write_shard = write


class Failing(Computing):
    def compute(self, number):
        raise ValueError("Expected to write. Received: no space")


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="keras-attn[ray] is not installed")
    path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        with on_ray.connected(workers=2):
            yield ray


@pytest.mark.slow
def test_actors_give_the_bytes_of_processes(ray, tmp_path, monkeypatch):
    jobs.photos(tmp_path / "photos")
    model = tiny.save_colour_model(tmp_path)
    monkeypatch.setattr(local, "start", jobs.Forked)
    plans = [
        jobs.make("predict", model, tmp_path / "photos", tmp_path / name)
        for name in ("ray", "local", "full")
    ]
    monkeypatch.setattr(on_ray, "Actor", Computing)
    shown = []
    state = run(plans[0], "ray", 2, progress=lambda *numbers: shown.append(numbers))
    assert state.done == 15 and shown[-1] == (15, 15)
    # One was replaced; the trace of the shard that ended it is there.
    assert plans[0].attempts() == {jobs.SHARD: 1}
    run(plans[1])
    assert jobs.contents(plans[0].path) == jobs.contents(plans[1].path)
    monkeypatch.setattr(on_ray, "Actor", Failing)
    with pytest.raises(ValueError, match="^Expected to write. Received: no space$"):
        run(plans[2], "ray")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "x", "a:b"])
def test_wrong_addresses(address):
    pytest.importorskip("ray", reason="keras-attn[ray] is not installed")
    with pytest.raises(ValueError, match=f"address of a Ray .*Received: .?{address}"):
        on_ray.check_address(address)


def test_ray_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-attn\[ray\]'"):
        on_ray.require_ray()
