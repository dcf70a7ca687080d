"""Recipe -> model, loss, optimizer, data, and what `train` leaves behind."""

import csv
import dataclasses
import gc
import hashlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_attn.graph.keras_graph import layers_of
from keras_attn.layers import ClassEmbedding
from keras_attn.models import build_model
from keras_attn.pipelines.batches import build
from keras_attn.training.data.load import load_data, load_source_of, load_source_split
from keras_attn.training.fit import callbacks
from keras_attn.training.fit.train import (
    adapt_statistics,
    prepare,
    train,
    trainable_model,
)
from keras_attn.training.methods import class_embedding
from keras_attn.training.methods.feeds.images import ImageFeed
from keras_attn.training.runs import state
from keras_attn.training.runs.run import Run
from tests.training.tiny import tiny_model, tiny_recipe


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(class_embedding, "build_model", tiny_model)


@pytest.fixture(scope="module")
def source():
    return load_source_of(tiny_recipe())


def crossentropy(logits, labels):
    """Mean over the cells of each image's -log softmax, in float64."""
    logits = np.asarray(logits, "float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    picked = np.stack(
        [-log[..., label] for log, label in zip(logs, labels, strict=True)]
    )
    return picked.reshape(len(labels), -1).mean(axis=1)


@pytest.mark.parametrize("row", ["baseline", "aux", "class_embedding"])
def test_the_loss_is_the_papers(row, source):
    recipe = tiny_recipe(row=row, patch_loss_weight=0.3, weight_decay=0.05)
    spec, splits = load_data(recipe, source=source)
    images, labels = (array[:8] for array in splits["train"])
    model = trainable_model(recipe, spec, 1)
    outputs = model.predict(images, verbose=0)
    wanted = crossentropy(outputs["logits"], labels).mean()
    if row != "baseline":
        patches = crossentropy(outputs["patch_logits"], labels).mean()
        wanted = 0.7 * wanted + 0.3 * patches
    kernels = [w for w in model.trainable_weights if w.name == "kernel"]
    assert len(kernels) == {"baseline": 2, "aux": 3, "class_embedding": 5}[row]
    wanted += 0.05 * sum(float((w.numpy() ** 2).sum()) for w in kernels)
    targets = {name: labels for name in model.output}
    logs = model.evaluate(images, targets, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(wanted, rel=1e-5)


def test_data_is_split_without_overlap_and_described(source):
    spec, splits = load_data(tiny_recipe(), source=source)
    assert set(splits) == {"train", "validation", "test"}
    texts = [image.tobytes() for images, _ in splits.values() for image in images]
    assert len(texts) == len(set(texts)) == 130
    assert (spec.height, spec.width) == (32, 32)
    assert (spec.mean, spec.std) == (source.mean, source.std)
    assert spec.class_names == source.class_names
    other = load_data(tiny_recipe(split_seed=1), source=source)[1]
    assert (other["train"][0] != splits["train"][0]).any()


def test_the_same_seed_gives_the_same_weights(source):
    spec, _ = load_data(tiny_recipe(), source=source)

    def start(seed):
        recipe = tiny_recipe(seed=seed)
        prepare(recipe)
        return trainable_model(recipe, spec, 1).get_weights()

    for first, second in zip(start(1), start(1), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (start(1)[0] != start(2)[0]).any()


def test_training_leaves_no_graphs(tmp_path, source):
    """Each would hold the weights and the optimizer's values."""
    counts = []
    for name in "abc":
        train(tiny_recipe(epochs=1), tmp_path / name, source=source, verbose=0)
        keras.backend.clear_session()
        gc.collect()
        counts.append(sum(isinstance(each, tf.Graph) for each in gc.get_objects()))
    assert counts[1] == counts[2]


def test_training_leaves_a_run_and_a_second_call_trains_nothing(
    tmp_path, source, capsys
):
    recipe = tiny_recipe(epochs=2)
    run = train(recipe, tmp_path / "run", source=source, verbose=0)
    assert Run.open(tmp_path / "run") == run
    with open(run.workdir / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert [line["epoch"] for line in history] == ["1", "2"]
    assert float(history[0]["learning_rate"]) == pytest.approx(1e-2)
    assert float(history[1]["learning_rate"]) == pytest.approx(1e-4)
    assert any((run.workdir / "tensorboard" / "train").iterdir())
    progress = state.load_progress(run.checkpoints / "last.npz")
    accuracies = [logs["val_logits_accuracy"] for logs in progress.history]
    assert progress.best == max(accuracies)
    assert progress.best_epoch == accuracies.index(max(accuracies))
    assert run.spec("last").class_names == source.class_names

    # The saved model is that of the last epoch: it gives the recorded accuracy.
    _, splits = load_data(recipe, source=source)
    images, labels = splits["validation"]
    logits = run.load_model("last").predict(images, verbose=0)["logits"]
    accuracy = np.mean(logits.argmax(-1) == labels)
    assert accuracy == pytest.approx(accuracies[-1], abs=1e-6)

    before = {path: path.stat().st_mtime_ns for path in run.workdir.rglob("*")}
    capsys.readouterr()
    train(recipe, tmp_path / "run", source=source, verbose=0)
    assert "is finished: 2 epochs" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in run.workdir.rglob("*")}


def test_a_baseline_in_bfloat16_without_validation_data(tmp_path, source, monkeypatch):
    def without_validation(*arguments):
        found = load_source_split(*arguments)
        found.indices["validation"] = found.indices["validation"][:0]
        return found

    monkeypatch.setattr(
        "keras_attn.training.fit.train.load_source_split", without_validation
    )
    recipe = tiny_recipe(row="baseline", dtype_policy="mixed_bfloat16", epochs=2)
    run = train(recipe, tmp_path, source=source, verbose=0)
    progress = state.load_progress(run.checkpoints / "last.npz")
    assert progress.best_epoch == 1
    model = run.load_model("best")
    assert model.get_layer("stem").compute_dtype == "bfloat16"
    assert model.output["logits"].dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_a_baseline_is_judged_by_its_validation_accuracy(source):
    recipe = tiny_recipe(row="baseline")
    spec, splits = load_data(recipe, source=source)
    model = trainable_model(recipe, spec, 1)
    validation = build.label_outputs(
        ImageFeed(recipe, splits).validation(), list(model.output)
    )
    logs = model.evaluate(validation, verbose=0, return_dict=True)
    assert class_embedding.METHOD.watched(model).removeprefix("val_") in logs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"augmentation": "cutmix"}, "augmentation"),
        ({"batch_size": 1000}, "batch_size=1000"),
        ({"split": "60_40"}, "split"),
    ],
)
def test_a_mistake_leaves_nothing_behind(tmp_path, source, changes, words):
    with pytest.raises(ValueError, match=words):
        train(tiny_recipe(**changes), tmp_path / "run", source=source)
    assert not (tmp_path / "run").exists()


