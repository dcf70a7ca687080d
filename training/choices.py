"""Choices for models and indexes, as plain data for the command line."""

# Models of a run: of the best validation accuracy, and of the last epoch.
CHECKPOINTS = ("best", "last")
SPLITS = ("test", "validation", "train", "all")
# Descriptions of images in an index, and ways to search one descriptor per image.
INDEX_METHODS = ("global", "asmk")
INDEX_TYPES = ("flat", "float16", "ivf")
