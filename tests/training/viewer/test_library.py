import pytest

from keras_attn.training.viewer import library as module
from keras_attn.training.viewer.library import Library, find_runs
from tests.training import tiny_models as tiny


def test_runs_are_found_and_loaded_once(tmp_path, monkeypatch):
    run = tiny.generated_run(tmp_path / "runs" / "study" / "first")
    tiny.generated_run(tmp_path / "runs" / "unfinished", checkpoints=())
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "recipe.json").write_text("{")
    assert find_runs(tmp_path / "runs") == [run.workdir]
    assert find_runs(tmp_path / "none") == []
    monkeypatch.chdir(tmp_path)
    models = Library(find_runs("runs"))
    assert models.names == ["runs/study/first"]
    first = models.load("runs/study/first")
    assert models.load("runs/study/first") is first
    assert first.class_names == first.spec.class_names
    with pytest.raises(ValueError, match="model of the list. Received: '/etc'"):
        models.load("/etc")


def test_the_model_used_longest_ago_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT_MODELS", 1)
    models = Library([tiny.save_colour_model(tmp_path), tiny.save_localizer(tmp_path)])
    colours, localizer = models.names
    first = models.load(colours)
    models.load(localizer)
    assert models.load(colours) is not first
    assert first.with_patches is None


def test_what_is_missing_is_told_at_the_start(tmp_path):
    with pytest.raises(FileNotFoundError, match="keras-attn demo"):
        Library([])
    with pytest.raises(FileNotFoundError, match="none.keras, which does not exist"):
        Library([tmp_path / "none.keras"])
    with pytest.raises(FileNotFoundError, match="without a recipe.json"):
        Library([tmp_path])
    run = tiny.generated_run(tmp_path / "run", checkpoints=("last",))
    with pytest.raises(FileNotFoundError, match="No best model"):
        Library([run.workdir])
    assert Library([run.workdir], "last").load(str(run.workdir))