def test_another_recipe_or_other_data_cannot_continue_a_run(tmp_path, source):
    def stop(*arguments):
        raise KeyboardInterrupt

    recipe = tiny_recipe(epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Checkpoint, "on_epoch_begin", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path, source=source, verbose=0)
    spec, splits = load_data(recipe, source=source)
    progress = state.Progress([{"epoch": 1}], data="other")
    state.save_state(
        tmp_path / "checkpoints" / "last.npz",
        trainable_model(recipe, spec, 9),
        progress,
    )
    with pytest.raises(ValueError, match="Expected the data that .* was trained on"):
        train(recipe, tmp_path, source=source, verbose=0)
    with pytest.raises(ValueError, match="epochs=2 there, 9 now"):
        train(tiny_recipe(epochs=9), tmp_path, source=source, verbose=0)


def test_a_loss_that_explodes_stops_with_an_explanation(tmp_path, source):
    recipe = tiny_recipe(learning_rate=1e30, optimizer="sgd")
    with pytest.raises(callbacks.NotFiniteError) as caught:
        train(recipe, tmp_path, source=source, verbose=0)
    message = str(caught.value)
    assert "at step 2 of epoch 1" in message or "at step 3 of epoch 1" in message
    assert "No checkpoint was saved before." in message
    assert "learning_rate=1e+30" in message and "dtype_policy=float32" in message
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_run_starts_with_the_weights_that_it_is_given(tmp_path, source):
    first = train(tiny_recipe(epochs=1), tmp_path / "first", source=source)
    recipe = tiny_recipe(initial=str(first.workdir), seed=5)
    spec, _ = load_data(recipe, source=source)
    found = trainable_model(recipe, spec, 1).get_weights()
    wanted = first.load_model("best").get_weights()
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="Expected a model of .* to start from"):
        trainable_model(
            tiny_recipe(initial=str(first.workdir), row="baseline"), spec, 1
        )


