"""CIFAR by name, through TensorFlow Datasets (an optional dependency)."""

import numpy as np

from pipelines.catalogue import KNOWN


def read_tensorflow_datasets(name, data_dir=None):
    """Read a data set with its train and test images from TensorFlow Datasets.

    It is downloaded and prepared at the first use, by TensorFlow Datasets itself.

    Args:
        name: The name of the builder, "cifar10" or "cifar100".
        data_dir: Where TensorFlow Datasets keeps it; its own default when None.

    Returns:
        images: (N, height, width, 3) uint8, the training images first.
        labels: (N,) int32.
        official: Indices of `train` and `test`.

    Raises:
        ImportError: TensorFlow Datasets is not installed.
        FileNotFoundError: It could not get or read the data set.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"Expected TensorFlow Datasets, to get {name} by its name. Install it: "
            "pip install 'keras-attn[datasets]'. Or pass the official archive "
            f"{KNOWN[name].archive} (from {KNOWN[name].url}) as path (--data)."
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
        parts = {part: _read_part(tfds, builder, part) for part in ("train", "test")}
    # No network, a full disk, a changed file: each its own type, one way out.
    except Exception as error:
        raise FileNotFoundError(
            f"TensorFlow Datasets could not get {name} ({type(error).__name__}: "
            f"{_first_line(error)}). Without it: get {KNOWN[name].archive} from "
            f"{KNOWN[name].url} and pass it as path (--data PATH)."
        ) from error
    images, labels = zip(*parts.values(), strict=True)
    bounds = np.cumsum([0, *map(len, labels)])
    official = {
        part: np.arange(bounds[i], bounds[i + 1]) for i, part in enumerate(parts)
    }
    return np.concatenate(images), np.concatenate(labels), official


def _read_part(tfds, builder, part):
    # One file after the other: the order is that of the prepared files, always.
    order = tfds.ReadConfig(interleave_cycle_length=1)
    dataset = builder.as_dataset(split=part, shuffle_files=False, read_config=order)
    batches = list(tfds.as_numpy(dataset.batch(1000)))
    images = np.concatenate([batch["image"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    return images.astype(np.uint8), labels.astype(np.int32)


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
