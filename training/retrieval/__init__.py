"""Descriptors, index, search and the revisited protocol."""
