"""The early-exit model of two runs, its table and its policy."""
