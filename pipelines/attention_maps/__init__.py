"""Attention maps of a data set: keys, cache, computation, batches."""
