"""Recipes of training runs and experiments, as plain data."""
