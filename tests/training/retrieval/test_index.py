"""Descriptors of trained models, and indexes that follow their folder."""

import importlib.util
import os
import shutil
import types

import keras
import numpy as np
import pytest

from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.retrieval.descriptors import describe, embedder_of
from keras_attn.training.retrieval.index import index_folder
from keras_attn.training.retrieval.nearest import GlobalDescriptors, descriptors_of
from keras_attn.training.retrieval.store import IndexParts, IndexStore
from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny
from tests.training.tiny import tiny_model


def trained(model, path="model.keras"):
    return types.SimpleNamespace(model=model, path=path)


def noise(height, width, count=3):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, height, width, 3), "uint8")


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# ---- descriptors ---------------------------------------------------------------------


def test_class_embedding_networks_are_described_by_what_the_classifier_sees():
    images = keras.Input((32, 32, 3))
    normalized = ImagePreprocessing(ImageSpec(32, 32))(images)
    model = tiny_model("", "class_embedding", 5, normalized)
    embedder = embedder_of(trained(model))
    pixels = noise(32, 32)
    found = describe(embedder, pixels, batch_size=2)
    pooled = keras.Model(images, model.get_layer("pool").output)
    wanted = unit(pooled.predict(pixels, verbose=0))
    assert found.dtype == np.float32 and embedder.output.dtype == "float32"
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    # What is scaled by its length gives the logits.
    kernel, bias = model.get_layer("logits").get_weights()
    lengths = np.linalg.norm(pooled.predict(pixels, verbose=0), axis=1, keepdims=True)
    logits = model.predict(pixels, verbose=0)["logits"]
    np.testing.assert_allclose((lengths * found) @ kernel + bias, logits, atol=1e-4)
    assert describe(embedder, pixels[:0]).shape == (0, found.shape[1])


def test_an_output_named_embedding_comes_first():
    images = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    outputs = {
        "logits": keras.layers.Dense(2)(pooled),
        "embedding": keras.layers.GlobalMaxPooling2D()(images),
    }
    pixels = noise(4, 4)
    found = describe(embedder_of(trained(keras.Model(images, outputs))), pixels)
    wanted = unit(pixels.max(axis=(1, 2)).astype("float64"))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_layers_that_change_no_answer_are_passed():
    images = keras.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Dense(2)(x)
    x = keras.layers.Activation("linear", dtype="float32")(x)
    model = keras.Model(images, {"logits": x})
    pixels = noise(4, 4)
    found = describe(embedder_of(trained(model)), pixels)
    wanted = unit(pixels.mean(axis=(1, 2)))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_localisers_are_described_by_the_attended_features_of_each_branch():
    model = tiny.localizer(auxiliary=False)
    pixels = noise(*tiny.LOCALIZER_SIZE)
    found = describe(embedder_of(trained(model)), pixels)
    wanted = []
    for window in tiny.WINDOWS:
        layer = model.get_layer(f"evidence_{window}")
        inputs = keras.Model(model.input, list(layer.input))
        features, attention = inputs.predict(pixels, verbose=0)
        wanted.append(unit((features * attention).sum(axis=(1, 2))))
    wanted = unit(np.concatenate(wanted, axis=-1))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_models_without_one_vector_an_image_are_refused():
    images = keras.Input((4, 4, 3))
    flat = keras.layers.Flatten()(images)
    halves = keras.layers.Add()([keras.layers.Dense(2)(flat)] * 2)
    model = keras.Model(images, {"logits": halves})
    with pytest.raises(ValueError, match="an output named 'embedding', or .*m.keras"):
        embedder_of(trained(model, "m.keras"))


def test_diverged_models_are_an_error():
    images = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    dense = keras.layers.Dense(2)
    model = keras.Model(images, {"logits": dense(pooled), "embedding": dense(pooled)})
    dense.set_weights([np.full((3, 2), np.nan), np.zeros(2)])
    with pytest.raises(ValueError, match="finite descriptors"):
        describe(embedder_of(trained(model)), noise(4, 4))


