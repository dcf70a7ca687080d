"""Explanations of a model's answers, as pictures and numbers."""
