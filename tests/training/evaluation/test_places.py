import json

import keras
import pytest

from keras_attn import block_cost, multiply_adds
from keras_attn.layers import list_blocks
from keras_attn.training.cli import main
from keras_attn.training.evaluation.places import find_places, format_places


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    images = keras.Input((32, 24, 3))
    x = images
    for name in ("one", "two"):
        x = keras.layers.Conv2D(8, 3, 2, padding="same")(x)
        x = keras.layers.Conv2D(8, 3, padding="same", name=name)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    path = tmp_path_factory.mktemp("places") / "mine.keras"
    keras.Model(images, keras.layers.Dense(5)(x)).save(path)
    return path


def test_places_and_costs_of_a_file(file, capsys):
    assert main(["places", str(file), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    model = keras.saving.load_model(file)
    assert result["multiply_adds"] == multiply_adds(model)
    assert [place["layer"] for place in result["places"]] == ["one", "two"]
    second = result["places"][1]
    assert second["size"] == [8, 6] and second["stride"] == [4, 4]
    assert sorted(second["blocks"]) == list_blocks()
    cost = block_cost("class_embedding", (8, 6), 8, num_classes=5)
    assert second["blocks"]["class_embedding"] == cost._asdict()


def test_text(file, capsys):
    assert main(["places", str(file), "--blocks", "simam", "eca"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(
        "mine.keras: 2.02 k parameters, 207 k multiply-adds at 32 x 24"
    )
    assert lines[3].split() == "one 16 x 12 x 8 2 x 2 7 x 7".split()
    assert lines[-2].split() == ["simam", "0,", "0", "0,", "0"]
    assert lines[-1].split() == ["eca", "3,", "24", "3,", "24"]


def test_a_network_by_name_needs_no_weights():
    result = find_places("MobileNet", ["squeeze_excitation"])
    assert len(result["places"]) == 5 and result["image_size"] == [224, 224]
    assert "conv_pw_13_relu" in format_places(result)


def test_one_clear_line(file, tmp_path, capsys):
    assert main(["places", str(file), "--blocks", "cbm"]) == 2
    assert "Did you mean 'cbam'?" in capsys.readouterr().err
    inputs = keras.Input((8,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "flat.keras")
    assert main(["places", str(tmp_path / "flat.keras")]) == 2
    assert "of one image" in capsys.readouterr().err
    inputs = keras.Input((3, 8, 8))
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(tmp_path / "first.keras")
    assert main(["places", str(tmp_path / "first.keras")]) == 2
    assert "(height, width, 3)" in capsys.readouterr().err
