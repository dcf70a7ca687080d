"""Blocks in somebody's own model: places, costs, and insertion."""
