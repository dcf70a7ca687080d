"""The run folder."""

import dataclasses

import pytest

from keras_attn.training.runs.run import Run
from tests.training.tiny import tiny_recipe


def test_create_writes_the_recipe_and_open_reads_it(tmp_path):
    recipe = tiny_recipe(decay_at=(0.25,))
    run = Run.create(tmp_path / "a" / "b", recipe)
    assert run.checkpoints.is_dir()
    assert Run.open(str(run.workdir)) == run
    assert Run.create(run.workdir, recipe) == run


def test_another_recipe_is_refused_naming_what_differs(tmp_path):
    Run.create(tmp_path / "run", tiny_recipe(epochs=3))
    before = (tmp_path / "run" / "recipe.json").read_text()
    with pytest.raises(ValueError) as caught:
        Run.create(tmp_path / "run", tiny_recipe(epochs=4, row="aux"))
    message = str(caught.value)
    assert "epochs=3 there, 4 now" in message
    assert "row='class_embedding' there, 'aux' now" in message
    assert "batch_size" not in message
    assert (tmp_path / "run" / "recipe.json").read_text() == before


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("text")
    with pytest.raises(ValueError, match="holds something else"):
        Run.create(tmp_path, tiny_recipe())
    with pytest.raises(ValueError, match="holds something else"):
        Run.create(tmp_path / "thesis.txt", tiny_recipe())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_check_touches_nothing(tmp_path):
    Run.check(tmp_path / "run", tiny_recipe())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("moment", ["folder", "checkpoints", "partial"])
def test_a_run_killed_while_it_made_its_folder_can_start_again(tmp_path, moment):
    if moment != "folder":
        (tmp_path / "checkpoints").mkdir()
    if moment == "partial":
        (tmp_path / ".recipe.json.partial").write_text('{"name": "ti')
    recipe = tiny_recipe()
    Run.create(tmp_path, recipe)
    assert Run.open(tmp_path).recipe == recipe
    assert not (tmp_path / ".recipe.json.partial").exists()


def test_a_folder_without_a_recipe_is_not_opened(tmp_path):
    with pytest.raises(FileNotFoundError, match="without a recipe.json"):
        Run.open(tmp_path)
    run = Run.create(tmp_path / "run", tiny_recipe())
    with pytest.raises(FileNotFoundError, match="No best model .* no epoch has ended"):
        run.load_model()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"name": "r"}', '{"decay_at": [], "colour": 1}']
)
def test_a_damaged_recipe_is_a_clear_error(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match="Cannot read the recipe in .*recipe.json"):
        Run.open(tmp_path)


def test_a_recipe_with_a_wrong_value_is_a_clear_error(tmp_path):
    text = tiny_recipe().to_json().replace('"epochs": 3', '"epochs": -3')
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match="Cannot read the recipe.*epochs=-3"):
        Run.open(tmp_path)


def test_every_field_decides_whether_a_folder_is_the_same(tmp_path):
    recipe = tiny_recipe()
    Run.create(tmp_path, recipe)
    with pytest.raises(ValueError, match="jit_compile=False there, True now"):
        Run.create(tmp_path, dataclasses.replace(recipe, jit_compile=True))
