import keras
import numpy as np
import pytest

from keras_attn import spec_of
from keras_attn.models import from_preset
from keras_attn.training.adoption import ModelSource
from keras_attn.training.serving import preset
from keras_attn.training.serving.export import export_formats
from keras_attn.training.trained import load_trained
from tests.training.tiny import tiny_model
from tests.training.tiny_models import HEIGHT, WIDTH, colour_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model with random weights, and the folder of its preset."""
    folder = tmp_path_factory.mktemp("preset")
    images = colour_model().get_layer("preprocessing")
    given = keras.Input((HEIGHT, WIDTH, 3), name="images")
    model = tiny_model("", "class_embedding", 3, images(given))
    model = keras.Model(given, model.output)
    random = np.random.default_rng(0)
    model.set_weights(
        [random.uniform(0.1, 1, w.shape).astype(w.dtype) for w in model.get_weights()]
    )
    model.save(folder / "net.keras")
    (written,) = export_formats(
        folder / "net.keras", output=folder / "saved", formats=["preset"]
    ).values()
    assert written == folder / "saved/net/preset/1"
    return model, written


def test_kernels_are_rounded_to_half_precision_and_vectors_stay(exported):
    model, folder = exported
    assert {path.name for path in folder.iterdir()} == {"model.keras", "card.md"}
    loaded = from_preset(folder)
    assert spec_of(loaded) == spec_of(model)
    kinds = set()
    for old, new in zip(model.weights, loaded.weights, strict=True):
        old, new = np.asarray(old), np.asarray(new)
        assert new.dtype == old.dtype
        half = old.dtype == "float32" and old.ndim > 1
        expected = old.astype("float16").astype("float32") if half else old
        np.testing.assert_array_equal(new, expected)
        kinds.add(half)
    assert kinds == {True, False}
    images = np.random.default_rng(1).integers(0, 256, (4, HEIGHT, WIDTH, 3), "uint8")
    for name, value in model(images).items():
        value = np.asarray(value)
        limit = 2**-8 * np.abs(value).max()
        np.testing.assert_allclose(loaded(images)[name], value, rtol=0, atol=limit)


def test_commands_take_its_folder(exported):
    trained = load_trained(ModelSource(exported[1]))
    assert trained.class_names == ("red", "green", "blue")
    assert trained.note == ""


def test_weights_that_do_not_fit_are_refused(exported, tmp_path):
    model = keras.models.clone_model(exported[0])
    model.set_weights([1e-3 + np.zeros(w.shape, w.dtype) for w in model.get_weights()])
    model.get_layer("logits").kernel.assign(np.full((6, 3), 1e5))
    model.save(tmp_path / "net.keras")
    with pytest.raises(ValueError, match="NaN or infinite|in half precision"):
        preset.write_preset(load_trained(tmp_path / "net.keras"), tmp_path / "preset")
