"""Data sets by name, through TensorFlow Datasets (an optional dependency)."""

import contextlib
import os
import pathlib

import numpy as np

from keras_attn.pipelines.files import DAMAGE, write_then_rename
from keras_attn.pipelines.images.boxes import pixel_boxes
from keras_attn.pipelines.images.decoding import stored_size
from keras_attn.pipelines.images.orientation import turned_box, turned_size
from keras_attn.pipelines.sources.catalogue import KNOWN
from keras_attn.pipelines.sources.layouts import consecutive

LABELS_FILE = "keras_attn_labels.npy"
# Integer features of every example, and the files that keep them.
KEPT = {"label": LABELS_FILE, "supercategory": "keras_attn_supercategories.npy"}
# The labels of fewer examples are not kept.
MANY = 100_000


def read_arrays(name, data_dir=None, download=True):
    """Read a data set with its train and test images from TensorFlow Datasets.

    It is downloaded and prepared at the first use, by TensorFlow Datasets itself.

    Args:
        name: The name of the builder, "cifar10" or "cifar100".
        data_dir: Folder of TensorFlow Datasets; its own default when None.
        download: Whether to get a data set that is not there.

    Returns:
        A dict of fields of `Source`: `class_names`, `images`, `labels`, `official`. The
        training images come first.

    Raises:
        ImportError: TensorFlow Datasets is not installed.
        FileNotFoundError: It could not get or read the data set.
    """
    tfds = _import(name)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        _prepare(builder, download)
        parts = {part: _read_part(tfds, builder, part) for part in ("train", "test")}
    # No network, a full disk, a changed file: each its own type, one way out.
    except Exception as error:
        raise _not_got(name, error) from error
    images, labels = zip(*parts.values(), strict=True)
    return {
        "class_names": KNOWN[name].class_names,
        "images": np.concatenate(images),
        "labels": np.concatenate(labels),
        "official": consecutive(dict(zip(parts, map(len, labels), strict=True))),
    }


