"""The benchmark of searching, on few and short descriptors."""

import numpy as np
import pytest

from benchmarks import search


def test_every_way_is_measured_and_the_exact_ones_agree(monkeypatch):
    pytest.importorskip("faiss")
    for name, value in {"QUICK_COUNT": 2000, "DIMENSION": 24, "CHUNK": 500}.items():
        monkeypatch.setattr(search, name, value)
    rows = {row.case: row for row in search.run(True)}
    ways = ("NumPy", "flat", "float16", "ivf")
    cases = [f"{way}, {size}" for size in ("1 query", "64 queries") for way in ways]
    assert list(rows) == ["float16, recall@10", "ivf, recall@10", *cases]
    assert rows["NumPy, 1 query"].ratio == rows["NumPy, 64 queries"].ratio == 1.0
    assert rows["float16, recall@10"].ratio > 0.95
    assert 0.2 < rows["ivf, recall@10"].ratio <= 1.0
    assert {rows[case].unit for case in cases} == {"ms", "queries/s"}


def test_plain_numpy_finds_the_largest_products_in_order():
    random = np.random.default_rng(0)
    descriptors, queries = random.normal(size=(50, 5)), random.normal(size=(7, 5))
    wanted = np.argsort(-(queries @ descriptors.T), axis=1)[:, :10]
    np.testing.assert_array_equal(search.numpy_search(descriptors, queries, 10), wanted)


def test_exact_indexes_that_are_not_are_an_error():
    def wrong(queries):
        return np.arange(70).reshape(7, 10) + 5

    def right(queries):
        return np.arange(70).reshape(7, 10)

    with pytest.raises(RuntimeError, match="find what NumPy finds"):
        search.recalls({"NumPy": right, "flat": wrong}, None)
    (row,) = search.recalls({"NumPy": right, "flat": right, "ivf": wrong}, None)
    assert (row.case, row.value, row.unit) == ("ivf, recall@10", 50.0, "%")


def test_ratios_say_how_many_times_faster_than_numpy():
    seconds = {"NumPy, 4 queries": [2.0, 4.0, 6.0], "flat, 4 queries": [1.0, 1.0, 2.0]}
    numpy, flat = search.speeds(seconds, 4)
    assert (numpy.value, numpy.unit, numpy.ratio) == (1.0, "queries/s", 1.0)
    assert (flat.value, flat.ratio) == (4.0, 3.0)
    seconds = {"NumPy, 1 query": [0.002], "flat, 1 query": [0.004]}
    assert [row.value for row in search.speeds(seconds, 1)] == [2.0, 4.0]
    assert search.speeds(seconds, 1)[1].ratio == 0.5


def test_too_little_memory_is_an_error_before_anything_is_made():
    search.check_memory(1)
    if search.pathlib.Path("/proc/meminfo").exists():
        with pytest.raises(MemoryError, match="1000000 GB of free memory. Received: "):
            search.check_memory(1e15)
