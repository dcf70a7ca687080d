"""Where images come from: one `Source` for every data set."""

import difflib
import inspect
import itertools

import numpy as np

from keras_attn.pipelines.images.decoding import CorruptImageError, decode_image
from keras_attn.pipelines.images.source import Source, raise_or_list
from keras_attn.pipelines.sources import archives, fine_grained, inaturalist, layouts
from keras_attn.pipelines.sources.catalogue import KNOWN

__all__ = [
    "KNOWN",
    "SOURCE_NAMES",
    "CorruptImageError",
    "Source",
    "decode_image",
    "load_source",
]

SOURCE_NAMES = tuple(KNOWN)
ON_CORRUPT = ("error", "skip")
# Data sets whose images, classes and boxes are listed in files of their own.
OFFICIAL_LISTS = {
    "cub200_2011": fine_grained.list_cub200_2011,
    "stanford_cars": fine_grained.list_stanford_cars,
    "fgvc_aircraft": fine_grained.list_fgvc_aircraft,
    "inaturalist2017": inaturalist.list_inaturalist2017,
}


def load_source(name, path=None, on_corrupt="error", **options) -> Source:
    """Load a data set by its name.

    Args:
        name: One of "generated", "cifar10", "cifar100", "miniimagenet", "tf_flowers",
            "imagenet2012", "cub200_2011", "stanford_cars", "fgvc_aircraft",
            "inaturalist2017", "folder".
        path: A folder or a tar archive (.tar, .tar.gz, .tar.bz2, .tar.xz) of images in
            a folder for each class; for CIFAR also the official binary archive, or the
            folder of its .bin files; for Mini-ImageNet also a folder with train.csv,
            val.csv, test.csv and images/. For the four before "folder" it is the
            folder, or a tar archive, of their official files. Without a path, all but
            "miniimagenet", "fgvc_aircraft" and "folder" come from TensorFlow Datasets.
        on_corrupt: "error" or "skip". Empty files are found here, and boxes outside
            their images, other damage when the images are decoded (`Source.decoded`).
        **options: For "generated", the arguments of `generated_source`; without a
            path, `data_dir` of TensorFlow Datasets.

    Returns:
        A `Source`.

    Raises:
        ValueError: Unknown name or option, content that does not fit the name, fewer
            than two classes, unreadable files with on_corrupt="error".
        FileNotFoundError: The path does not exist, or TensorFlow Datasets could not
            get the data set.
        ImportError: TensorFlow Datasets is needed and not installed.

    Example:

    >>> source = load_source("folder", "photos")
    >>> source.class_names, len(source), source.array(0).shape
    """
    if name not in SOURCE_NAMES:
        near = difflib.get_close_matches(str(name), SOURCE_NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"Expected a data set among {', '.join(SOURCE_NAMES)}. "
            f"Received: {name!r} (the nearest is {near!r})."
        )
    if on_corrupt not in ON_CORRUPT:
        raise ValueError(
            f"Expected on_corrupt to be one of {', '.join(ON_CORRUPT)}. "
            f"Received: on_corrupt={on_corrupt!r}"
        )
    if name == "generated":
        if path is not None:
            raise ValueError(
                f"The generated data set reads no files. Received: path={path!r}"
            )
        from keras_attn.pipelines.generated.dataset import generated_source

        _check_options(name, generated_source, options)
        return generated_source(**options)
    known = KNOWN[name]
    if path is None and known.parts:
        from keras_attn.pipelines.sources.tensorflow_datasets import (
            open_tensorflow_datasets,
        )

        _check_options(name, open_tensorflow_datasets, options, given=1)
        fields = open_tensorflow_datasets(name, **options)
        source = _known_source(name, on_corrupt=on_corrupt, **fields)
        return source.with_boxes_in_images()
    if path is None and known.archive:
        from keras_attn.pipelines.sources.tensorflow_datasets import (
            read_tensorflow_datasets,
        )

        _check_options(name, read_tensorflow_datasets, options, given=1)
        return _array_source(name, *read_tensorflow_datasets(name, **options))
    if options:
        raise ValueError(
            f"Expected no further options for {name} from a path. Received: {options}"
        )
    if path is None:
        way = f" First {known.other_way()}." if known.unpacked else ""
        raise ValueError(
            f"{name} needs a folder or a tar archive: pass path (--data).{way}"
        )
    tree = archives.open_tree(path)
    if known.archive and archives.has_cifar_files(tree):
        return _array_source(name, *archives.read_cifar(tree, name))
    return _file_source(name, tree, on_corrupt)


