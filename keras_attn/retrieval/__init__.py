"""Fits for retrieval in NumPy: whitening and ASMK."""
