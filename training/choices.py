"""Choices for loading and evaluating a model, as plain data for the command line."""

# Models of a run: of the best validation accuracy, and of the last epoch.
CHECKPOINTS = ("best", "last")
# Values for black and white that models of others may take.
PIXELS = {"0..255": (0, 255), "0..1": (0, 1), "-1..1": (-1, 1)}
SPLITS = ("test", "validation", "train", "all")
