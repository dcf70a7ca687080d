"""Models of others by file, name and handle; their options in the commands."""

import contextlib
import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn import spec_of
from keras_attn.training import adoption
from keras_attn.training.adoption import ModelSource, adopted, applications
from keras_attn.training.cli import main
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny

SIZE = (16, 24)


def classifier(end=None):
    inputs = keras.Input((*SIZE, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, (end or layers.Softmax())(x))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A network trained with pixels 0..1, by its kept averages."""
    path = tmp_path_factory.mktemp("theirs") / "theirs.keras"
    model = classifier()
    noise = np.random.default_rng(0).uniform(0, 1, (8, *SIZE, 3))
    before = keras.Model(model.input, model.get_layer("conv").output)(noise)
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.mean(before, (0, 1, 2)))
    norm.moving_variance.assign(np.var(before, (0, 1, 2)))
    model.save(path)
    return path


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), "uint8")
    return tiny.save_image(tmp_path / "photo.png", pixels)


def test_adopt_writes_a_file_that_answers_like_the_model(
    theirs, photo, tmp_path, capsys
):
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\n")
    output = tmp_path / "mine.keras"
    options = ["--classes", str(names), "--pixels", "0..1"]
    assert main(["adopt", str(theirs), *options, "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine.keras",
        "names.txt",
        "photo.png",
    ]
    trained = load_trained(output)
    assert trained.class_names == ("ant", "bee", "cat") and not trained.note
    answers = []
    for model, more in ((theirs, options), (output, [])):
        assert main(["predict", str(model), str(photo), *more, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    drawn = ["explain", str(theirs), str(photo), *options, "--draw", "bee"]
    assert main([*drawn, "--output", str(tmp_path / "maps")]) == 0
    assert (tmp_path / "maps" / "photo.png").is_file()


def test_pixels_of_another_range_are_warned_of(theirs, photo, capsys):
    assert main(["predict", str(theirs), str(photo)]) == 0
    warned = capsys.readouterr().err
    assert "0..1 would suit the network better" in warned and "-1..1: " in warned
    assert main(["predict", str(theirs), str(photo), "--pixels", "0..1"]) == 0
    assert "would suit" not in capsys.readouterr().err
    assert main(["predict", str(theirs), str(photo), "--pixels", "-1..1"]) == 0
    assert "scaled to -1..1" in capsys.readouterr().err


def test_h5_files_load_and_run_no_code(tmp_path):
    model = classifier()
    model.save(tmp_path / "theirs.h5")
    found = load_trained(ModelSource(tmp_path / "theirs.h5", pixels="-1..1"))
    image = np.full((1, *SIZE, 3), 255, "uint8")
    np.testing.assert_allclose(
        outputs_of(found.model, image)["probabilities"],
        model.predict(np.ones((1, *SIZE, 3)), verbose=0),
        rtol=1e-5,
    )
    model.save_weights(tmp_path / "alone.weights.h5")
    with pytest.raises(ValueError, match="weights alone.*NAME=WEIGHTS.h5"):
        load_trained(tmp_path / "alone.weights.h5")
    for suffix in (".h5", ".keras"):
        file = tmp_path / f"code{suffix}"
        classifier(layers.Lambda(lambda x: x * 2)).save(file)
        with pytest.raises(ValueError, match=f"Cannot load the model .*code{suffix}"):
            load_trained(file)


@keras.saving.register_keras_serializable(package="theirs")
class Net(keras.Model):
    def call(self, images):
        return keras.ops.mean(images, axis=(1, 2))


def test_models_with_code_of_their_own_say_what_still_works(tmp_path):
    model = Net()
    model(np.zeros((1, *SIZE, 3)))
    model.save(tmp_path / "net.keras")
    with pytest.raises(ValueError, match="whose call cannot be taken apart.*occlusion"):
        load_trained(tmp_path / "net.keras")
    registered = keras.saving.get_custom_objects().pop("theirs>Net")
    try:
        with pytest.raises(ValueError, match="needs code .*Net.*occlusion"):
            load_trained(tmp_path / "net.keras")
    finally:
        keras.saving.get_custom_objects()["theirs>Net"] = registered


def test_evaluate_says_what_it_assumes(theirs, tmp_path, capsys):
    for label in ("0", "1"):
        folder = tmp_path / "data" / label
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(2).integers(0, 256, (*SIZE, 3), "uint8")
        tiny.save_image(folder / "a.png", pixels)
    data = ["--data", str(tmp_path / "data")]
    assert main(["evaluate", str(theirs), *data]) == 0
    shown = capsys.readouterr()
    assert "called by number" in shown.err and "0..1 would suit" in shown.err
    assert "accuracy" in shown.out


def test_networks_of_keras_by_name(monkeypatch, tmp_path):
    """With weights of a file; the pixels are those of the network's own module."""
    build = keras.applications.MobileNet
    made = build((32, 32, 3), weights=None, classes=2)
    made.save_weights(tmp_path / "own.weights.h5")

    def MobileNet(weights, classes):
        small = build((32, 32, 3), weights=None, classes=classes)
        small.load_weights(weights)
        return small

    monkeypatch.setitem(vars(keras.applications), "MobileNet", MobileNet)
    monkeypatch.setattr(keras.applications.mobilenet, "MobileNet", MobileNet)
    source = f"mobilenet={tmp_path / 'own.weights.h5'}"
    model, note = adopted(ModelSource(source, classes=("cat", "dog")))
    assert spec_of(model).class_names == ("cat", "dog") and "-1..1" in note
    assert ModelSource(source).name == "mobilenet"


@pytest.mark.parametrize(
    "name, pixels",
    [
        ("resnet50", "caffe"),
        ("densenet121", "imagenet"),
        ("xception", "-1..1"),
        ("efficientnetb0", "0..255"),
        ("mobilenetv3small", "0..255"),
    ],
)
def test_pixels_of_networks(name, pixels):
    assert adoption._pixels_of(applications()[name]) == pixels


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["mobilnetv2"], "does not exist. Did you mean 'mobilenetv2'"),
        (["mobilenet=none.h5"], "none.h5, which does not exist"),
        (["none.keras"], "none.keras, which does not exist"),
        (["{theirs}", "--classes", "none.txt"], "none.txt, which does not exist"),
        (
            ["{theirs}", "--classes", "{many}"],
            "each of 3 classes. Received: 1000 names",
        ),
        (["{theirs}", "--pixels", "0..2"], "-1..1, imagenet"),
        (["{theirs}", "--head", "boxes"], "output='boxes'"),
        (["{theirs}", "--size", "9", "9"], "fits the model"),
    ],
)
def test_bad_input_is_one_clear_line(
    theirs, photo, tmp_path, capsys, arguments, message
):
    many = tmp_path / "many.txt"
    many.write_text("\n".join(map(str, range(1000))))
    arguments = [each.format(theirs=theirs, many=many) for each in arguments]
    command = ["predict", arguments[0], str(photo), *arguments[1:]]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_handles_without_network_are_one_clear_line(photo, capsys, monkeypatch):
    def offline(*_, **__):
        raise OSError("Temporary failure in name resolution\nmore")

    monkeypatch.setattr(keras.saving, "load_model", offline)
    monkeypatch.setitem(__import__("sys").modules, "keras_hub", None)
    assert main(["predict", "hf://somebody/theirs", str(photo)]) == 2
    error = capsys.readouterr().err
    assert "Cannot load hf://somebody/theirs: Temporary failure" in error
    assert error.count("\n") == 1
    assert main(["predict", "kaggle://a/b", str(photo)]) == 2
    assert "pip install keras-hub" in capsys.readouterr().err


def test_a_download_is_announced_once_something_comes(capsys):
    for pieces in (["Downloading data\n"], ["Downloading data\n", "1/9", "2/9"]):
        with contextlib.redirect_stdout(adoption._Download()):
            for piece in pieces:
                print(end=piece, flush=True)
        found = capsys.readouterr()
        assert found.out == ""
        assert found.err == ("".join(pieces) if len(pieces) > 1 else "")
