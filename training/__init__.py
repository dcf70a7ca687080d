"""Recipes, fit, evaluate, explain, export, reproduce, and the command line."""
