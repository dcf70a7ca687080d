"""Recipes for photographs of one's own, and runs that remember their data."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_attn.training import cli
from keras_attn.training.data.own import own_data_recipe, own_name
from keras_attn.training.evaluation.evaluate import evaluate
from keras_attn.training.evaluation.report import write_report
from keras_attn.training.fit.train import train
from keras_attn.training.methods import class_embedding
from keras_attn.training.runs.run import Run
from tests.training.tiny import tiny_model, tiny_recipe


def photographs(root, classes, each, side=70):
    generator = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(each):
            pixels = generator.integers(0, 256, (side, side + 9, 3)).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize("side, size", [(70, 64), (40, 32)])
def test_a_recipe_by_number_and_size(tmp_path, side, size):
    root = photographs(tmp_path / "my photos", ("a", "b"), 20, side)
    recipe = own_data_recipe(root)
    assert (recipe.name, recipe.dataset) == ("my_photos", "folder")
    assert recipe.split == "pooled_65_15_20" and recipe.image_size == size
    # 26 images are trained on.
    assert recipe.batch_size == 13 and recipe.epochs == 30
    for part in ("train", "valid"):
        shutil.copytree(root, tmp_path / "parts" / part)
    assert own_data_recipe(tmp_path / "parts").split == "official"
    assert own_name(shutil.make_archive(tmp_path / "packed", "zip", root)) == "packed"


def test_a_folder_alone_is_enough(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(class_embedding, "build_model", tiny_model)
    monkeypatch.chdir(tmp_path)
    root = photographs(tmp_path / "photos", ("a", "b"), 10)
    (root / "a" / "notes.txt").write_text("no image")
    command = ["train", "--data", "photos", "--epochs", "1", "--batch-size", "4"]
    assert cli.main([*command, "--set", "deterministic=false"]) == 0
    printed = capsys.readouterr()
    assert "1 file that is no image or in no class (a/notes.txt)" in printed.err
    assert "\nBatch normalisation: statistics of 3 steps. More" in printed.out
    run = Run.open("runs/photos")
    assert run.recipe.epochs == 1 and run.recipe.batch_size == 4
    card = (run.workdir / "card.md").read_text()
    assert "- Left out: 1 file that is no image" in card
    assert cli.main(["evaluate", "runs/photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 4
    # Moved together, they still find each other.
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    shutil.move(root, tmp_path / "moved")
    assert evaluate("moved/runs/photos")["examples"] == 4
    shutil.rmtree(tmp_path / "moved" / "photos")
    assert cli.main(["evaluate", "moved/runs/photos"]) == 2
    assert "--data PATH" in capsys.readouterr().err


def test_a_run_that_is_read_only_is_evaluated_and_reported(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(class_embedding, "build_model", tiny_model)
    monkeypatch.chdir(tmp_path)
    workdir = tmp_path / "run"
    train(tiny_recipe(epochs=1), workdir, verbose=0)

    def refuse(path, *arguments):
        if workdir in path.resolve().parents:
            raise PermissionError(13, "Permission denied")
        return original(path, *arguments)

    for module in ("evaluation.evaluate", "pages"):
        name = f"keras_attn.training.{module}.write_then_rename"
        from keras_attn.pipelines.files import write_then_rename as original

        monkeypatch.setattr(name, refuse)
    assert evaluate(workdir)["examples"]
    assert "Not recorded in" in capsys.readouterr().err
    assert write_report(workdir, mistakes=0).resolve().parent == tmp_path
