"""The protocol of a feed."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Feed(Protocol):
    """The batches of a run's splits."""

    @property
    def steps(self):
        """Batches per epoch."""

    def training(self, start):
        """`tf.data.Dataset` of the epochs from `start` on, one after the other."""

    def validation(self):
        """`tf.data.Dataset` in order, or `None` without validation images."""

    def save(self, run):
        """Puts into the run's folder what its model needs beside its weights."""
