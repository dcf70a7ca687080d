"""Stateless augmentation, with its geometry."""
