"""Encoded image files decoded to arrays."""
