"""Encoded image files wherever they lie: folders, lists, tar shards, Parquet, URLs."""

from keras_attn.pipelines.collections.collection import Collection
from keras_attn.pipelines.collections.open import open_collection

__all__ = ["Collection", "open_collection"]
