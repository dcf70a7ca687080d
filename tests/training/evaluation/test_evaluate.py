import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_attn.pipelines.batches import build
from keras_attn.training.data.load import load_data
from keras_attn.training.evaluation.evaluate import (
    evaluate,
    evaluate_model,
    format_evaluation,
    score,
    trained_on,
)
from keras_attn.training.fit.train import train
from keras_attn.training.methods import class_embedding
from tests.training import tiny_models as tiny
from tests.training.tiny import tiny_model, tiny_recipe


def test_score_agrees_with_keras_metrics():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(53, 7)).astype("float32") * 3
    labels = rng.integers(0, 6, 53).astype("int32")
    result = score(logits, labels)
    metrics = {
        "accuracy": keras.metrics.SparseCategoricalAccuracy(),
        "top5_accuracy": keras.metrics.SparseTopKCategoricalAccuracy(5),
        "cross_entropy": keras.metrics.SparseCategoricalCrossentropy(from_logits=True),
    }
    for name, metric in metrics.items():
        metric.update_state(labels, logits)
        assert result[name] == pytest.approx(float(metric.result()), abs=1e-5)
    assert result["examples"] == 53
    for label in range(6):
        mine = [logits[i].argmax() == label for i in range(53) if labels[i] == label]
        assert result["per_class_accuracy"][label] == pytest.approx(np.mean(mine))
    assert result["per_class_accuracy"][6] is None


def test_score_survives_large_logits():
    result = score(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]))
    assert result["cross_entropy"] == pytest.approx(5000.0)
    assert result["top5_accuracy"] == 1.0


def one_loud_cell():
    """The mean logits say red, for one cell; the mean probabilities say green."""
    image = tiny.plain_image(green=26)
    image[: tiny.CELL, : tiny.CELL] = (255, 0, 0)
    return image


def test_patch_accuracy_averages_probabilities_not_logits():
    images = np.stack([one_loud_cell(), tiny.plain_image(blue=90)])
    result = evaluate_model(tiny.colour_model(), images, np.array([0, 2]))
    assert result["accuracy"] == 1.0
    assert result["patch_accuracy"] == 0.5
    result = evaluate_model(tiny.colour_model(), images, np.array([1, 2]))
    assert result["accuracy"] == 0.5
    assert result["patch_accuracy"] == 1.0


def test_models_without_patch_logits_have_no_patch_accuracy():
    images = tiny.plain_image(red=9)[None]
    result = evaluate_model(tiny.colour_model(False), images, np.array([0]))
    assert "patch_accuracy" not in result


@pytest.mark.parametrize("chunk", [4096, 4])
def test_batch_and_chunk_size_do_not_matter(monkeypatch, chunk):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (11, tiny.HEIGHT, tiny.WIDTH, 3), "uint8")
    labels = rng.integers(0, 3, 11)
    model = tiny.colour_model()
    expected = evaluate_model(model, images, labels)
    monkeypatch.setattr("keras_attn.training.evaluation.evaluate.CHUNK", chunk)
    result = evaluate_model(model, images, labels, 3)
    classes = result.pop("per_class_accuracy")
    assert classes == expected.pop("per_class_accuracy")
    assert result == pytest.approx(expected)


@pytest.mark.parametrize(
    "shape, labels, message",
    [
        ((2, 16, 24, 1), [0, 1], "8-bit RGB images"),
        ((2, 24, 16, 3), [0, 1], r"shape \(examples, 16, 24, 3\)"),
        ((2, 16, 24, 3), [0, 3], r"labels in \[0, 3\)"),
        ((2, 16, 24, 3), [0], "one label for each of 2 images"),
        ((0, 16, 24, 3), [], "at least one image"),
    ],
)
def test_unfit_arrays_are_an_error(shape, labels, message):
    images, labels = np.zeros(shape, "uint8"), np.array(labels, int)
    with pytest.raises(ValueError, match=message):
        evaluate_model(tiny.colour_model(), images, labels)


def test_diverged_model_is_an_error():
    model = tiny.colour_model()
    layer = model.get_layer("patch_logits")
    layer.set_weights([np.full((1, 1, 3, 3), np.nan)])
    with pytest.raises(ValueError, match="NaN or infinite"):
        evaluate_model(model, tiny.plain_image(red=1)[None], np.array([0]))


