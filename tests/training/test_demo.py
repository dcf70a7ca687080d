import json

import pytest
from PIL import Image

from keras_attn.models import preset
from keras_attn.training import demo as demo_module
from keras_attn.training.methods import class_embedding
from tests.training.tiny import tiny_model, tiny_recipe
from tests.training.tiny_models import colour_model

pytest.importorskip("aiohttp")


def test_demo_leaves_a_score_pictures_and_exports(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe(name="tiny_demo", epochs=1)
    monkeypatch.setattr(demo_module, "get_recipe", lambda name: recipe)
    monkeypatch.setattr(demo_module, "SHORT", ())
    monkeypatch.setattr(demo_module, "IMAGES", 2)
    monkeypatch.setattr(demo_module, "MISTAKES", 1)
    monkeypatch.setattr(demo_module, "PRESET", "colours")
    shipped = f"saved_models/{demo_module.SERVED}"
    (tmp_path / "saved_models").mkdir()
    (tmp_path / shipped).symlink_to(demo_module.PHOTOS.parents[2] / shipped)
    monkeypatch.setattr(preset, "PRESETS", tmp_path / "presets")
    (tmp_path / "presets/colours").mkdir(parents=True)
    colour_model(class_names=("red", "cat", "blue")).save(
        tmp_path / "presets/colours/model.keras"
    )
    monkeypatch.setattr(class_embedding, "build_model", tiny_model)
    run = demo_module.demo("work")
    text = capsys.readouterr().out
    assert "which knows red, cat, blue alone" in text
    lines = {line.partition(":")[0].strip(): line for line in text.splitlines()}
    assert "the nearest of its classes" in lines["coffee"]
    assert "the nearest of its classes" not in lines["cat"]
    assert "astronaut.jpg sent over HTTP, answered with attention_heads, " in text
    assert (tmp_path / "work/photos/rocket.png").exists()
    evaluation = json.loads((run.workdir / "evaluation.json").read_text())
    result = evaluation["test"]["best"]
    assert f"{100 * result['accuracy']:.2f}" in text
    assert result["examples"] == 22  # the last sixth of 130, rounded up
    images = sorted((tmp_path / "work/images").glob("*.png"))
    assert [Image.open(image).size for image in images] == [(32, 32)] * 2
    pictures = {path.name for path in (tmp_path / "work/explained").iterdir()}
    assert pictures == {path.name for path in images} | {"overview.png"}
    assert (tmp_path / "saved_models/demo/1/saved_model.pb").exists()
    assert f"{run.workdir / 'report.html'}: open it" in text
    assert (
        f"{100 * result['accuracy']:.1f}" in (run.workdir / "report.html").read_text()
    )
    assert f"keras-attn view {run.workdir}" in text
    assert "keras-attn serve saved_models" in text

    monkeypatch.setattr(demo_module, "PHOTOS", tmp_path / "none")
    demo_module.demo("work")
    text = capsys.readouterr().out
    assert "none outside a checkout" in text
    assert "is finished: 1 epochs" in text
    assert (tmp_path / "saved_models/demo/2/saved_model.pb").exists()
