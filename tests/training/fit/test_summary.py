import json

import keras
import pytest

from keras_attn.training import cli
from keras_attn.training.fit.summary import class_names, format_summary, summarize
from keras_attn.training.recipes.registry import get_recipe
from keras_attn.training.recipes.schema import Recipe, apply_overrides
from tests.training import tiny_models as tiny


def test_rn26_with_class_embedding():
    result = summarize(get_recipe("cifar10_rn26_class_embedding"))
    # Counted by hand from the paper's architecture (table 1's RN26-Ours).
    assert result["trainable_params"] == 983_048
    assert result["outputs"] == {"logits": [None, 10], "patch_logits": [None, 8, 8, 10]}
    assert result["maps"] == {
        "stage1": [None, 32, 32, 64],
        "stage2": [None, 16, 16, 128],
        "stage3": [None, 8, 8, 128],
        "stage4": [None, 8, 8, 256],
    }
    assert (result["backbone"], result["row"], result["classes"]) == (
        "rn26",
        "class_embedding",
        10,
    )
    text = format_summary(result)
    assert "trainable parameters  983,048" in text
    assert "patch_logits  8 x 8 x 10" in text
    assert f"{result['multiply_adds']:,}" in text


def test_a_model_of_others(tmp_path, capsys):
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, 2, "same", activation="relu")(images)
    x = keras.layers.Conv2D(8, 3, 2, "same", activation="relu")(x)
    x = keras.layers.Conv2D(8, 3, 1, "same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    path = tmp_path / "theirs.keras"
    keras.Model(images, keras.layers.Dense(5, "softmax")(x)).save(path)
    assert cli.main(["summary", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    weights = 27 * 4 + 4 + 36 * 8 + 8 + 72 * 8 + 8 + 8 * 5 + 5
    assert result["trainable_params"] == weights and result["classes"] == 5
    assert result["multiply_adds"] == 27 * 4 * 256 + 36 * 8 * 64 + 72 * 8 * 64 + 8 * 5
    assert result["outputs"]["logits"] == [None, 5]
    assert list(result["maps"].values())[-1] == [None, 8, 8, 8]
    assert cli.main(["summary", str(path)]) == 0
    assert f"model                 {path}" in capsys.readouterr().out
    for wrong in ([str(path), "--set", "epochs=1"], [str(tmp_path / "no.keras")]):
        assert cli.main(["summary", *wrong]) == 2
        assert capsys.readouterr().err.strip().count("\n") == 0


def test_overrides_and_class_counts_reach_the_network():
    recipe = get_recipe("generated_rn26_baseline")
    recipe = apply_overrides(recipe, ["image_size=40", "dataset=cifar100"])
    result = summarize(recipe)
    assert result["outputs"] == {"logits": [None, 100]}
    assert result["maps"]["stage1"] == [None, 40, 40, 64]
    # Only the head depends on the number of classes: 256 features and a bias each.
    fewer = summarize(apply_overrides(recipe, ["dataset=cifar10"]))
    assert result["multiply_adds"] - fewer["multiply_adds"] == 256 * 90
    assert result["trainable_params"] - fewer["trainable_params"] == 257 * 90


def test_the_number_of_classes_needs_no_files_where_it_is_known(tmp_path):
    counts = {"cifar10": 10, "cifar100": 100, "miniimagenet": 100, "generated": 10}
    for dataset, count in counts.items():
        assert len(class_names(Recipe(name="x", dataset=dataset))) == count
    folder = Recipe(name="x", dataset="folder")
    with pytest.raises(ValueError, match="--data PATH"):
        class_names(folder)
    data = tiny.colour_folder(tmp_path / "images", 1)
    assert class_names(folder, data) == ("blue", "green", "red")
    with pytest.raises(ValueError, match="dataset='cifar'"):
        class_names(Recipe(name="x", dataset="cifar"))
