"""ASMK indexes: images as visual words of their local descriptors.

Every position of the feature map that a model pools is a local descriptor; the
strongest ones, scaled to length one, are kept. A codebook is learned from those of the
images that are indexed first, and stays with the index; see
`keras_attn.retrieval.asmk`.
"""

import keras
import numpy as np

from keras_attn._checks import positive_integer
from keras_attn.layers.class_evidence import ClassEvidence
from keras_attn.pipelines.files import digest_of
from keras_attn.retrieval.asmk import InvertedFile, aggregate, asmk_similarity
from keras_attn.training.retrieval.descriptors import finite, origin_of
from keras_attn.training.retrieval.nearest import require_faiss

# As in "Learning and aggregating deep local descriptors for instance-level
# recognition": the strongest descriptors of an image, and the words that each of a
# query's descriptors is assigned to.
STRONGEST, NEAREST = 1000, 5
# Most visual words by default, and descriptors per word for k-means to learn from.
WORDS, FEWEST_PER_WORD, MOST_PER_WORD = 65_536, 39, 256
ITERATIONS = 20
CODEBOOK = "codebook.npy"


def local_embedder_of(trained):
    """The network up to the features that a model pools, all weights shared.

    From raw pixels of the model's size to `(batch, rows, columns, dimension)`, or
    `(batch, tokens, dimension)`.

    Raises:
        ValueError: If the model does not pool one feature map.
    """
    outputs = trained.model.output
    features = outputs["embedding" if "embedding" in outputs else "logits"]
    while features is not None and len(features.shape) < 3:
        operation, sources = origin_of(features)
        one = len(sources) == 1 or isinstance(operation, ClassEvidence)
        features = sources[0] if one else None
    if features is None:
        raise ValueError(
            "Expected a model whose descriptor is pooled from one feature map. "
            f"Received: {trained.path}, which has several, or none"
        )
    return keras.Model(trained.model.input, features, name="local_embedder")


def describe_local(embedder, images, batch_size=64):
    """The strongest local descriptors of images.

    Args:
        embedder: As `local_embedder_of` returns it.
        images: `(examples, height, width, 3)`, raw pixels of the model's size.
        batch_size: Images at a time.

    Returns:
        For each image `(descriptors, dimension)`, of length one, those that were
        longest first, at most `STRONGEST`; those of length zero are left out. float16,
        as they are kept: a word may have no other descriptor, and then the residual of
        the same image must not be what rounding leaves.

    Raises:
        ValueError: If a descriptor is not finite.
    """
    found = []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        features = np.asarray(embedder.predict_on_batch(batch)).astype("float32")
        features = finite(features.reshape(len(features), -1, features.shape[-1]))
        for each, lengths in zip(
            features, np.linalg.norm(features, axis=-1), strict=True
        ):
            order = np.argsort(-lengths, kind="stable")[:STRONGEST]
            order = order[lengths[order] > 0]
            found.append((each[order] / lengths[order, None]).astype("float16"))
    return found


def learn_codebook(descriptors, words, iterations=ITERATIONS, seed=0):
    """A codebook for `keras_attn.retrieval.asmk`, by FAISS's k-means.

    `(words, dimension)`, float32, of descriptors `(descriptors, dimension)`; `words` is
    65,536 in the literature.

    Raises:
        ImportError: If FAISS is not installed.
        ValueError: If there are fewer descriptors than words.
    """
    faiss = require_faiss()
    descriptors = np.ascontiguousarray(descriptors, "float32")
    if descriptors.ndim != 2 or not 1 <= words <= len(descriptors):
        raise ValueError(
            "Expected at least as many descriptors (descriptors, dimension) as words. "
            f"Received: shape {descriptors.shape}, words={words}"
        )
    kmeans = faiss.Kmeans(
        descriptors.shape[1],
        words,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=MOST_PER_WORD,
    )
    kmeans.train(descriptors)
    return kmeans.centroids


