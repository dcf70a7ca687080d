import keras
import numpy as np
import pytest

from keras_attn.training.evaluation.evaluate import evaluate_model
from keras_attn.training.evaluation.predict import predict
from keras_attn.training.experiments import measures
from keras_attn.training.runs.outputs import outputs_of, top_classes, with_outputs
from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny


def images(count=3, size=tiny.LOCALIZER_SIZE):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *size, 3), "uint8")


def branch_outputs():
    return {
        f"{kind}_{window}"
        for kind in ("logits", "evidence", "attention")
        for window in tiny.WINDOWS
    }


def test_runs_and_files_are_loaded_without_what_only_training_needs(tmp_path):
    run = tiny.localizer_run(tmp_path / "run")
    file = tiny.save_localizer(tmp_path)
    for path in (run.workdir, run.checkpoints / "last.keras", file):
        model = load_trained(path).model
        assert set(model.output) == {"logits", *branch_outputs()}
    whole = outputs_of(run.load_model("best"), images())
    for name, value in outputs_of(load_trained(run.workdir).model, images()).items():
        np.testing.assert_array_equal(value, whole[name])


def test_a_run_is_used_as_its_method_says(tmp_path, monkeypatch):
    from keras_attn.training.methods import anchornet

    run = tiny.localizer_run(tmp_path / "run")
    used = []

    def serving_model(model, run):
        used.append(run)
        return with_outputs(model, ["logits", "logits_16"])

    monkeypatch.setattr(anchornet.METHOD, "serving_model", serving_model)
    trained = load_trained(run.workdir, "last")
    assert set(trained.model.output) == {"logits", "logits_16"}
    assert trained.class_names == tiny.COLOURS
    assert used == [run]


def test_outputs_can_be_chosen():
    model = tiny.localizer()
    whole = outputs_of(model, images())
    names = ["evidence_24", "logits", "patch_logits"]
    some = outputs_of(model, images(), names=names)
    assert set(some) == {"evidence_24", "logits"}
    for name, value in some.items():
        np.testing.assert_array_equal(value, whole[name])
    assert with_outputs(model, list(model.output)) is model
    # The other branch is not computed for it.
    layers = {layer.name for layer in with_outputs(model, ["logits_24"]).layers}
    assert "evidence_24" in layers and "evidence_16" not in layers


def test_whole_numbers_stay_exact():
    inputs = keras.Input((2, 2, 3))
    mean = keras.ops.mean(inputs, axis=(1, 2))
    outputs = {
        "logits": keras.ops.cast(mean, "bfloat16"),
        "large": keras.ops.cast(mean, "int32") + 2**24 + 1,
        "any": mean > 0.5,
    }
    found = outputs_of(keras.Model(inputs, outputs), np.ones((1, 2, 2, 3)))
    assert {name: value.dtype for name, value in found.items()} == {
        "logits": "float32",
        "large": "int32",
        "any": "bool",
    }
    np.testing.assert_array_equal(found["large"], [[2**24 + 2] * 3])


def test_sizes_that_a_model_leaves_open_are_any():
    inputs = keras.Input((None, 24, 3))
    logits = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, {"logits": logits})
    for height in (5, 31):
        pixels = images(2, (height, 24))
        found = outputs_of(model, pixels)["logits"]
        np.testing.assert_allclose(found, pixels.mean((1, 2)), rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(examples, any, 24, 3\).*\(2, 5, 23, 3\)"):
        outputs_of(model, images(2, (5, 23)))
    with pytest.raises(ValueError, match="any, 24, 3"):
        outputs_of(model, images(2, (5, 24))[0])


def test_top_classes_are_those_of_a_sorted_list():
    scores = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])
    assert top_classes(scores, 2).tolist() == [[1, 2], [0, 2]]
    assert top_classes(scores[1], 9).tolist() == [0, 2, 1]
    equal = np.zeros((4, 7))
    np.testing.assert_array_equal(top_classes(equal, 1)[:, 0], equal.argmax(axis=-1))


def no_maps(monkeypatch):
    """Fails when a model's maps are computed for a caller that needs none."""

    def predict(self, *arguments, **options):
        assert set(self.output) == {"logits"}
        return original(self, *arguments, **options)

    original = keras.Model.predict
    monkeypatch.setattr(keras.Model, "predict", predict)


def test_evaluation_and_prediction_leave_maps_out(tmp_path, monkeypatch):
    no_maps(monkeypatch)
    path = tiny.save_localizer(tmp_path)
    model = load_trained(path).model
    red = tiny.plain_image(red=200, height=40, width=56)
    assert evaluate_model(model, red[None], np.array([0]))["accuracy"] == 1.0
    file = tiny.save_image(tmp_path / "red.png", red)
    predictions, _ = predict(path, [file])
    assert predictions[0]["predictions"][0]["class"] == "red"


def test_accuracy_is_that_of_the_last_model_as_it_is_used(tmp_path, monkeypatch):
    no_maps(monkeypatch)
    run = tiny.localizer_run(tmp_path / "run")
    pixels = np.stack(
        [
            tiny.plain_image(**{colour: 200}, height=40, width=56)
            for colour in ("red", "green", "blue", "blue")
        ]
    )
    nothing = (pixels[:0], np.array([], int))
    splits = {"test": (pixels, np.array([0, 1, 2, 0])), "validation": nothing}
    assert measures.accuracy(run, splits) == ("test_accuracy", 75.0, "%")
    splits = {"test": nothing, "validation": (pixels[:2], np.array([1, 0]))}
    assert measures.accuracy(run, splits) == ("validation_accuracy", 0.0, "%")