def _check_options(name, function, options, given=0):
    """Raise a ValueError for an option that is no argument of a function."""
    allowed = list(inspect.signature(function).parameters)[given:]
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"Expected options of {name} among {', '.join(allowed)}. "
                f"Received: {option!r}"
            )


def _array_source(name, images, labels, official):
    names = KNOWN[name].class_names
    return _known_source(
        name, class_names=names, labels=labels, images=images, official=official
    )


def _known_source(name, **fields):
    known = KNOWN[name]
    return Source(
        name=name,
        mean=known.mean,
        std=known.std,
        licence=known.licence,
        url=known.url,
        banner=known.banner,
        **fields,
    )


def _file_source(name, tree, on_corrupt):
    if name in OFFICIAL_LISTS:
        listing = OFFICIAL_LISTS[name](tree)
    elif name == "miniimagenet" and layouts.has_csv_splits(tree):
        listing = layouts.list_csv_splits(tree)
    else:
        listing = layouts.list_class_folders(tree)
    official = listing.official
    if name == "miniimagenet":
        # Its parts have disjoint classes: a few-shot division, of no use here.
        official = {}
    elif name not in OFFICIAL_LISTS:
        layouts.check_parts_share_classes(listing, tree.root)
    if len(listing.class_names) < 2:
        raise ValueError(
            f"Expected at least 2 classes. Received: {tree.root} with the classes "
            f"{list(listing.class_names)}."
        )
    class_names, labels = listing.class_names, listing.labels
    if name not in OFFICIAL_LISTS:
        class_names, labels = _in_official_order(name, listing, tree.root)
    skipped = [(tree.where(n), why) for n, why in listing.problems]
    raise_or_list(skipped, on_corrupt)
    names = listing.names
    source = _known_source(
        name,
        class_names=class_names,
        labels=labels,
        files=tuple(tree.label(n) for n in names),
        read=lambda index: tree.read(names[index]),
        stamp=lambda index: tree.stamp(names[index]),
        official=official,
        skipped=tuple(skipped),
        on_corrupt=on_corrupt,
        annotations=listing.annotations,
    )
    return source.with_boxes_in_images()


def _in_official_order(name, listing, root):
    """Class names and labels of a listing, numbered as the data set numbers them."""
    known, received = KNOWN[name], listing.class_names
    if not known.class_names:
        # Mini-ImageNet is also used with fewer of its classes.
        count = 0 if name == "miniimagenet" else known.num_classes
        if len(received) != (count or len(received)):
            raise ValueError(
                f"Expected the {known.num_classes} classes of {name}. Received: {root} "
                f"with {len(received)}, {received[0]!r} the first. For other classes "
                "use the data set 'folder'."
            )
        return received, listing.labels
    _check_class_names(name, received, tuple(sorted(known.class_names)), root)
    numbers = [known.class_names.index(class_name) for class_name in received]
    return known.class_names, np.asarray(numbers, np.int32)[listing.labels]


def _check_class_names(name, received, expected, root):
    for position, (got, want) in enumerate(
        itertools.zip_longest(received, expected, fillvalue="nothing")
    ):
        if got != want:
            raise ValueError(
                f"Expected the {len(expected)} classes of {name}, with {want!r} as "
                f"class {position}. Received: {root} with {len(received)} classes and "
                f"{got!r} there. For other classes use the data set 'folder'."
            )