class Asmk:
    """The `IndexMethod` of visual words.

    Its array has a row for each word of each image: the number of the `image`, the
    `word`, and the `signs` of its residual.
    """

    options, dtype = ("words",), "float16"
    embedder = staticmethod(local_embedder_of)
    describe = staticmethod(describe_local)

    def settings(self, before, words=None):
        require_faiss()
        there = before.get("words")
        if None not in (words, there) and words != there:
            raise ValueError(
                f"Expected the number of words of the index, {there}. "
                f"Received: words={words}. Use another --output for another codebook."
            )
        return {**before, "words": there or positive_integer("words", words, True)}

    def rows(self, store, kept, shards):
        codebook = self._codebook(store, shards)
        new_numbers = np.full(len(store.files), -1)
        new_numbers[kept] = np.arange(len(kept))
        parts = [np.empty(0, _row_type(store))]
        if store.files:
            parts.append(np.array(_rows_of(store)))
            parts[-1]["image"] = new_numbers[parts[-1]["image"]]
            parts[-1] = parts[-1][parts[-1]["image"] >= 0]
        number = len(kept)
        for arrays in shards():
            descriptors, counts = arrays["descriptors"], arrays["counts"]
            for end, count in zip(np.cumsum(counts), counts, strict=True):
                image = aggregate(descriptors[end - count : end], codebook)
                parts.append(np.empty(len(image.words), _row_type(store)))
                parts[-1]["image"] = number
                parts[-1]["word"], parts[-1]["signs"] = image.words, image.signs
                number += 1
        return np.concatenate(parts)

    def _codebook(self, store, shards):
        """The codebook of an index; learned if it has none yet."""
        if "codebook" in store.settings:
            return codebook_of(store)
        total = sum(len(arrays["descriptors"]) for arrays in shards())
        words = store.settings["words"] or min(WORDS, max(1, total // FEWEST_PER_WORD))
        step = max(1, total // (words * MOST_PER_WORD))
        sample, start = [], 0
        for arrays in shards():
            # Every `step`-th of all descriptors, however many are in a shard.
            sample.append(arrays["descriptors"][-start % step :: step])
            start += len(arrays["descriptors"])
        codebook = learn_codebook(np.concatenate(sample), words)
        store.write_array(CODEBOOK, codebook)
        store.settings = {"words": words, "codebook": digest_of(codebook)}
        return codebook

    def complete(self, store):
        pass

    def searcher(self, store):
        return WordSearcher(store)

    def text(self, summary):
        return (
            f"visual words out of {summary['words']}, of local descriptors of "
            f"{summary['dimension']} numbers"
        )


class WordSearcher:
    """The visual words of an index in memory, ready to be searched.

    Args:
        store: `IndexStore`.

    Raises:
        ValueError: If the index is empty, or a file is damaged.
    """

    def __init__(self, store):
        if not store.files:
            raise ValueError(
                f"Expected an index with images. Received: {store.path}, without any"
            )
        self.codebook = codebook_of(store)
        rows = np.array(_rows_of(store))
        outside = (rows["image"] >= len(store.files)) | (rows["image"] < 0)
        if outside.any():
            raise store.damaged(store.array, "words of images that it does not have")
        self.file = InvertedFile(
            rows["image"],
            rows["word"],
            rows["signs"],
            len(store.files),
            store.maker.dimension,
        )
        self.names = store.names

    def search(self, queries, top=10):
        """For each query a list of `(name, similarity)`, the most similar images first.

        See `asmk_similarity`. Queries are `(descriptors, dimension)` each, of length
        one. There are fewer hits than `top` where fewer share a word with the query.
        """
        positive_integer("top", top)
        nearest = min(NEAREST, len(self.codebook))
        images = [aggregate(query, self.codebook, nearest) for query in queries]
        found = []
        for similarities in asmk_similarity(images, self.file):
            order = np.argsort(-similarities, kind="stable")[:top]
            hits = [(self.names[row], float(similarities[row])) for row in order]
            found.append([hit for hit in hits if hit[1] > 0])
        return found


def codebook_of(store):
    """The codebook of an index.

    Raises:
        ValueError: If it is damaged, or another one.
    """
    words, digest = store.settings["words"], store.settings.get("codebook")
    codebook = store.read_array(CODEBOOK, "float32", (words, store.maker.dimension))
    if digest_of(codebook) != digest:
        raise store.damaged(CODEBOOK, "not the codebook of this index")
    return codebook


def _row_type(store):
    size = -(-store.maker.dimension // 8)
    return np.dtype([("image", "<i4"), ("word", "<i4"), ("signs", "u1", (size,))])


def _rows_of(store):
    return store.read_array(store.array, _row_type(store), (None,))