def _read_part(tfds, builder, part):
    # One file after the other: the order is that of the prepared files, always.
    order = tfds.ReadConfig(interleave_cycle_length=1)
    dataset = builder.as_dataset(split=part, shuffle_files=False, read_config=order)
    batches = list(tfds.as_numpy(dataset.batch(1000)))
    images = np.concatenate([batch["image"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    return images.astype(np.uint8), labels.astype(np.int32)


def _prepare(builder, download):
    if not download and not pathlib.Path(builder.data_dir).is_dir():
        raise FileNotFoundError(
            "it is not prepared on this machine, and nothing is downloaded here"
        )
    builder.download_and_prepare()


def open_files(name, data_dir=None, download=True):
    """Open a data set whose images stay encoded in the files of TensorFlow Datasets.

    It is prepared at the first use, in a format that is read at any place (ArrayRecord)
    so that any order costs the same. The labels are read at once, which at the first
    use is a pass over all files; those of a large data set are then kept beside them
    in `LABELS_FILE`. Boxes are read anew each time.

    Args:
        name: Name in the catalogue of a data set with `parts`.
        data_dir, download: See `read_arrays`.

    Returns:
        A dict of fields of `Source`: `class_names`, `labels`, `official`, `read`,
        `stamp`, `annotations`. The images of the first part come first.

    Raises:
        ImportError: TensorFlow Datasets is not installed.
        FileNotFoundError: It could not get or read the data set, or has it in a format
            that is read from beginning to end only.
    """
    tfds = _import(name)
    parts = KNOWN[name].parts
    known_as = KNOWN[name].builder or name
    folder = None
    try:
        builder = tfds.builder(known_as, data_dir=data_dir)
        folder = pathlib.Path(builder.data_dir)
        if not folder.is_dir():
            builder = tfds.builder(
                known_as, data_dir=data_dir, file_format="array_record"
            )
        _prepare(builder, download)
        encoded = {"image": tfds.decode.SkipDecoding()}
        readers = [builder.as_data_source(part, decoders=encoded) for part in parts]
        features = builder.info.features
        numbers = _numbers(readers, folder, [key for key in KEPT if key in features])
        names = list(features["label"].names)
        annotations = {}
        if "bbox" in features:
            annotations = _boxes(readers, KNOWN[name].first_pixel)
        if "label_name" in features:
            _name_classes(names, numbers["label"], readers)
        if "supercategory" in features:
            groups = np.array(features["supercategory"].names)
            annotations["super_class"] = groups[numbers["supercategory"]]
    # The same as above, and NotImplementedError for another format.
    except Exception as error:
        raise _not_got(name, error, folder) from error
    official = consecutive(dict(zip(parts, map(len, readers), strict=True)))
    return {
        "class_names": tuple(names),
        "labels": numbers["label"],
        "annotations": annotations,
        # One part is no division.
        "official": official if len(parts) > 1 else {},
        "read": lambda index: _example(readers, index)["image"],
        # Prepared files are not changed, but made anew under another version.
        "stamp": lambda index: (0, f"{builder.info.full_name} {index}"),
    }


def _numbers(readers, folder, keys):
    """Integers of all examples by feature, (N,) int32; kept ones are not read."""
    count = sum(map(len, readers))
    found = {key: _kept(folder / KEPT[key], count) for key in keys}
    missing = [key for key in keys if found[key] is None]
    if not missing:
        return found
    for key in missing:
        found[key] = np.empty(count, np.int32)
    for place, example in enumerate(_examples(readers)):
        for key in missing:
            found[key][place] = example[key]
    if count >= MANY:
        for key in missing:
            _keep(folder / KEPT[key], found[key])
    return found


def _examples(readers):
    return (reader[i] for reader in readers for i in range(len(reader)))


def _example(readers, index):
    for reader in readers:
        if index < len(reader):
            return reader[int(index)]
        index -= len(reader)


def _kept(path, count):
    try:
        numbers = np.load(path, allow_pickle=False)
        if numbers.shape == (count,) and numbers.dtype == np.int32:
            return numbers
    except DAMAGE:
        pass
    return None


def _keep(path, numbers):
    # A folder that cannot be written to costs the pass again, no more.
    with contextlib.suppress(OSError), write_then_rename(path, os.getpid()) as file:
        np.save(file, numbers)


def _boxes(readers, first_pixel):
    """`box` and `size` of all examples, whose boxes are in shares of the image."""
    shares, sizes = [], []
    for number, example in enumerate(_examples(readers)):
        size, orientation = stored_size(example["image"], f"example {number}")
        shares.append(turned_box(example["bbox"], (1, 1), orientation))
        sizes.append(turned_size(size, orientation))
    shares, sizes = np.array(shares, "float64"), np.array(sizes, np.int32)
    corners = shares.reshape(-1, 4) * np.tile(sizes.reshape(-1, 2), 2)
    # What was divided were pixels; single precision is off by less than a tenth.
    return {"box": pixel_boxes(corners, first_pixel), "size": sizes}


def _name_classes(names, labels, readers):
    """Replaces numbers of classes by the names in the examples."""
    for label, first in zip(*np.unique(labels, return_index=True), strict=True):
        name = _example(readers, first)["label_name"]
        names[label] = name.decode() if isinstance(name, bytes) else str(name)


def _import(name):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"Expected TensorFlow Datasets, to get {name} by its name. Install it: "
            f"pip install 'keras-attn[datasets]'. Or {_other_way(name)}"
        ) from error
    return tfds


def _not_got(name, error, folder=None):
    """A FileNotFoundError with advice for any failure of TensorFlow Datasets."""
    manual = KNOWN[name].manual
    if isinstance(error, NotImplementedError):
        return FileNotFoundError(
            f"Expected {name} in the format array_record of TensorFlow Datasets, which "
            f"is read at any place. Received: {folder} in another format. Choose "
            f"another data_dir, or {_other_way(name)}"
        )
    if manual and folder and not folder.is_dir():
        return FileNotFoundError(
            f"Expected {' and '.join(manual)} in "
            f"{folder.parents[1] / 'downloads' / 'manual'}, from where TensorFlow "
            f"Datasets prepares {name}; they are at {KNOWN[name].url}, after "
            f"registration. Or {_other_way(name)}"
        )
    return FileNotFoundError(
        f"TensorFlow Datasets could not get {name} ({type(error).__name__}: "
        f"{_first_line(error)}). Without it: {_other_way(name)}"
    )


def _other_way(name):
    return f"{KNOWN[name].other_way()} (--data PATH)."


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