# ---- indexes -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save_colour_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path):
    """Images whose mean colours are all different."""
    random = np.random.default_rng(0)
    for number in range(7):
        name = f"{'ab'[number % 2]}/{number}.png"
        colour = random.integers(40, 256, 3)
        tiny.save_image(tmp_path / "in" / name, tiny.plain_image(*colour))
    return tmp_path / "in"


def described(output):
    """Dict from the names in an index to their descriptors."""
    store = IndexStore.open(output)
    return dict(zip(store.files, descriptors_of(store), strict=True))


def colours(folder):
    """The same as the model would have it: the direction of the mean colour."""
    from PIL import Image

    return {
        str(file.relative_to(folder)): unit(
            np.asarray(Image.open(file).convert("RGB"), "float64").mean(axis=(0, 1))
        )
        for file in folder.rglob("*.png")
    }


def assert_described(output, folder):
    found, wanted = described(output), colours(folder)
    assert sorted(found) == sorted(wanted)
    for name, colour in wanted.items():
        np.testing.assert_allclose(found[name], colour, atol=1e-5)


def counts(summary):
    return tuple(summary[key] for key in ("images", "added", "changed", "removed"))


def test_an_index_follows_its_folder(model, folder, tmp_path):
    output = tmp_path / "index"
    progress = []
    summary, problems = index_folder(
        model, folder, output, progress=lambda *done: progress.append(done)
    )
    assert counts(summary) == (7, 7, 0, 0) and problems == []
    assert summary["dimension"] == 3 and summary["index_type"] == "flat"
    assert summary["method"] == "global"
    assert progress == [(7, 7)]
    assert_described(output, folder)
    first = IndexStore.open(output).array
    summary, _ = index_folder(model, folder, output)
    assert counts(summary) == (7, 0, 0, 0)
    assert IndexStore.open(output).array == first
    assert {file.name for file in output.iterdir()} == {"index.json", first}
    (folder / "a" / "0.png").unlink()
    tiny.save_image(folder / "b" / "1.png", tiny.plain_image(200, 10, 10))
    tiny.save_image(folder / "new.png", tiny.plain_image(10, 200, 10))
    # The same bytes at another time may be another file of the same size.
    os.utime(folder / "a" / "2.png", ns=(1, 1))
    summary, _ = index_folder(model, folder, output, index_type="float16")
    assert counts(summary) == (7, 1, 2, 1) and summary["index_type"] == "float16"
    assert_described(output, folder)
    assert index_folder(model, folder, output)[0]["index_type"] == "float16"


def stop_after(monkeypatch, method, calls):
    """Numbers of images described so far; the call after `calls` is interrupted."""
    describe, seen = method.describe, []

    def stopping(self, embedder, images):
        if len(seen) == calls:
            raise KeyboardInterrupt
        seen.append(len(images))
        return describe(embedder, images)

    monkeypatch.setattr(method, "describe", stopping)
    return seen


def test_an_interrupted_index_resumes(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(IndexParts, "SHARD", 2)
    output = tmp_path / "index"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, GlobalDescriptors, 2)
        index_folder(model, folder, output)
    assert IndexStore.open(output).files == {}
    assert len(list((output / "parts").glob("*.npz"))) == 2
    # Of the files that were listed one is gone, one changed, and a new one came.
    described, waiting = (sorted(folder.rglob("*.png"))[n] for n in (0, 6))
    described.unlink()
    tiny.save_image(waiting, tiny.plain_image(200, 10, 10))
    tiny.save_image(folder / "new.png", tiny.plain_image(10, 200, 10))
    progress, seen = [], stop_after(monkeypatch, GlobalDescriptors, 99)
    summary, _ = index_folder(
        model, folder, output, progress=lambda *done: progress.append(done)
    )
    # First the rest of what was listed, then what was not.
    assert seen == [2, 2] and progress == [(6, 7), (7, 7), (2, 2)]
    assert counts(summary) == (7, 7, 0, 0)
    assert_described(output, folder)
    assert not (output / "parts").exists()


