"""One descriptor per image, and the nearest ones, found by FAISS.

FAISS searches the array of descriptors as it lies on the disk, mapped into memory, or
an index that is built from it each time: FAISS's own files are not safe to read from
strangers. Of an approximate one the centroids are kept.
"""

import math

import numpy as np

from keras_attn._checks import one_of, positive_integer
from keras_attn.training.choices import INDEX_TYPES
from keras_attn.training.retrieval.descriptors import describe, embedder_of

# Of "ivf": descriptors per list for k-means to learn from, at least and at most; the
# share of the lists that a query looks through, and their least number.
FEWEST_PER_LIST, MOST_PER_LIST = 39, 64
ITERATIONS = 10
PROBED_SHARE, FEWEST_PROBED = 1 / 16, 8
CENTROIDS = "centroids.npy"
# Descriptors that are copied into FAISS at a time.
CHUNK = 8192


def require_faiss():
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "Searching an index needs FAISS: pip install 'keras-attn[retrieval]'"
        ) from error
    return faiss


class GlobalDescriptors:
    """The `IndexMethod` of one descriptor per image, compared by its cosine."""

    options, dtype = ("index_type",), "float32"
    embedder = staticmethod(embedder_of)
    describe = staticmethod(describe)

    def settings(self, before, index_type=None):
        index_type = index_type or before.get("index_type", "flat")
        if one_of("index_type", index_type, INDEX_TYPES) == "ivf":
            require_faiss()
        return {"index_type": index_type}

    def rows(self, store, kept, shards):
        parts = [descriptors_of(store)[kept]] if kept else []
        parts += [arrays["descriptors"] for arrays in shards()]
        parts.append(np.empty((0, store.maker.dimension), self.dtype))
        return np.concatenate(parts)

    def complete(self, store):
        if store.settings["index_type"] == "ivf" and store.files:
            descriptors = descriptors_of(store)
            centroids = kept_centroids(store, list_count(len(descriptors)))
            if centroids is None:
                store.write_array(CENTROIDS, learn_centroids(descriptors))

    def searcher(self, store):
        return Nearest(store)

    def text(self, summary):
        return f"{summary['dimension']} numbers each, type {summary['index_type']}"


class Nearest:
    """The descriptors of an index, ready to be searched.

    Args:
        store: `IndexStore`. Its type decides how it is searched: `"flat"` exactly, in
            its file, which takes no memory of its own;
            `"float16"` in half the memory, exact but for the rounding of the
            descriptors; `"ivf"` only among the descriptors of the nearest lists, in
            half precision too.

    Raises:
        ImportError: If FAISS is not installed.
        ValueError: If the index is empty.
    """

    def __init__(self, store):
        require_faiss()
        if not store.files:
            raise ValueError(
                f"Expected an index with images. Received: {store.path}, without any"
            )
        descriptors = descriptors_of(store)
        index_type = one_of("index_type", store.settings["index_type"], INDEX_TYPES)
        if index_type == "ivf":
            centroids = kept_centroids(store, list_count(len(descriptors)))
            self.index = list_index(
                learn_centroids(descriptors) if centroids is None else centroids
            )
        elif index_type == "float16":
            self.index = float16_index(descriptors.shape[1])
        else:
            self.index = Flat(descriptors)
        if index_type != "flat":
            for start in range(0, len(descriptors), CHUNK):
                self.index.add(np.ascontiguousarray(descriptors[start : start + CHUNK]))
        self.names = store.names

    def search(self, queries, top=10):
        """The nearest descriptors of each query, by cosine similarity.

        Args:
            queries: `(queries, dimension)`, float32, of length one.
            top: Number of hits; fewer where there are fewer.

        Returns:
            For each query a list of `(name, similarity)`, the nearest first.
        """
        dimension = self.index.d
        if queries.ndim != 2 or queries.shape[1] != dimension:
            raise ValueError(
                f"Expected queries of shape (queries, {dimension}), by the model that "
                f"made the index. Received: {queries.shape}"
            )
        top = min(positive_integer("top", top), len(self.names))
        similarities, rows = self.index.search(np.ascontiguousarray(queries), top)
        # Rounding may lead beyond the bounds of a cosine.
        similarities = np.clip(similarities, -1.0, 1.0)
        return [
            [
                (self.names[row], float(similarity))
                for similarity, row in zip(*pair, strict=True)
                # FAISS fills up with -1 where the lists looked through hold too few.
                if row >= 0
            ]
            for pair in zip(similarities, rows, strict=True)
        ]


class Flat:
    """Exact search among descriptors where they lie, like an index of FAISS."""

    def __init__(self, descriptors):
        self.descriptors, self.d = descriptors, descriptors.shape[1]

    def search(self, queries, top):
        faiss = require_faiss()
        metric = faiss.METRIC_INNER_PRODUCT
        return faiss.knn(queries, self.descriptors, top, metric=metric)


def descriptors_of(store):
    """The array of an index of global descriptors, mapped into memory."""
    return store.read_array(
        store.array, "float32", (len(store.files), store.maker.dimension)
    )


def float16_index(dimension):
    """An empty index of FAISS that keeps descriptors in half precision."""
    faiss = require_faiss()
    half = faiss.ScalarQuantizer.QT_fp16
    return faiss.IndexScalarQuantizer(dimension, half, faiss.METRIC_INNER_PRODUCT)


# ---- inverted lists ------------------------------------------------------------------


def list_index(centroids):
    """An empty index of FAISS with a list per centroid, in half precision."""
    faiss = require_faiss()
    centroids = np.ascontiguousarray(centroids)
    count, dimension = centroids.shape
    quantizer = faiss.IndexFlatIP(dimension)
    quantizer.add(centroids)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer,
        dimension,
        count,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # Whole descriptors, not their differences from the centroid.
    )
    index.is_trained = True
    index.nprobe = min(count, max(FEWEST_PROBED, math.ceil(count * PROBED_SHARE)))
    return index


def kept_centroids(store, count):
    """The centroids in the folder of an index, or `None`.

    Those that are missing or damaged, or of which there should be less than half or
    more than twice as many, are to be learned anew.
    """
    try:
        shape = (None, store.maker.dimension)
        centroids = store.read_array(CENTROIDS, "float32", shape)
    except ValueError:
        return None
    return centroids if count / 2 <= len(centroids) <= count * 2 else None


def list_count(total):
    """Number of lists for a number of descriptors."""
    return max(1, min(round(math.sqrt(total)), total // FEWEST_PER_LIST))


def learn_centroids(descriptors):
    """`(lists, dimension)`, learned by k-means on the sphere.

    Args:
        descriptors: `(descriptors, dimension)`, of which an even sample is used.
    """
    count = list_count(len(descriptors))
    sample = descriptors[:: max(1, len(descriptors) // (count * MOST_PER_LIST))]
    kmeans = require_faiss().Kmeans(
        sample.shape[1],
        count,
        niter=ITERATIONS,
        spherical=True,
        seed=1,
        min_points_per_centroid=1,
        max_points_per_centroid=MOST_PER_LIST,
    )
    kmeans.train(np.ascontiguousarray(sample))
    return kmeans.centroids
