import json

from PIL import Image

from keras_attn.training import demo as demo_module
from keras_attn.training.methods import class_embedding
from tests.training.tiny import tiny_model, tiny_recipe


def test_demo_leaves_a_score_pictures_and_exports(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe(name="tiny_demo", epochs=1)
    monkeypatch.setattr(demo_module, "get_recipe", lambda name: recipe)
    monkeypatch.setattr(demo_module, "IMAGES", 2)
    monkeypatch.setattr(demo_module, "MISTAKES", 1)
    monkeypatch.setattr(class_embedding, "build_model", tiny_model)
    run = demo_module.demo("work")
    text = capsys.readouterr().out
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

    demo_module.demo("work")
    assert "is finished: 1 epochs" in capsys.readouterr().out
    assert (tmp_path / "saved_models/demo/2/saved_model.pb").exists()
