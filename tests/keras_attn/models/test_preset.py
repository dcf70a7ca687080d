import json
import zipfile

import keras
import numpy as np
import pytest

from keras_attn import spec_of
from keras_attn.models import from_preset, hub, list_presets, preset


def small(factor=1):
    images = keras.Input((4, 4, 3), name="images")
    x = keras.layers.GlobalAveragePooling2D()(images)
    layer = keras.layers.Dense(3, name="logits")
    model = keras.Model(images, {"logits": layer(x)})
    layer.set_weights([factor * np.eye(3), np.zeros(3)])
    return model


def test_a_folder_and_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preset, "PRESETS", tmp_path / "presets")
    for name, factor in (("first", 1), ("second", 2)):
        (tmp_path / "presets" / name).mkdir(parents=True)
        small(factor).save(tmp_path / "presets" / name / "model.keras")
    assert list_presets() == ["first", "second"]
    images = np.full((1, 4, 4, 3), 7.0, "float32")

    def answer(name):
        return float(keras.ops.max(from_preset(name)(images)["logits"]))

    assert (answer("second"), answer(tmp_path / "presets/first")) == (14, 7)
    with pytest.raises(ValueError, match="presets first, second.*Did you mean 'second"):
        from_preset("secnd")
    # A folder of that name in the working directory comes first.
    (tmp_path / "presets/first").rename(tmp_path / "second")
    assert answer("second") == 7


def test_nothing_in_a_file_is_run(tmp_path):
    images = keras.Input((4, 4, 3))
    keras.Model(images, keras.layers.Lambda(lambda x: x + 1)(images)).save(
        tmp_path / "model.keras"
    )
    with pytest.raises(ValueError, match="Lambda"):
        from_preset(tmp_path)


def test_handles_without_a_network(monkeypatch):
    def fails(*arguments, **options):
        raise OSError("no route\nto the host")

    monkeypatch.setattr(keras.saving, "load_model", fails)
    monkeypatch.setitem(hub.sys.modules, "keras_hub", None)
    with pytest.raises(ValueError, match=r"^Cannot load hf://a/b: no route. Handles"):
        from_preset("hf://a/b")
    with pytest.raises(ImportError, match=r"kaggle://a/b needs KerasHub: pip install"):
        from_preset("kaggle://a/b")


def test_a_model_of_others_at_a_handle_is_adopted(monkeypatch):
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **options: small())
    monkeypatch.setitem(hub.sys.modules, "keras_hub", None)
    assert spec_of(from_preset("hf://a/b")).class_names == ("0", "1", "2")


@pytest.mark.parametrize("name", list_presets())
def test_presets_of_the_package(name):
    folder = preset.PRESETS / name
    model = from_preset(name)
    spec = spec_of(model)
    outputs = model(np.zeros((1, spec.height, spec.width, 3), "float32"))
    if "logits" in outputs:
        assert outputs["logits"].shape == (1, len(spec.class_names))
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    card = (folder / "card.md").read_text()
    for fact in ("Licence of the weights", "Licence of the data", "Seed", "Commit"):
        assert f"- {fact}: " in card, fact
    assert " %" in card.partition("## Measured")[2]
    with zipfile.ZipFile(folder / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert json.loads(config)["class_name"] == "Functional"
    for other in ("/tmp", "/work", "/home"):
        assert other not in config + card


def test_presets_are_small():
    files = [path for path in preset.PRESETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6
    assert {path.name for path in files} <= {preset.MODEL, preset.CARD}
