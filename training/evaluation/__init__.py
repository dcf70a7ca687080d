"""Numbers, predictions, mistakes and the HTML report of a run."""
