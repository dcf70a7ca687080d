"""Batches for training and evaluation, one module per kind of input."""
