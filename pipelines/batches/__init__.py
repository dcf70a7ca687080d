"""Batches for training, drawn from a `Source`."""