def test_a_kill_before_the_parts_are_deleted_adds_nothing_twice(
    model, folder, tmp_path, monkeypatch
):
    output = tmp_path / "index"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(IndexParts, "delete", lambda parts: exit())
        index_folder(model, folder, output)
    assert (output / "parts").exists()
    seen = stop_after(monkeypatch, GlobalDescriptors, 0)
    assert counts(index_folder(model, folder, output)[0]) == (7, 0, 0, 0)
    assert seen == []
    assert_described(output, folder)


def test_corrupt_images_are_an_error_or_left_out(model, folder, tmp_path):
    output = tmp_path / "index"
    bad = folder / "a" / "0.png"
    good = bad.read_bytes()
    index_folder(model, folder, output)
    bad.write_bytes(good[:40])
    with pytest.raises(CorruptImageError, match=r"a/0\.png: .*--on-corrupt skip"):
        index_folder(model, folder, output)
    summary, problems = index_folder(model, folder, output, on_corrupt="skip")
    assert counts(summary) == (6, 0, 0, 1)
    assert [problem.where for problem in problems] == [str(bad)]
    bad.write_bytes(good)
    assert counts(index_folder(model, folder, output)[0]) == (7, 1, 0, 0)
    assert_described(output, folder)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="a readable image"):
        index_folder(model, folder, tmp_path / "none", on_corrupt="skip")


def test_another_model_or_folder_is_refused(model, folder, tmp_path):
    output = tmp_path / "index"
    index_folder(model, folder, output)
    before = {file.name: file.read_bytes() for file in output.iterdir()}
    other = tiny.save_colour_model(tmp_path, patch_logits=False)
    with pytest.raises(ValueError, match="that made the index .*colours .SHA-256"):
        index_folder(other, folder, output)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    with pytest.raises(ValueError, match="is of, .*/in. Received: .*elsewhere"):
        index_folder(model, elsewhere, output)
    if importlib.util.find_spec("faiss"):
        with pytest.raises(ValueError, match="'global'. Received: method='asmk'"):
            index_folder(model, folder, output, method="asmk")
    assert {file.name: file.read_bytes() for file in output.iterdir()} == before
    # Both were moved: the same model by its digest, the same files by their state.
    shutil.rmtree(elsewhere)
    folder.rename(elsewhere)
    moved = shutil.copy(model, tmp_path / "moved.keras")
    assert counts(index_folder(moved, elsewhere, output)[0]) == (7, 0, 0, 0)
    assert IndexStore.open(output).images == str(elsewhere)


def test_what_is_no_folder_of_images_is_an_error(model, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    output = tmp_path / "index"
    with pytest.raises(FileNotFoundError, match="empty, a folder without any"):
        index_folder(model, tmp_path / "empty", output)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        index_folder(model, tmp_path / "nowhere", output)
    with pytest.raises(ValueError, match="0.png, a file"):
        index_folder(model, folder / "a" / "0.png", output)
    with pytest.raises(ValueError, match="index_type='tree'"):
        index_folder(model, folder, output, index_type="tree")
    with pytest.raises(ValueError, match="words=5, method='global'"):
        index_folder(model, folder, output, words=5)
    with pytest.raises(ValueError, match="`method` to be one of .*method='asm'. Did"):
        index_folder(model, folder, output, method="asm")
    with pytest.raises(ValueError, match="holds something else"):
        index_folder(model, folder, folder)
    assert not output.exists()


def test_a_run_is_known_by_its_folder_and_checkpoint(folder, tmp_path):
    run = tiny.generated_run(tmp_path / "run")
    index_folder(run.workdir, folder, tmp_path / "index", checkpoint="last")
    maker = IndexStore.open(tmp_path / "index").maker
    assert maker.path == str(run.workdir) and maker.checkpoint == "last"
    assert maker.name == run.recipe.name
    assert maker.preprocessing["height"] == load_trained(run.workdir).spec.height
