"""Data sets by name: catalogue, readers, layouts, splits."""

from keras_attn.pipelines.sources.load import load_source

__all__ = ["load_source"]
