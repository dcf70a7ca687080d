"""Searching many descriptors: FAISS as `keras-attn search` uses it, against NumPy.

A case is one query, or a batch of them, and its ten nearest descriptors. The
descriptors are random projections of few random numbers through a ReLU: non-negative
and of a low intrinsic dimension, as pooled features are.
"""

import pathlib
import statistics

import numpy as np

from benchmarks import measure
from keras_attn.training.retrieval import nearest

COUNT, QUICK_COUNT = 1_000_000, 20_000
DIMENSION, LATENT = 2048, 16
BATCH, TOP = 64, 10
# Descriptors that are made at a time.
CHUNK = 10_000
# Bytes of all indexes together for each number of a descriptor: 4 and 2 of the exact
# ones; the lists grow by doubling, so half of their 2 may be empty, and be copied.
BYTES_PER_NUMBER = 4 + 2 + 4


def run(quick):
    """Measurements of one query and of a batch, and of what is found."""
    count = QUICK_COUNT if quick else COUNT
    check_memory(count * DIMENSION * BYTES_PER_NUMBER)
    indexes = {"flat": flat_index(count)}
    descriptors = view_of(indexes["flat"])
    indexes["float16"] = nearest.float16_index(DIMENSION)
    for start in range(0, count, CHUNK):
        indexes["float16"].add(descriptors[start : start + CHUNK])
    indexes["ivf"] = list_index(descriptors)
    ways = {
        "NumPy": lambda queries: numpy_search(descriptors, queries, TOP),
        **{
            name: lambda queries, index=index: index.search(queries, TOP)[1]
            for name, index in indexes.items()
        },
    }
    # None of them is a descriptor.
    queries = random_descriptors(count // CHUNK, BATCH)
    measurements = recalls(ways, queries)
    for size in (1, BATCH):
        cases = {
            f"{name}, {plural(size)}": lambda way=way, size=size: way(queries[:size])
            for name, way in ways.items()
        }
        seconds = measure.interleaved(cases, 3 if quick else 7)
        measurements += speeds(seconds, size)
    return measurements


def plural(size):
    return "1 query" if size == 1 else f"{size} queries"


def random_descriptors(chunk, count):
    """`(count, DIMENSION)`, float32, of length one; the same for the same chunk."""
    projection = np.random.default_rng(0).standard_normal(
        (LATENT, DIMENSION), "float32"
    )
    latent = np.random.default_rng((1, chunk)).standard_normal(
        (count, LATENT), "float32"
    )
    descriptors = np.maximum(latent @ projection, 0)
    return descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)


def flat_index(count):
    """The exact index, filled in place: added descriptors would be copied twice."""
    faiss = nearest.require_faiss()
    index = faiss.IndexFlatIP(DIMENSION)
    index.codes.resize(count * DIMENSION * 4)
    index.ntotal = count
    descriptors = view_of(index)
    for chunk, start in enumerate(range(0, count, CHUNK)):
        descriptors[start : start + CHUNK] = random_descriptors(chunk, CHUNK)
    return index


def view_of(index):
    """The descriptors in an exact index, so that NumPy needs no copy of them."""
    numbers = nearest.require_faiss().rev_swig_ptr(
        index.get_xb(), index.ntotal * index.d
    )
    return numbers.reshape(index.ntotal, index.d)


def list_index(descriptors):
    """The approximate index."""
    index = nearest.list_index(nearest.learn_centroids(descriptors))
    for start in range(0, len(descriptors), CHUNK):
        index.add(descriptors[start : start + CHUNK])
    return index


def numpy_search(descriptors, queries, top):
    """Numbers of the nearest descriptors, in order, by plain NumPy."""
    similarities = queries @ descriptors.T
    chosen = np.argpartition(similarities, -top, axis=1)[:, -top:]
    order = np.take_along_axis(similarities, chosen, axis=1).argsort(axis=1)[:, ::-1]
    return np.take_along_axis(chosen, order, axis=1)


def recalls(ways, queries):
    """Share of the ten nearest descriptors that each way finds.

    Raises:
        RuntimeError: If the exact index does not find them all.
    """
    found = {name: way(queries) for name, way in ways.items()}
    shares = {
        name: statistics.mean(
            [
                len(set(one) & set(other)) / len(one)
                for one, other in zip(found["NumPy"], rows, strict=True)
            ]
        )
        for name, rows in found.items()
    }
    # Two descriptors may be equally near but for rounding.
    if shares["flat"] < 0.99:
        raise RuntimeError("Expected the exact index to find what NumPy finds.")
    return [
        measure.Measurement(f"{name}, recall@{TOP}", 100 * share, "%", share)
        for name, share in shares.items()
        if name not in ("NumPy", "flat")
    ]


def speeds(seconds, size):
    """Latency of one query or rate of a batch, and how many times NumPy's speed."""
    reference = f"NumPy, {plural(size)}"
    return [
        measure.Measurement(
            case,
            1000 * statistics.median(times)
            if size == 1
            else size / statistics.median(times),
            "ms" if size == 1 else "queries/s",
            measure.median_ratio(seconds[reference], times),
        )
        for case, times in seconds.items()
    ]


def check_memory(wanted):
    """Raises `MemoryError` if fewer bytes are free, where Linux reports them."""
    status = pathlib.Path("/proc/meminfo")
    if not status.exists():
        return
    free = next(
        1024 * int(line.split()[1])
        for line in status.read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    if free < wanted:
        raise MemoryError(
            f"Expected {wanted / 1e9:.0f} GB of free memory. "
            f"Received: {free / 1e9:.0f} GB"
        )