def test_run_is_evaluated_on_its_own_data_and_recorded(tmp_path):
    run = tiny.generated_run(tmp_path / "run")
    result = evaluate(run.workdir)
    assert (result["dataset"], result["split"]) == ("generated", "test")
    assert result["examples"] == 20
    validation = evaluate(run.workdir, "validation", checkpoint="last")
    assert validation["examples"] == 10
    evaluations = json.loads((run.workdir / "evaluation.json").read_text())
    assert evaluations == {
        "test": {"best": result},
        "validation": {"last": validation},
    }
    assert f"accuracy        {100 * result['accuracy']:.2f} %" in format_evaluation(
        result
    )
    # A checkpoint named by its path is the run's.
    again = evaluate(run.checkpoints / "best.keras")
    assert again == {**result, "model": str(run.checkpoints / "best.keras")}


def test_other_images_than_the_trained_ones_are_noticed():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (6, 4, 4, 3), "uint8")
    labels = np.array([0, 1, 0, 1, 0, 1])
    splits = {"train": (images[:4], labels[:4]), "validation": (images[4:], labels[4:])}
    other = {"train": (images[2:], labels[2:]), "validation": (images[:2], labels[:2])}
    assert build.checksum(splits) == build.checksum(dict(reversed(splits.items())))
    assert build.checksum(splits) != build.checksum(other)


def test_run_knows_whether_it_was_trained_on_the_data(monkeypatch, tmp_path):
    monkeypatch.setattr(class_embedding, "build_model", tiny_model)
    recipe = tiny_recipe(epochs=1)
    run = train(recipe, tmp_path / "run", verbose=0)
    assert evaluate(run.workdir)["same_data"] is True
    _, splits = load_data(dataclasses.replace(recipe, difficulty=0.1))
    assert trained_on(run, splits) is False


def test_split_without_images_is_an_error(tmp_path):
    run = tiny.generated_run(tmp_path / "run")
    with pytest.raises(ValueError, match="train, validation, test"):
        evaluate(run.workdir, "all")
    assert not (run.workdir / "evaluation.json").exists()


def test_unreadable_evaluation_file_is_named(tmp_path):
    run = tiny.generated_run(tmp_path / "run")
    (run.workdir / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match="evaluation.json.*Delete it"):
        evaluate(run.workdir)


def test_model_file_on_a_folder_of_images(tmp_path):
    path = tiny.save_colour_model(tmp_path)
    result = evaluate(path, data=str(tiny.colour_folder(tmp_path / "images")))
    assert (result["split"], result["examples"]) == ("all", 6)
    assert result["accuracy"] == 1.0
    assert result["per_class_accuracy"] == {"red": 1.0, "green": 1.0, "blue": 1.0}
    assert not list(tmp_path.glob("**/evaluation.json"))


def test_classes_of_a_folder_are_found_by_name(tmp_path):
    path = tiny.save_colour_model(tmp_path)
    folder = tiny.colour_folder(tmp_path / "images")
    for file in (folder / "green").iterdir():
        file.unlink()
    (folder / "green").rmdir()
    result = evaluate(path, data=str(folder))
    assert result["per_class_accuracy"] == {"red": 1.0, "green": None, "blue": 1.0}


def test_data_of_other_classes_is_an_error(tmp_path):
    path = tiny.save_colour_model(tmp_path)
    folder = tiny.colour_folder(tmp_path / "images")
    (folder / "blue").rename(folder / "yellow")
    with pytest.raises(ValueError, match=r"\['yellow'\] among its 3 classes"):
        evaluate(path, data=str(folder))
    with pytest.raises(ValueError, match="--data PATH"):
        evaluate(path)


def test_images_that_stay_in_their_files_give_the_same(tmp_path, monkeypatch):
    from keras_attn.pipelines.images.streaming import StreamedImages, load_images
    from keras_attn.pipelines.sources import load_source

    monkeypatch.setattr("keras_attn.training.evaluation.evaluate.CHUNK", 4)
    model = tiny.colour_model()
    folder = tiny.colour_folder(tmp_path / "images", each=3)
    spec = model.get_layer("preprocessing").spec
    found = []
    for gib in (1.0, 0.0):
        source, images = load_images(load_source("folder", path=folder), spec, gib)
        found.append(evaluate_model(model, images, source.labels))
    assert isinstance(images, StreamedImages)
    assert found[0] == found[1] and found[0]["examples"] == 9
