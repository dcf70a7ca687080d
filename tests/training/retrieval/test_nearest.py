"""The nearest descriptors against sorting all products in NumPy."""

import sys

import numpy as np
import pytest

from keras_attn.training.retrieval import nearest
from keras_attn.training.retrieval.store import IndexStore, Maker

DIMENSION = 13


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def new_maker():
    return Maker("/runs/a", "best", "recipe", "0" * 64, DIMENSION, {})


def new_store(path, descriptors, index_type="flat"):
    """An index; row `i` is the file `i`."""
    settings = {"index_type": index_type}
    store = IndexStore.open_or_create(path, new_maker(), "/in", "global", settings)
    if len(descriptors):
        store.write({str(i): (i, i) for i in range(len(descriptors))}, descriptors)
    return store


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss")


@pytest.fixture
def descriptors():
    """About a mean of their own, for lists to be found."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(12, DIMENSION))
    noise = 0.2 * random.normal(size=(1200, DIMENSION))
    return unit(centres[np.arange(1200) % 12] + noise).astype("float32")


@pytest.fixture
def queries(descriptors):
    random = np.random.default_rng(1)
    noise = 0.1 * random.normal(size=(40, DIMENSION))
    return unit(descriptors[random.choice(len(descriptors), 40)] + noise).astype(
        "float32"
    )


def sorted_products(descriptors, queries, top):
    products = queries.astype("float64") @ descriptors.T.astype("float64")
    order = np.argsort(-products, axis=1)[:, :top]
    return order, np.take_along_axis(products, order, axis=1)


def as_arrays(results):
    rows = np.array([[int(name) for name, _ in hits] for hits in results])
    return rows, np.array([[value for _, value in hits] for hits in results])


def recall(results, order):
    """Share of the true neighbours that are found."""
    found = [{int(name) for name, _ in hits} for hits in results]
    return np.mean(
        [
            len(hits & set(row)) / len(row)
            for hits, row in zip(found, order, strict=True)
        ]
    )


def test_flat_is_sorting_all_products(tmp_path, faiss, descriptors, queries):
    store = new_store(tmp_path / "index", descriptors)
    results = nearest.Nearest(store).search(queries, 7)
    rows, similarities = as_arrays(results)
    order, products = sorted_products(descriptors, queries, 7)
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(similarities, products, atol=1e-6)


def test_float16_is_the_same_but_for_rounding(tmp_path, faiss, descriptors, queries):
    store = new_store(tmp_path / "index", descriptors, "float16")
    results = nearest.Nearest(store).search(queries, 7)
    order, products = sorted_products(descriptors, queries, 7)
    np.testing.assert_allclose(as_arrays(results)[1], products, atol=1e-3)
    assert recall(results, order) > 0.97
    halves = sorted_products(descriptors.astype("float16"), queries, 7)
    np.testing.assert_array_equal(as_arrays(results)[0], halves[0])


def test_a_few_lists_hold_most_neighbours(
    tmp_path, faiss, descriptors, queries, monkeypatch
):
    monkeypatch.setattr(nearest, "FEWEST_PROBED", 2)
    store = new_store(tmp_path / "index", descriptors, "ivf")
    found = nearest.Nearest(store)
    # 1200 / 39 descriptors a list, and two lists of 30 looked through.
    assert found.index.nlist == 30 and found.index.nprobe == 2
    results = found.search(queries, 7)
    order, products = sorted_products(descriptors.astype("float16"), queries, 7)
    assert 0.6 < recall(results, order) < 1
    for hits, row in zip(results, products, strict=True):
        assert all(value <= row[0] + 1e-6 for _, value in hits)
    found.index.nprobe = 30
    rows, _ = as_arrays(found.search(queries, 7))
    np.testing.assert_array_equal(rows, order)


def test_centroids_are_learned_once_and_again_where_the_index_grew(
    tmp_path, faiss, descriptors, monkeypatch
):
    store = new_store(tmp_path / "index", descriptors[:600], "ivf")
    method = nearest.GlobalDescriptors()
    method.complete(store)
    kept = nearest.kept_centroids(store, 15).tobytes()
    learned = []
    learn = nearest.learn_centroids
    monkeypatch.setattr(
        nearest, "learn_centroids", lambda given: learned.append(1) or learn(given)
    )
    method.complete(store)
    assert nearest.Nearest(store).index.nlist == 15 and not learned
    assert nearest.kept_centroids(store, 15).tobytes() == kept
    # Twice as many lists are still good ones; more are not.
    assert nearest.kept_centroids(store, 30) is not None
    assert nearest.kept_centroids(store, 31) is None
    assert nearest.kept_centroids(store, 7) is None
    store.write({"a": (1, 1)}, descriptors[:1])
    method.complete(store)
    assert learned == [1] and len(nearest.kept_centroids(store, 1)) == 1


def test_every_row_is_in_the_list_of_its_nearest_centroid(faiss, descriptors):
    centroids = nearest.learn_centroids(descriptors)
    index = nearest.list_index(centroids)
    index.add(descriptors)
    wanted = np.argmax(descriptors @ centroids.T, axis=1)
    lists = index.invlists
    for number in range(index.nlist):
        rows = faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
        np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(wanted == number))


def test_centroids_that_are_no_good_are_learned_again(tmp_path, faiss, descriptors):
    store = new_store(tmp_path / "index", descriptors[:300], "ivf")
    method = nearest.GlobalDescriptors()
    method.complete(store)
    path = store.path / nearest.CENTROIDS
    good = path.read_bytes()
    for content in (b"", b"PK\x03\x04", good[:-9]):
        path.write_bytes(content)
        assert nearest.kept_centroids(store, 7) is None
        assert nearest.Nearest(store).index.nlist == 7
    np.save(path, np.zeros((7, 5), "float32"))
    method.complete(store)
    assert path.read_bytes() == good


def test_fewer_than_asked_for_and_one_list(tmp_path, faiss, descriptors):
    for index_type in nearest.INDEX_TYPES:
        store = new_store(tmp_path / index_type, descriptors[:5], index_type)
        (hits,) = nearest.Nearest(store).search(descriptors[3:4], 10)
        assert len(hits) == 5 and hits[0][0] == "3"
        assert 0.999 < hits[0][1] <= 1.0


def test_wrong_queries_and_empty_indexes_are_errors(tmp_path, faiss, descriptors):
    found = nearest.Nearest(new_store(tmp_path / "index", descriptors))
    with pytest.raises(ValueError, match=r"\(queries, 13\), by the model that made"):
        found.search(descriptors[:, :5])
    with pytest.raises(ValueError, match="top=0"):
        found.search(descriptors, 0)
    empty = new_store(tmp_path / "empty", descriptors[:0])
    with pytest.raises(ValueError, match="an index with images. Received: .*empty"):
        nearest.Nearest(empty)


def test_the_error_of_a_missing_faiss_has_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-attn\[retrieval\]'"):
        nearest.require_faiss()