def test_a_run_starts_with_all_but_the_head_of_other_classes(tmp_path, source, capsys):
    first = train(tiny_recipe(epochs=1), tmp_path / "first", source=source)
    fewer = dataclasses.replace(
        source,
        class_names=tuple(f"other {name}" for name in source.class_names),
        official={},
    )
    recipe = tiny_recipe(
        initial=str(first.workdir), seed=5, epochs=1, split="pooled_65_15_20"
    )
    spec, _ = load_data(recipe, source=fewer)
    found = trainable_model(recipe, spec, 1)
    wanted = first.load_model("best")
    kept = {}
    for ours, theirs in zip(found.weights, wanted.weights, strict=True):
        kept[ours.path] = np.array_equal(ours.numpy(), theirs.numpy())
    new = {path for path, same in kept.items() if not same}
    # Statistics that no training has changed are the same anyway.
    assert new and all("class_embedding/" in p or "logits" in p for p in new)
    assert kept["stem/kernel"]
    run = train(recipe, tmp_path / "second", source=fewer, verbose=0)
    card = (run.workdir / "card.md").read_text()
    (line,) = [each for each in card.splitlines() if "Initial weights" in each]
    assert re.search(r"first, SHA-256 [0-9a-f]{16}, \d+ of \d+ weights, without", line)
    assert line.removeprefix("- ") in capsys.readouterr().out
    digest = hashlib.sha256(first.model_path("best").read_bytes()).hexdigest()
    assert digest[:16] in line


def test_a_finished_run_is_extended_and_says_so(tmp_path, source):
    train(tiny_recipe(epochs=1), tmp_path, source=source, verbose=0)
    with pytest.raises(ValueError, match="another recipe: epochs=1 there, 0"):
        Run.check(tmp_path, _with_epochs(0))
    run = train(tiny_recipe(epochs=3), tmp_path, source=source, verbose=0)
    assert Run.open(tmp_path).recipe.epochs == 3
    progress = state.load_progress(run.checkpoints / "last.npz")
    assert [logs["epoch"] for logs in progress.history] == [1, 2, 3]
    card = (tmp_path / "card.md").read_text()
    assert "- Epochs: 3 of 3\n" in card and "- Extended: after 1 epochs to 3" in card


def _with_epochs(epochs):
    recipe = tiny_recipe()
    object.__setattr__(recipe, "epochs", epochs)
    return recipe


@pytest.mark.parametrize("steps", [5, 12, 60, 300, 5000])
def test_statistics_are_learned_in_the_steps_that_there_are(steps):
    inputs = keras.Input((4,))
    outer = keras.Sequential([inputs, keras.layers.BatchNormalization()])
    model = keras.Sequential([inputs, outer])
    assert adapt_statistics(model, steps) == (steps < 20)
    (layer,) = outer.layers
    # What remains of the first statistics, zero and one.
    assert layer.momentum ** max(steps, 5) < 0.04
    assert steps < 1000 or layer.momentum == 0.99
    # Frozen statistics are those of another training.
    layer.trainable, momentum = False, layer.momentum
    assert not adapt_statistics(model, 1) and layer.momentum == momentum


def test_own_networks_and_blocks_evaluate_as_they_train_after_few_steps():
    block = ClassEmbedding(num_classes=3)
    maps = keras.random.normal((64, 6, 6, 8), seed=0) * 3 + 2
    for _ in range(50):
        trained = block(maps, training=True)["features"]
    evaluated = block(maps, training=False)["features"]
    np.testing.assert_allclose(trained, evaluated, atol=0.1)
    for name in ("rn26", "rn38", "wrn16", "resnet20", "dn100"):
        model = build_model(name, row="class_embedding", num_classes=3)
        layers = [each for each in layers_of(model) if hasattr(each, "moving_mean")]
        assert layers and all(layer.momentum <= 0.9 for layer in layers)
