"""`explain` by any method, on models of this project and of others."""

import json
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.explain import grad_cam, last_map
from keras_attn.layers.volumetric_transformer import VolumetricTransformer
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.cli import main
from keras_attn.training.explain import class_maps
from keras_attn.training.explain.faithfulness import measure
from keras_attn.training.explain.files import explain
from keras_attn.training.explain.saliency import Saliency
from keras_attn.training.trained import load_trained
from keras_attn.training.viewer import sections
from tests.training import tiny_models as tiny
from tests.training.explain.test_warps import model_with
from tests.training.viewer.tiny import viewed

SIZE = (16, 24)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Somebody else's file: a backbone inside a model, softmax, pixels in 0..1."""
    path = tmp_path_factory.mktemp("others") / "theirs.keras"
    inputs = keras.Input((*SIZE, 3))
    backbone = keras.Model(
        inputs, layers.AveragePooling2D(8, name="cells")(inputs), name="backbone"
    )
    inputs = keras.Input((*SIZE, 3))
    x = layers.GlobalAveragePooling2D()(backbone(inputs))
    top = layers.Dense(3, activation="softmax", name="top")
    model = keras.Model(inputs, top(x))
    top.set_weights([10 * np.eye(3), np.zeros(3)])
    model.save(path)
    return path


@pytest.fixture
def file(tmp_path):
    """Green, with a red cell above on the left."""
    pixels = tiny.plain_image(green=255)
    pixels[:8, :8] = (255, 0, 0)
    return tiny.save_image(tmp_path / "photo.png", pixels)


def drawn(monkeypatch):
    """Explanations that are drawn, in place of pictures."""
    found = []
    monkeypatch.setattr("keras_attn.training.drawing.save", lambda figure, path: None)
    monkeypatch.setattr(
        Saliency, "picture", lambda self, each, labels: found.append((self, each))
    )
    monkeypatch.setattr(Saliency, "sheet", lambda self, *given: None)
    return found


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_plus_plus", "cam"])
def test_models_of_others(others, file, tmp_path, monkeypatch, method):
    found, said = drawn(monkeypatch), []
    options = {"method": method, "pixels": "0..1", "top": 2, "say": said.append}
    explain(others, [file], tmp_path / "out", **options)
    ((_, each),) = found
    assert "not a model of this project" in said[0] and "0..1" in said[0]
    # Five of six cells are green; the softmax is not applied twice.
    wanted = np.exp(10 * np.array([1, 5, 0]) / 6)
    np.testing.assert_allclose(each.probabilities, wanted / wanted.sum(), rtol=1e-4)
    assert each.class_names == ("0", "1", "2") and list(each.maps) == [1, 0]
    red, green = each.maps[0], each.maps[1]
    assert red.shape == SIZE
    assert red[:4, :4].min() == 1 and red[:, 16:].max() == 0
    np.testing.assert_allclose(green, 1 - red, atol=1e-5)


def test_auto_of_models_that_tell_nothing(others, file, tmp_path, monkeypatch):
    found, said = drawn(monkeypatch), []
    explain(others, [file], tmp_path / "out", pixels="0..1", say=said.append)
    assert found[0][0].method == "grad_cam" and "Grad-CAM" in said[1]
    path = tiny.save_colour_model(tmp_path, patch_logits=False)
    explain(path, [file], tmp_path / "out", ["red"], say=said.append)
    # The patch logits' layer is there, though it is no output.
    assert found[1][1].maps[0][:4, :4].min() == pytest.approx(1)


def nested():
    """Outer preprocessing, an inner backbone: plain pooling and a convolution."""
    spec = ImageSpec(*SIZE, class_names=tiny.COLOURS)
    inputs = keras.Input((*SIZE, 3))
    x = layers.AveragePooling2D(8)(inputs)
    x = layers.Conv2D(4, 1, name="last")(x)
    backbone = keras.Model(inputs, x, name="backbone")
    images = keras.Input((*SIZE, 3), name="images")
    x = backbone(ImagePreprocessing(spec, name="preprocessing")(images))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, {"logits": layers.Dense(3)(x)})


def warped():
    return model_with(VolumetricTransformer(4, 3, 1.0, (2, 2), name="deformation"))


@pytest.mark.parametrize(
    "make, layer",
    [
        (lambda: tiny.colour_model(patch_logits=False), "patch_logits"),
        (nested, "backbone/last"),
        (warped, "features"),
    ],
)
def test_library_command_and_viewer_take_one_layer(
    tmp_path, monkeypatch, make, layer, file
):
    taken = []
    module = sys.modules["keras_attn.explain.feature_maps"]
    split = module.split

    def recording(*given, **options):
        taken.append(split(*given, **options))
        return taken[-1]

    monkeypatch.setattr(module, "split", recording)
    model = make()
    model.save(tmp_path / "model.keras")
    images = np.zeros((1, *model.input.shape[1:]), "uint8")
    assert last_map(model) == layer
    grad_cam(model, images)
    drawn(monkeypatch)
    explain(
        tmp_path / "model.keras", [file], tmp_path / "out", method="grad_cam", top=1
    )
    section = sections.grad_cam(viewed(model), images, [0])
    assert [each.path for each in taken] == [layer] * 3
    assert f"layer {layer} " in section.note


