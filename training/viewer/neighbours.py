"""The images of an index that are nearest to an upload."""

import functools
import pathlib

from keras_attn.training.retrieval.nearest import require_faiss
from keras_attn.training.retrieval.search import Searcher
from keras_attn.training.retrieval.store import IndexStore
from keras_attn.training.viewer.panels import Picture
from keras_attn.training.viewer.sections import Section
from keras_attn.training.viewer.uploads import data_address, thumbnail

HITS = 8


class Neighbours:
    """An index to search, loaded when it is first used.

    Args:
        path: Folder of an index, see
            `keras_attn.training.retrieval.index.index_folder`.

    Raises:
        FileNotFoundError: If there is no index.
        ImportError: If FAISS is not installed.
    """

    def __init__(self, path):
        require_faiss()
        IndexStore.open(path)
        self.path = pathlib.Path(path)

    @functools.cached_property
    def searcher(self):
        return Searcher.open(self.path)

    def section(self, upload):
        """The nearest images, as a `Section`; if there are none to be had, why."""
        title = "Nearest images"
        try:
            pixels = upload.pixels(self.searcher.spec)
            (hits,) = self.searcher.search(pixels, HITS)
        except (ValueError, OSError) as error:
            return Section(title, f"{self.path} cannot be searched: {error}")
        note = (
            f"Of the index {self.path}, the most similar first: cosine similarity of "
            "their descriptors, at most 1."
        )
        if "://" in self.searcher.images:
            # An index is a file from anywhere; the viewer opens no address for it.
            found = ", ".join(f"{name}: {similarity:.3f}" for name, similarity in hits)
            return Section(title, f"{note} In {self.searcher.images}: {found}.")
        pictures = [self._hit(name, similarity) for name, similarity in hits]
        return Section(title, note, small=[each for each in pictures if each])

    def _hit(self, name, similarity):
        folder = pathlib.Path(self.searcher.images).resolve()
        file = (folder / name).resolve()
        # An index is a file from anywhere; it may name no file outside its folder.
        if not file.is_relative_to(folder) or not file.is_file():
            return None
        small = thumbnail(file.read_bytes(), name)
        if small is None:
            return None
        return Picture(
            data_address(small), f"{name}: {similarity:.3f}", f"The image {name}."
        )
