"""Methods by which an index describes, keeps and searches images."""

from typing import Protocol, runtime_checkable

from keras_attn._checks import one_of
from keras_attn.training.choices import INDEX_METHODS
from keras_attn.training.retrieval.asmk import Asmk
from keras_attn.training.retrieval.nearest import GlobalDescriptors


@runtime_checkable
class IndexMethod(Protocol):
    """A way to describe images, to keep the descriptions and to search them.

    Its attributes: `options`, the names of its settings that a user may choose; `dtype`
    of descriptors while an indexing runs.
    """

    options: tuple
    dtype: str

    def embedder(self, trained):
        """The network that describes images.

        Raises:
            ValueError: If the model has no such descriptors.
        """

    def describe(self, embedder, images):
        """For each image its descriptors: `(dimension,)`, or `(count, dimension)`."""

    def settings(self, before, **options):
        """The settings of an index.

        Args:
            before: Settings that it has; `{}` of a new one.
            options: What the user chose; `None` leaves a setting as it is.

        Raises:
            ImportError: If they need a package that is not installed.
            ValueError: If they cannot be changed.
        """

    def rows(self, store, kept, shards):
        """The array of an index.

        Args:
            store: `IndexStore` as it was; its settings may be completed.
            kept: Numbers of its files that stay, which come first.
            shards: Function that returns the arrays of new files, see `IndexParts`.
        """

    def complete(self, store):
        """Keeps what speeds up searching the index as it is now."""

    def searcher(self, store):
        """An object with `search(descriptors, top)`.

        It returns for each query a list of `(name, similarity)`, the nearest first.
        """

    def text(self, summary):
        """The end of a sentence on what an index holds."""


def method_of(name):
    """The `IndexMethod` of a name."""
    one_of("method", name, INDEX_METHODS)
    return {"global": GlobalDescriptors, "asmk": Asmk}[name]()