def test_command_draws_and_measures(others, file, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["explain", others, file, "--output", output, "--method", "occlusion"]
    arguments += ["--pixels", "0..1", "--top", "1", "--metrics"]
    assert main([str(each) for each in arguments]) == 0
    shown = capsys.readouterr()
    assert "| deletion |" in shown.out and "--pixels" in shown.err
    assert sorted(path.name for path in output.iterdir()) == [
        "metrics.json",
        "metrics.md",
        "overview.png",
        "photo.png",
    ]
    result = json.loads((output / "metrics.json").read_text())
    assert result["method"] == "occlusion" and result["boxes"] is None
    assert [stage["layer"] for stage in result["randomization"]] == ["top"]
    assert shown.out.endswith((output / "metrics.md").read_text())


def test_constant_maps_are_left_out_and_counted(others, file, tmp_path, monkeypatch):
    # Of one colour: covered by it, no score falls.
    even = tiny.save_image(tmp_path / "even.png", tiny.plain_image(green=255))
    options = {"method": "occlusion", "pixels": "0..1", "top": 1, "metrics": True}
    said = {"say": lambda text: None}
    explain(others, [file, even], tmp_path / "both", **options, **said)
    result = json.loads((tmp_path / "both" / "metrics.json").read_text())
    assert (result["images"], result["constant_maps"]) == (1, 1)
    text = (tmp_path / "both" / "metrics.md").read_text()
    assert "1 images with constant maps" in text and "| deletion |" in text
    explain(others, [even], tmp_path / "none", **options, **said)
    result = json.loads((tmp_path / "none" / "metrics.json").read_text())
    assert (result["images"], result["constant_maps"]) == (0, 1)
    found = drawn(monkeypatch)
    options = {"method": "occlusion", "pixels": "0..1", "metrics": False}
    explain(others, [even], tmp_path / "out", **options, **said)
    ((_, each),) = found
    assert [caption.endswith("constant map") for caption, _ in each.panels([1])] == [1]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Somebody else's file: two heads, and one score of the red in the image."""
    path = tmp_path_factory.mktemp("several") / "theirs.keras"
    inputs = keras.Input((*SIZE, 3))
    x = layers.AveragePooling2D(8, name="cells")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    red = layers.Dense(1, "sigmoid")
    outputs = {"red": red(x), "colour": layers.Dense(3)(x)}
    red.set_weights([np.array([[9.0], [0.0], [0.0]]), np.array([-3.0])])
    keras.Model(inputs, outputs).save(path)
    return path


@pytest.mark.parametrize("option", ["--head", "--select"])
def test_one_of_several_outputs(several, file, tmp_path, capsys, monkeypatch, option):
    arguments = ["explain", str(several), str(file), "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "--head NAME), one of colour, red" in capsys.readouterr().err
    assert main([*arguments, option, "blue"]) == 2
    assert "['colour', 'red']" in capsys.readouterr().err
    found = drawn(monkeypatch)
    assert main([*arguments, option, "red", "--pixels", "0..1"]) == 0
    ((_, each),) = found
    # A single score: of class 1 it is the sigmoid, of class 0 the rest.
    wanted = 1 / (1 + np.exp(3 - 9 / 6))
    np.testing.assert_allclose(each.probabilities, [1 - wanted, wanted], rtol=1e-4)
    assert each.class_names == ("0", "1")
    assert each.maps[1][:4, :4].min() == pytest.approx(1)


def test_measures_boxes_of_the_generated_data(tmp_path):
    run = tiny.generated_run(tmp_path / "run")
    subject = load_trained(run.workdir)
    images = np.zeros((2, 32, 32, 3), "uint8")
    images[:, 8:16, 16:24] = (0, 255, 0)
    result = measure(class_maps, subject, images)
    boxes = result["boxes"]
    assert boxes["images"] == 20 and boxes["data"] == "generated, test"
    assert 0 <= boxes["pointing_game"] <= 1
    assert 0 < boxes["energy_of_a_constant_map"] < 1
    areas = result["areas"]
    assert areas["maps"]["deletion"] <= areas["random"]["deletion"]


def test_errors_are_one_line(others, file, tmp_path, capsys):
    given = ["explain", str(others), str(file), "--output", str(tmp_path / "out")]
    flat = tmp_path / "flat.keras"
    keras.Sequential([keras.Input((5,)), layers.Dense(2)]).save(flat)
    code = tmp_path / "code.keras"
    keras.Sequential([keras.Input((8, 8, 3)), layers.Lambda(lambda x: x)]).save(code)
    for arguments, message in (
        ([*given, "--method", "rollout"], "MultiHeadAttention"),
        ([*given, "--method", "grad_cam", "--layer", "cell"], "nearest is"),
        ([*given, "--method", "cam", "--layer", "cells"], "grad_cam_plus_plus"),
        ([*given, "--classes", "rose"], "'rose'"),
        ([*given[:1], str(flat), *given[2:]], "(batch, height, width, 3)"),
        ([*given[:1], str(code), *given[2:]], "Cannot load the model"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()
