"""ASMK indexes of images whose local descriptors are the colours of their cells."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_attn.retrieval import nearest_words
from keras_attn.training import cli
from keras_attn.training.retrieval import asmk
from keras_attn.training.retrieval.index import index_folder
from keras_attn.training.retrieval.methods import IndexMethod, method_of
from keras_attn.training.retrieval.search import Searcher
from keras_attn.training.retrieval.store import IndexParts, IndexStore
from keras_attn.training.trained import Trained
from tests.reference import retrieval as reference
from tests.training import tiny_models as tiny

WORDS = 7
faiss = pytest.importorskip("faiss")


def cells_image(seed):
    """Cells of single colours, some of them black."""
    colours = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), "uint8")
    colours[1, 2] = 0
    return np.repeat(np.repeat(colours, tiny.CELL, axis=0), tiny.CELL, axis=1)


def cells(pixels):
    """The colours of an image's cells but the black one, of length one, rounded."""
    colours = pixels[:: tiny.CELL, :: tiny.CELL].reshape(6, 3)[:5].astype("float64")
    return reference.unit_rows(colours).astype("float16").astype("float64")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save_colour_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path):
    for number in range(8):
        name = f"{'ab'[number % 2]}/{number}.png"
        tiny.save_image(tmp_path / "in" / name, cells_image(number))
    return tmp_path / "in"


def files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def check_search(index, folder, seed):
    """Compares a search with ASMK of the cells, word by word."""
    codebook = np.load(index / "codebook.npy")
    query = cells_image(seed)
    (hits,) = Searcher.open(index).search(query[None], top=99)
    wanted = {}
    for file in folder.rglob("*.png"):
        image = cells(np.asarray(Image.open(file)))
        counts = (asmk.NEAREST, 1)
        similarity = reference.asmk(
            cells(query), image, codebook, 3.0, 0.0, np.ones(len(codebook)), counts
        )
        if similarity > 0:
            wanted[file.relative_to(folder).as_posix()] = similarity
    assert len(wanted) > 2
    assert dict(hits) == pytest.approx(wanted, abs=1e-6)
    values = [value for _, value in hits]
    assert values == sorted(values, reverse=True)


def test_search_is_asmk_of_the_cells_also_after_an_update(model, folder, tmp_path):
    index = tmp_path / "index"
    summary, _ = index_folder(model, folder, index, method="asmk", words=WORDS)
    assert summary["images"] == 8 and summary["dimension"] == 3
    assert (summary["method"], summary["words"]) == ("asmk", WORDS)
    codebook = np.load(index / "codebook.npy")
    found = np.concatenate([cells(cells_image(number)) for number in range(8)])
    nearest = nearest_words(found, codebook)[:, 0]
    means = [found[nearest == word].mean(axis=0) for word in range(WORDS)]
    np.testing.assert_allclose(codebook, means, atol=1e-3)
    check_search(index, folder, 20)
    # The codebook stays when images come, change and go.
    (folder / "a" / "0.png").unlink()
    tiny.save_image(folder / "b" / "1.png", cells_image(31))
    tiny.save_image(folder / "new.png", cells_image(32))
    summary, _ = index_folder(model, folder, index)
    assert [summary[key] for key in ("added", "changed", "removed")] == [1, 1, 1]
    np.testing.assert_array_equal(np.load(index / "codebook.npy"), codebook)
    check_search(index, folder, 21)
    with pytest.raises(ValueError, match="words of the index, 7. Received: words=8"):
        index_folder(model, folder, index, words=8)


def test_an_image_finds_itself_also_where_a_word_is_its_own(model, tmp_path):
    colours = [(20, 30, 200), (60, 30, 200), (100, 30, 200), (140, 30, 200)]
    for number, colour in enumerate(colours):
        tiny.save_image(tmp_path / "in" / f"{number}.png", tiny.plain_image(*colour))
    index_folder(model, tmp_path / "in", tmp_path / "index", method="asmk", words=4)
    searcher = Searcher.open(tmp_path / "index")
    for number, colour in enumerate(colours):
        (hits,) = searcher.search(tiny.plain_image(*colour)[None])
        assert f"{number}.png" in dict(hits)


