"""Where a model looks, as pictures and numbers."""
