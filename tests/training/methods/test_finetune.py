"""Fine-tuning a small network of somebody's on images by colour."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.preprocessing import ImageSpec
from keras_attn.training.cli import main
from keras_attn.training.methods.finetune import METHOD
from keras_attn.training.methods.frozen_part import FrozenPart, fit_linear
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress
from tests.training import tiny_models

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)


def network():
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for number in range(2):
        x = layers.Conv2D(8, 3, 2, "same", use_bias=False)(x)
        x = layers.BatchNormalization(name=f"norm_{number}")(x)
        x = layers.ReLU(name=f"stage_{number}")(x)
    inner = keras.Model(inputs, x, name="inner")
    images = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(inner(images))
    return keras.Model(images, layers.Dense(7, activation="softmax")(x))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder with a network and photographs."""
    folder = tmp_path_factory.mktemp("finetune")
    keras.utils.set_random_seed(0)
    network().save(folder / "net.keras")
    generator = np.random.default_rng(0)
    for label, colour in enumerate(("red", "green", "blue")):
        (folder / "photos" / colour).mkdir(parents=True)
        for number in range(12):
            image = generator.integers(0, 60, (32, 32, 3))
            image[..., label] += 150
            file = folder / "photos" / colour / f"{number}.png"
            tiny_models.save_image(file, image.astype("uint8"))
    return folder


def words_of(folder, name, *words):
    given = "finetune", folder / "photos", "--from", folder / "net.keras"
    options = "--workdir", folder / name, "--batch-size", 4
    return [str(word) for word in (*given, *options, *words)]


def finetune(folder, name, *words):
    assert main(words_of(folder, name, *words)) == 0
    return Run.open(folder / name)


@pytest.fixture(scope="module")
def run(files):
    return finetune(files, "run", "--epochs", 5, "--set", "patience=1", "new_epochs=2")


def test_the_head_comes_first_and_training_ends_early(files, run, capsys):
    progress = load_progress(run.checkpoints / "last.npz")
    # The classes are separable by a linear head; no epoch can be better.
    assert progress.history[0]["val_accuracy"] == 1.0
    # Its patience begins in the middle.
    assert progress.epochs == 4 and progress.stopped and progress.best_epoch == 0
    finetune(files, "run", "--epochs", 5, "--set", "patience=1", "new_epochs=2")
    assert "is finished: 4 epochs" in capsys.readouterr().out


def test_statistics_stay_and_kernels_move(files, run):
    old = keras.saving.load_model(files / "net.keras")
    new = run.load_model("last")
    for number in range(2):
        ours, theirs = (
            each.get_layer(f"norm_{number}") for each in (new, old.get_layer("inner"))
        )
        for one, other in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_array_equal(one, other)
    kernels = [
        [layer.kernel for layer in each.layers if isinstance(layer, layers.Conv2D)]
        for each in (new, old.get_layer("inner"), run.load_model("best"))
    ]
    for last, first, best in zip(*kernels, strict=True):
        assert not np.array_equal(last, first)
        np.testing.assert_array_equal(best, first)


def test_resumed_is_as_uninterrupted(files):
    words = "--epochs", 2, "--set", "patience=0", "--block", "squeeze_excitation"
    whole = finetune(files, "whole", *words).load_model("last")
    with pytest.MonkeyPatch.context() as patch:
        # A run that stops after its first epoch has the schedule of both.
        patch.setattr("keras_attn.training.fit.train._fit", interrupt)
        assert main(words_of(files, "half", *words)) == 130
    resumed = finetune(files, "half", *words).load_model("last")
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_commands_take_the_run(files, run, capsys):
    image = files / "photos" / "red" / "0.png"
    assert main(["evaluate", str(run.workdir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 1.0
    assert (
        main(["explain", str(run.workdir), str(image), "--output", str(files / "e")])
        == 0
    )
    assert main(["export", str(run.workdir), "--output", str(files / "x")]) == 0
    assert list((files / "x").rglob("saved_model.pb"))


def test_blocks_at_one_place_stand_in_the_order_given(files):
    options = {"model": str(files / "net.keras"), "blocks": "eca,simam@inner/stage_1"}
    recipe = Recipe("x", "finetune", image_size=32, **options)
    model = METHOD.make_model(recipe, ImageSpec(32, 32, class_names=("a", "b")))
    names = [layer.name for layer in model.layers]
    places = [names.index(f"stage_1_{each}") for each in ("eca", "simam")]
    assert places == sorted(places) and "eca" in model.new_layers[0]


def test_the_rest_continues_from_the_features():
    model = network()
    inputs = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(model.get_layer("inner")(inputs))
    flat = keras.Model(inputs, {"logits": layers.Dense(3, name="logits")(x)})
    part = FrozenPart(flat, ("logits",))
    images = np.random.default_rng(0).uniform(0, 255, (5, 32, 32, 3)).astype("float32")
    found = part.features(images, np.zeros(5, "int64"))
    assert [each.shape for each in found] == [(5, 8)]
    np.testing.assert_allclose(
        part.rest.predict(found, verbose=0)["logits"],
        flat.predict(images, verbose=0)["logits"],
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_head_is_where_the_gradient_vanishes():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 5))
    y = np.argmax(x[:, :3] + generator.normal(size=(60, 3)), axis=1)
    x = x * [1, 20, 0.1, 3, 1] + 7
    kernel, bias = fit_linear(x, y, 3, 2000, seed=0)
    scores = x @ kernel + bias
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    errors = (shares - np.eye(3)[y]) / len(y)
    np.testing.assert_allclose(errors.sum(axis=0), 0, atol=2e-3)
    centred = x - x.mean(axis=0)
    slope = centred.T @ errors / np.std(centred)
    decayed = kernel * np.std(centred)
    decay = -np.sum(slope * decayed) / np.sum(decayed**2)
    assert 0.0029 < decay < 0.31
    np.testing.assert_allclose(slope, -decay * decayed, atol=0.01 * np.abs(slope).max())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pooling", "gems"], "The nearest|Did you mean|'gem'"),
        (["--block", "cbma"], "cbam"),
        (["--block", "cbam@inner/stage_9"], "stage_"),
    ],
)
def test_mistakes_take_one_line(files, capsys, words, message):
    assert main(words_of(files, "bad", *words)) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and re.search(message, errors), errors
    assert not (files / "bad").exists()