def test_an_interruption_changes_nothing(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(IndexParts, "SHARD", 3)
    index_folder(model, folder, tmp_path / "whole", method="asmk")
    describe, calls = asmk.Asmk.describe, []

    def stopping(self, embedder, images):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return describe(embedder, images)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(asmk.Asmk, "describe", stopping)
        index_folder(model, folder, tmp_path / "index", method="asmk")
    summary, _ = index_folder(model, folder, tmp_path / "index")
    assert files(tmp_path / "index") == files(tmp_path / "whole")
    # 40 descriptors, 39 for each word.
    assert summary["words"] == 1


def test_the_commands_make_and_search_it(model, folder, tmp_path, capsys):
    index = [model, folder, "--output", tmp_path / "index", "--method", "asmk"]
    assert cli.main(["index", *map(str, index), "--words", str(WORDS)]) == 0
    assert "8 images (8 added, 0 changed, 0 removed), visual words out of 7, of l" in (
        capsys.readouterr().out
    )
    query = str(folder / "a" / "0.png")
    assert cli.main(["search", str(tmp_path / "index"), query, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert query in [hit["image"] for hit in result["hits"]]
    assert all(0 < hit["similarity"] <= 1 for hit in result["hits"])


def test_damaged_and_empty_indexes_are_one_error_each(model, folder, tmp_path):
    index = tmp_path / "index"
    index_folder(model, folder, index, method="asmk", words=WORDS)
    store = IndexStore.open(index)
    empty = IndexStore.open_or_create(
        tmp_path / "empty", store.maker, folder, "asmk", {"words": None}
    )
    with pytest.raises(ValueError, match="an index with images. Received: .*empty"):
        asmk.WordSearcher(empty)
    codebook = np.load(index / "codebook.npy")
    np.save(index / "codebook.npy", codebook[::-1])
    for use in (Searcher.open, lambda path: index_folder(model, folder, path)):
        tiny.save_image(folder / "new.png", cells_image(9))
        with pytest.raises(ValueError, match="codebook.npy, which is damaged .not the"):
            use(index)
    np.save(index / "codebook.npy", codebook)
    rows = np.array(np.load(index / store.array))
    rows["image"][3] = 99
    np.save(index / store.array, rows)
    with pytest.raises(ValueError, match="words of images that it does not have"):
        Searcher.open(index)


def test_the_strongest_descriptors_of_length_one(monkeypatch):
    monkeypatch.setattr(asmk, "STRONGEST", 4)
    model = tiny.colour_model()
    embedder = asmk.local_embedder_of(Trained(model, "m.keras"))
    images = np.stack([cells_image(0), np.zeros_like(cells_image(0))])
    found, none = asmk.describe_local(embedder, images, batch_size=1)
    lengths = np.linalg.norm(
        images[0, :: tiny.CELL, :: tiny.CELL].astype(float), axis=2
    )
    strongest = np.argsort(-lengths.ravel()[:5])[:4]
    np.testing.assert_allclose(found, cells(images[0])[strongest], atol=1e-6)
    assert none.shape == (0, 3)


def test_features_are_what_a_model_pools():
    images = keras.Input((16, 16, 3), name="images")
    features = keras.layers.Conv2D(5, 3, name="map")(images)
    pooled = keras.layers.GlobalMaxPooling2D()(features)
    embedding = keras.layers.UnitNormalization()(keras.layers.Dense(4)(pooled))
    network = keras.Model(images, {"embedding": embedding})
    found = asmk.local_embedder_of(Trained(network, "m.keras"))
    assert found.output is network.get_layer("map").output
    with pytest.raises(ValueError, match="one feature map. Received: m.keras, which"):
        asmk.local_embedder_of(Trained(tiny.localizer(auxiliary=False), "m.keras"))


def test_words_are_the_means_of_the_descriptors_nearest_to_them():
    descriptors = np.random.default_rng(0).normal(size=(300, 6))
    words = asmk.learn_codebook(descriptors, 5, iterations=100, seed=1)
    nearest = nearest_words(descriptors, words)[:, 0]
    means = [descriptors[nearest == word].mean(axis=0) for word in range(5)]
    np.testing.assert_allclose(words, means, atol=1e-4)
    again = asmk.learn_codebook(descriptors, 5, iterations=100, seed=1)
    np.testing.assert_array_equal(words, again)


def test_refuses_fewer_descriptors_than_words():
    with pytest.raises(ValueError, match="shape \\(3, 6\\), words=4"):
        asmk.learn_codebook(np.zeros((3, 6)), 4)


@pytest.mark.parametrize("name", ["global", "asmk"])
def test_methods_follow_the_protocol(name):
    assert isinstance(method_of(name), IndexMethod)
