"""Training: recipe and data in, run folder out; tuning and summaries."""
