"""Data sets by name or from files: one `Source` for each."""

import dataclasses
import functools
import inspect
import itertools
from typing import Protocol

import numpy as np

from keras_attn._checks import one_of
from keras_attn.pipelines.generated.dataset import generated_source
from keras_attn.pipelines.images.source import Source, raise_or_list
from keras_attn.pipelines.sources import (
    archives,
    fine_grained,
    inaturalist,
    layouts,
    shards,
    tensorflow_datasets,
)
from keras_attn.pipelines.sources.catalogue import KNOWN

SOURCE_NAMES = tuple(KNOWN)


class Loader(Protocol):
    """Loads one data set; arguments as in `load_source`."""

    def __call__(self, path, on_corrupt, **options) -> Source: ...


def load_source(name, path=None, on_corrupt="error", **options) -> Source:
    """Load a data set by its name.

    Args:
        name: One of `SOURCE_NAMES`.
        path: A folder, a zip or a tar archive (.tar, .tar.gz, .tar.bz2, .tar.xz) of
            images in a folder for each class, or the fsspec URL of one; for "folder"
            also with a table of labels, `labels.csv` or its only CSV file, and tar
            shards, Parquet, lists and CSV files, see
            `keras_attn.pipelines.collections.open_collection`; for CIFAR also the
            official binary archive, or the folder of its .bin files; for Mini-ImageNet
            also a folder with train.csv, val.csv, test.csv and images/. Data sets with
            boxes are read from the folder, or an archive, of their official files.
            Without a path, all but "miniimagenet", "fgvc_aircraft" and "folder" come
            from TensorFlow Datasets.
        on_corrupt: "error" or "skip". Empty files are found here, and boxes outside
            their images, other damage when the images are decoded (`Source.decoded`).
        **options: For "generated", the arguments of `generated_source`; for "folder"
            `depth`, see `keras_attn.pipelines.sources.layouts.list_class_folders`;
            without a path, `data_dir` of TensorFlow Datasets and `download`.

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
    one_of("dataset", name, SOURCE_NAMES)
    one_of("on_corrupt", on_corrupt, ("error", "skip"))
    return LOADERS[name](path, on_corrupt, **options)


def _load_generated(path, on_corrupt, **options):
    if path is not None:
        raise ValueError(
            f"The generated data set reads no files. Received: path={path!r}"
        )
    _check_options("generated", generated_source, options)
    return generated_source(**options)


def _load_known(name, read, path, on_corrupt, **options):
    """Load by a function `(name, tree, on_corrupt)`, or without a path by name."""
    if path is None:
        return _load_by_name(name, on_corrupt, options)
    if options:
        raise ValueError(
            f"Expected no further options for {name} from a path. Received: {options}"
        )
    return read(name, archives.open_tree(path), on_corrupt)


def _load_by_name(name, on_corrupt, options):
    known = KNOWN[name]
    if not known.parts and not known.archive:
        way = f" First {known.other_way()}." if known.unpacked else ""
        raise ValueError(
            f"{name} needs a folder or a tar archive: pass path (--data).{way}"
        )
    lazy = bool(known.parts)
    get = tensorflow_datasets.open_files if lazy else tensorflow_datasets.read_arrays
    _check_options(name, get, options, given=1)
    source = _known_source(name, on_corrupt=on_corrupt, **get(name, **options))
    return source.with_boxes_in_images() if lazy else source


def _check_options(name, function, options, given=0):
    """Raise a ValueError for an option that is no argument of a function."""
    allowed = list(inspect.signature(function).parameters)[given:]
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"Expected options of {name} among {', '.join(allowed)}. "
                f"Received: {option!r}"
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


def _read_cifar(name, tree, on_corrupt):
    if archives.has_cifar_files(tree):
        return _known_source(name, **archives.read_cifar(tree, name))
    return _read_class_folders(name, tree, on_corrupt)


def _read_class_folders(name, tree, on_corrupt):
    listing = layouts.list_class_folders(tree)
    layouts.check_parts_share_classes(listing, tree.root)
    class_names, labels = _in_official_order(name, listing, tree.root)
    listing = dataclasses.replace(listing, class_names=class_names, labels=labels)
    return _listed_source(name, tree, on_corrupt, listing)


def _load_folder(path, on_corrupt, depth=0, several=False):
    if path is None:
        return _load_by_name("folder", on_corrupt, {})
    images = shards.open_shards(path)
    by_folder = images and images.kind == "tar" and (depth or not images.labels)
    if images and not by_folder:
        fields, skipped = shards.fields_of(images, on_corrupt, several)
        return _source_of("folder", path, on_corrupt, skipped, **fields)
    if by_folder:
        tree = archives.tar_tree(images.files.filesystem, images.files.paths)
    else:
        tree = archives.open_tree(path)
    table = None if depth else layouts.labels_file(tree)
    if table:
        listing = layouts.list_labels(tree, table, several)
    else:
        listing = layouts.list_class_folders(tree, depth)
    layouts.check_parts_share_classes(listing, tree.root)
    return _listed_source("folder", tree, on_corrupt, listing)


def _read_mini_imagenet(name, tree, on_corrupt):
    has_csv = layouts.has_csv_splits(tree)
    list_files = layouts.list_csv_splits if has_csv else layouts.list_class_folders
    # Its parts have disjoint classes: a few-shot division, of no use here.
    listing = dataclasses.replace(list_files(tree), official={})
    return _listed_source(name, tree, on_corrupt, listing)


def _official(list_files):
    """Reader of a data set whose images, classes and boxes are listed in files."""
    return lambda name, tree, on_corrupt: _listed_source(
        name, tree, on_corrupt, list_files(tree)
    )


def _listed_source(name, tree, on_corrupt, listing):
    names = listing.names
    source = _source_of(
        name,
        tree.root,
        on_corrupt,
        [(tree.where(n), why) for n, why in listing.problems],
        class_names=listing.class_names,
        labels=listing.labels,
        files=tuple(tree.label(n) for n in names),
        read=lambda index: tree.read(names[index]),
        stamp=lambda index: tree.stamp(names[index]),
        official=listing.official,
        ignored=listing.ignored,
        annotations=listing.annotations,
        remote=tree.remote,
    )
    return source.with_boxes_in_images()


def _source_of(name, root, on_corrupt, skipped, **fields):
    if len(fields["class_names"]) < 2:
        raise ValueError(
            f"Expected at least 2 classes. Received: {root} with the classes "
            f"{list(fields['class_names'])}."
        )
    raise_or_list(skipped, on_corrupt)
    return _known_source(name, skipped=tuple(skipped), on_corrupt=on_corrupt, **fields)


def _in_official_order(name, listing, root):
    """Class names and labels of a listing, numbered as the data set numbers them."""
    known, received = KNOWN[name], listing.class_names
    if not known.class_names:
        if len(received) != (known.num_classes or len(received)):
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


LOADERS: dict[str, Loader] = {
    "generated": _load_generated,
    **{
        name: functools.partial(_load_known, name, read)
        for name, read in {
            "cifar10": _read_cifar,
            "cifar100": _read_cifar,
            "miniimagenet": _read_mini_imagenet,
            "tf_flowers": _read_class_folders,
            "imagenet2012": _read_class_folders,
            "cub200_2011": _official(fine_grained.list_cub200_2011),
            "stanford_cars": _official(fine_grained.list_stanford_cars),
            "fgvc_aircraft": _official(fine_grained.list_fgvc_aircraft),
            "inaturalist2017": _official(inaturalist.list_inaturalist2017),
        }.items()
    },
    "folder": _load_folder,
}
