"""Query images -> the nearest images of an index, as text and as a contact sheet."""

import dataclasses
import pathlib

import keras

from keras_attn._checks import positive_integer
from keras_attn.models.adopted import PIXELS
from keras_attn.pipelines.collections.filesystems import joined
from keras_attn.pipelines.images.files import (
    CHUNK,
    check_readable,
    image_files,
    read_images,
)
from keras_attn.preprocessing import ImageSpec
from keras_attn.training.adoption import ModelSource
from keras_attn.training.retrieval.contact_sheets import draw_sheets
from keras_attn.training.retrieval.index import maker_of
from keras_attn.training.retrieval.methods import IndexMethod, method_of
from keras_attn.training.retrieval.nearest import require_faiss
from keras_attn.training.retrieval.store import IndexStore
from keras_attn.training.trained import load_trained


@dataclasses.dataclass(frozen=True)
class Searcher:
    """An index in memory and the model that made it, to be searched many times.

    Args:
        method: `IndexMethod` of the index.
        embedder: Its network.
        spec: `ImageSpec` of the images that the network takes.
        nearest: Its searcher of the index.
        images: Folder of the images of the index.

    Example:

    >>> searcher = Searcher.open("flowers.index")
    >>> searcher.search(pixels, top=5)[0][0]
    ('roses/12.jpg', 0.97)
    """

    method: IndexMethod
    embedder: keras.Model
    spec: ImageSpec
    nearest: object
    images: str

    @classmethod
    def open(cls, path, model=None):
        """Loads an index and its model.

        Args:
            path: Folder of an index.
            model: Folder of a run or model, if it is no longer where it was when it
                made the index; or a `ModelSource`, whose path may be `None`.

        Raises:
            FileNotFoundError: If the index or its model is not there.
            ValueError: If the model is another one than that which made the index.
            ImportError: If FAISS is not installed.
        """
        require_faiss()
        store = IndexStore.open(path)
        trained = load_trained(*_place(store, model), classifies=False)
        method = method_of(store.method)
        embedder = method.embedder(trained)
        maker = maker_of(trained, embedder)
        if not maker.is_same(store.maker):
            raise ValueError(
                f"Expected the model that made the index {path}, {store.maker}. "
                f"Received: {maker}."
            )
        nearest = method.searcher(store)
        return cls(method, embedder, trained.spec, nearest, store.images)

    def search(self, images, top=10):
        """The nearest images of each query.

        Args:
            images: `(queries, height, width, 3)`, raw pixels of the model's size.
            top: Number of hits.

        Returns:
            For each query a list of `(name, similarity)`, the nearest first: the file,
            relative to the folder of the index, and the similarity.
        """
        return self.nearest.search(self.method.describe(self.embedder, images), top)


def search(path, images, top=10, output=None, model=None, on_corrupt="error"):
    """Finds the images of an index that are nearest to image files.

    Args:
        path: Folder of an index, see
            `keras_attn.training.retrieval.index.index_folder`.
        images: Paths of images and of folders of images.
        top: Hits per image.
        output: Folder of the contact sheets, or `None` for none.
        model: Folder of a run or model, if it is no longer where it was; or a
            `ModelSource`, whose path may be `None`.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.

    Returns:
        `(results, written, problems)`: for each image a dict of `image` and `hits`, a
        list of dicts of `image` and `similarity`; the paths of the contact sheets; one
        `CorruptImageError` for each image left out.
    """
    positive_integer("top", top)
    IndexStore.open(path)
    files = image_files(images)
    searcher = Searcher.open(path, model)
    results, problems = [], []
    for start in range(0, len(files), CHUNK):
        part = files[start : start + CHUNK]
        pixels, kept, corrupt = read_images(part, searcher.spec, on_corrupt)
        problems += corrupt
        found = searcher.search(pixels, top)
        results += [
            {
                "image": str(file),
                "hits": [
                    {"image": joined(searcher.images, name), "similarity": similarity}
                    for name, similarity in hits
                ],
            }
            for file, hits in zip(kept, found, strict=True)
        ]
    check_readable(results, problems)
    written = draw_sheets(results, searcher.images, output) if output else []
    return results, written, problems


def format_results(results):
    """A table: for each image its hits, the nearest first."""
    lines = []
    for result in results:
        lines.append(result["image"])
        lines += [
            f"  {hit['similarity']:6.3f}  {hit['image']}" for hit in result["hits"]
        ]
    return "\n".join(lines)


def _place(store, model):
    """The path of the model of an index, and which of a run's models it is."""
    maker = store.maker
    given = ModelSource.of(model)
    if given.path is None and not pathlib.Path(maker.path).exists():
        raise FileNotFoundError(
            f"Expected the model that made the index {store.path} at {maker.path}. "
            "Received: nothing there. Name it with --model if it was moved."
        )
    # Those of others are prepared as for the index.
    made = maker.preprocessing
    statistics = tuple(made["mean"]), tuple(made["std"])
    named = [name for name, each in PIXELS.items() if each[:2] == statistics]
    size = made["height"], made["width"]
    source = dataclasses.replace(
        given,
        path=given.path or maker.path,
        pixels=given.pixels or (named[0] if named else statistics),
        size=given.size or size,
    )
    return source, maker.checkpoint or "best"
