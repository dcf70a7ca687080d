"""The nearest descriptors of an index, found by FAISS.

What FAISS searches is built from the arrays of the index each time: FAISS's own files
are not safe to read from strangers, and an exact index is a copy of the descriptors
anyway. Of an approximate one the costly part is kept, as arrays.
"""

import math
import zipfile
import zlib

import numpy as np

from keras_attn.pipelines.files import write_then_rename

# Of type "ivf". K-means is to have so many descriptors a list to learn from, at least
# and at most; a query looks through a share of the lists, but not through too few.
FEWEST_A_LIST, MOST_A_LIST = 39, 64
ITERATIONS = 10
PROBED_SHARE, FEWEST_PROBED = 1 / 16, 8
LISTS = "ivf.npz"


def require_faiss():
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "Searching an index needs FAISS: pip install 'keras-attn[retrieval]'"
        ) from error
    return faiss


class Nearest:
    """The descriptors of an index in memory, ready to be searched.

    Args:
        store: `IndexStore`. Its type decides how it is searched: `"flat"` exactly;
            `"float16"` in half the memory, exact but for the rounding of the
            descriptors; `"ivf"` only among the descriptors of the nearest lists, in
            half precision too.

    Raises:
        ImportError: If FAISS is not installed.
        ValueError: If the index is empty.
    """

    def __init__(self, store):
        faiss = require_faiss()
        counting = store.counting()
        if not any(counting.values()):
            raise ValueError(
                f"Expected an index with images. Received: {store.path}, without any"
            )
        dimension = store.maker.dimension
        if store.index_type == "ivf":
            lists = inverted_lists(store)
            self.index = lists.index()
        elif store.index_type == "float16":
            self.index = float16_index(dimension)
        else:
            self.index = faiss.IndexFlatIP(dimension)
        self.names = []
        for name, rows in counting.items():
            part = store.read(name, rows)
            if store.index_type == "ivf":
                lists.add(self.index, part.descriptors, name)
            else:
                self.index.add(part.descriptors)
            self.names += part.names

    def search(self, queries, top=10):
        """The nearest descriptors of each query, by cosine similarity.

        Args:
            queries: `(queries, dimension)`, float32, of length one.
            top: How many; fewer where there are not so many.

        Returns:
            For each query a list of `(name, similarity)`, the nearest first.
        """
        dimension = self.index.d
        if queries.ndim != 2 or queries.shape[1] != dimension:
            raise ValueError(
                f"Expected queries of shape (queries, {dimension}), by the model that "
                f"made the index. Received: {queries.shape}"
            )
        if top < 1:
            raise ValueError(f"Expected `top` of at least 1. Received: top={top}")
        top = min(top, len(self.names))
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


def float16_index(dimension):
    """An empty index of FAISS that keeps descriptors in half precision."""
    faiss = require_faiss()
    half = faiss.ScalarQuantizer.QT_fp16
    return faiss.IndexScalarQuantizer(dimension, half, faiss.METRIC_INNER_PRODUCT)


# ---- inverted lists ------------------------------------------------------------------


class InvertedLists:
    """Centroids, and for every row of every part the nearest one.

    Args:
        centroids: `(lists, dimension)`, float32.
        learned_from: Number of descriptors that the index had then.
        of_parts: Dict from the name of a part to `(rows,)`, int64.
    """

    def __init__(self, centroids, learned_from, of_parts=None):
        self.centroids = np.ascontiguousarray(centroids, "float32")
        self.learned_from = int(learned_from)
        self.of_parts = dict(of_parts or {})

    def index(self):
        """An empty index of FAISS with these lists."""
        faiss = require_faiss()
        count, dimension = self.centroids.shape
        index = faiss.IndexIVFScalarQuantizer(
            self._quantizer(),
            dimension,
            count,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # Whole descriptors, not what is left of them without the centroid.
        )
        index.is_trained = True
        index.nprobe = min(count, max(FEWEST_PROBED, math.ceil(count * PROBED_SHARE)))
        return index

    def assign(self, descriptors):
        """The number of the nearest centroid of each descriptor."""
        return self._quantizer().search(descriptors, 1)[1][:, 0].copy()

    def _quantizer(self):
        quantizer = require_faiss().IndexFlatIP(self.centroids.shape[1])
        quantizer.add(self.centroids)
        return quantizer

    def add(self, index, descriptors, part):
        """Adds the rows of a part, whose lists are known, without a comparison."""
        faiss = require_faiss()
        rows = np.arange(index.ntotal, index.ntotal + len(descriptors))
        index.add_core(
            len(descriptors),
            faiss.swig_ptr(np.ascontiguousarray(descriptors)),
            faiss.swig_ptr(rows),
            faiss.swig_ptr(np.ascontiguousarray(self.of_parts[part], "int64")),
        )


def inverted_lists(store):
    """The lists of an index: those that are kept, and what is missing of them.

    They are learned again where the index has grown or shrunk by a factor of four.
    """
    counting = store.counting()
    total = sum(map(len, counting.values()))
    lists = _kept_lists(store)
    if lists is None or not total / 4 <= lists.learned_from <= total * 4:
        lists = InvertedLists(_learn(store, counting, total), total)
    of_parts = {}
    for name, rows in counting.items():
        of_parts[name] = lists.of_parts.get(name)
        if of_parts[name] is None or len(of_parts[name]) != len(rows):
            of_parts[name] = lists.assign(store.read(name, rows).descriptors)
    lists.of_parts = of_parts
    return lists


def save_lists(store, lists):
    """Keeps the lists in the folder of the index."""
    with write_then_rename(store.path / LISTS) as file:
        np.savez(
            file,
            centroids=lists.centroids,
            learned_from=lists.learned_from,
            **lists.of_parts,
        )


def _kept_lists(store):
    """The lists in the folder of the index, or `None` if they are not good."""
    try:
        with np.load(store.path / LISTS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        centroids, learned_from = arrays.pop("centroids"), arrays.pop("learned_from")
        lists = InvertedLists(centroids, learned_from, arrays)
    except (ValueError, OSError, EOFError, KeyError, TypeError):
        return None
    except (MemoryError, zipfile.BadZipFile, zlib.error):
        return None
    count, dimension = centroids.shape if centroids.ndim == 2 else (0, 0)
    fits = count > 0 and dimension == store.maker.dimension
    # FAISS does not check the numbers of lists.
    inside = all(
        rows.dtype == np.int64 and np.all((rows >= 0) & (rows < count))
        for rows in arrays.values()
    )
    return lists if fits and inside else None


def _learn(store, counting, total):
    """Centroids of an evenly spread sample of an index's descriptors."""
    count = list_count(total)
    step = max(1, total // (count * MOST_A_LIST))
    sample = np.concatenate(
        [store.read(name, rows[::step]).descriptors for name, rows in counting.items()]
    )
    return learn_centroids(sample, count)


def list_count(total):
    """How many lists so many descriptors are put into."""
    return max(1, min(round(math.sqrt(total)), total // FEWEST_A_LIST))


def learn_centroids(sample, count):
    """`(count, dimension)`, learned by k-means on the sphere."""
    kmeans = require_faiss().Kmeans(
        sample.shape[1],
        count,
        niter=ITERATIONS,
        spherical=True,
        seed=1,
        min_points_per_centroid=1,
        max_points_per_centroid=MOST_A_LIST,
    )
    kmeans.train(sample)
    return kmeans.centroids
