"""Where images come from: one `Source` for every data set."""

import difflib
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from pipelines import archives, layouts
from pipelines.catalogue import KNOWN
from pipelines.decoding import (
    CorruptImageError,
    check_files,
    decode_files,
    decode_image,
)

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
HOW_TO_SKIP = "Pass on_corrupt='skip' (--on-corrupt skip) to leave such files out."


@dataclass(frozen=True, eq=False)
class Source:
    """Labelled images, in memory or as files.

    Attributes:
        name: The data set.
        class_names: In the order of the labels.
        labels: (N,) int32.
        images: (N, H, W, 3) uint8 when the images are in memory, else None.
        files: One entry for each example that has a file: its path, or (archive,
            member) for a tar archive. None for data sets without image files.
        read: Encoded bytes of the i-th file; None when the images are in memory.
        stamp: Bytes of the i-th file, and a text that changes when its content does;
            None when the images are in memory.
        annotations: Arrays with one row for each example, such as `box`.
        official: Index arrays of the data set's own split, `train` and `test`, perhaps
            `validation`; empty when it has none.
        mean, std: Channel statistics, in 0..1.
        licence, url: Terms of use and home.
        skipped: Pairs (file, reason) of the files left out.
        on_corrupt: "error" or "skip": what a file that cannot be decoded does.
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    images: np.ndarray | None = None
    files: tuple | None = None
    read: Callable[[int], bytes] | None = None
    stamp: Callable[[int], tuple[int, str]] | None = None
    annotations: dict[str, np.ndarray] = field(default_factory=dict)
    official: dict[str, np.ndarray] = field(default_factory=dict)
    mean: tuple[float, float, float] = KNOWN["folder"].mean
    std: tuple[float, float, float] = KNOWN["folder"].std
    licence: str = "unknown"
    url: str = ""
    skipped: tuple = ()
    on_corrupt: str = "error"

    def __len__(self):
        return len(self.labels)

    def where(self, index):
        """The name of an example in messages."""
        if self.files is None:
            return f"{self.name}[{index}]"
        return archives.where_of(self.files[index])

    def array(self, index, spec=None):
        """One image, uint8 (H, W, 3); with an `ImageSpec`, fitted to its size.

        Raises:
            CorruptImageError: Its file cannot be decoded, whatever `on_corrupt` is.
        """
        if self.images is not None:
            image = self.images[index]
        else:
            image = decode_image(self.read(index), self.where(index))
        if spec is None or image.shape[:2] == (spec.height, spec.width):
            return image
        return np.asarray(_fit(spec)(image), np.uint8)

    def decoded(self, spec, progress=None):
        """This source with all images in memory, fitted to the size of an `ImageSpec`.

        Images of that size already stay as they are. Files that cannot be decoded end
        this with an error, or are left out and listed in `skipped`, as `on_corrupt`
        says.

        Args:
            spec: An `ImageSpec`; its height and width count.
            progress: Called with (images done, images in all) now and then.

        Returns:
            A `Source` with `images`; itself, when it has them in this size.

        Raises:
            CorruptImageError: A file cannot be decoded.
            ValueError: The images would change their size and have annotations, which
                are in pixels.
        """
        size = (spec.height, spec.width)
        if self.images is not None and self.images.shape[1:3] == size:
            return self
        if self.annotations:
            raise ValueError(
                f"Expected the images of {self.name} in the size {size[0]} x "
                f"{size[1]}, since their annotations are in pixels. Received: "
                f"{'files' if self.images is None else self.images.shape[1:3]}"
            )
        if self.images is not None:
            return replace(self, images=self._fitted(spec, progress))
        where = [self.where(i) for i in range(len(self))]
        images, kept, problems = decode_files(
            self.read, where, size, _fit(spec), progress
        )
        return replace(
            self._without(problems, kept), images=images, read=None, stamp=None
        )

    def readable(self):
        """This source without the files that cannot be decoded.

        Decodes every file once and keeps none of them in memory.

        Raises:
            CorruptImageError: A file cannot be decoded and `on_corrupt` is "error".
        """
        where = [self.where(i) for i in range(len(self))]
        problems = check_files(self.read, where)
        corrupt = {problem.where for problem in problems}
        kept = np.flatnonzero([name not in corrupt for name in where])
        return self._without(problems, kept)

    def _without(self, problems, kept):
        """The images `kept`, when the `problems` of the others are to be skipped."""
        problems = [(p.where, p.reason) for p in problems]
        _raise_or_list(problems, self.on_corrupt)
        if not len(kept):
            where, reason = problems[0]
            raise ValueError(
                f"Expected readable images in {self.name}. Received: {len(self)} "
                f"files, of which none is ({where}: {reason})."
            )
        return replace(self._subset(kept), skipped=(*self.skipped, *problems))

    def _fitted(self, spec, progress):
        fit = _fit(spec)
        result = np.empty((len(self), spec.height, spec.width, 3), np.uint8)
        for start in range(0, len(self), 256):
            part = self.images[start : start + 256]
            result[start : start + 256] = np.asarray(fit(part))
            if progress is not None:
                progress(start + len(part), len(self))
        return result

    def _subset(self, kept):
        if len(kept) == len(self):
            return self
        new_index = np.full(len(self), -1)
        new_index[kept] = np.arange(len(kept))
        official = {key: new_index[i] for key, i in self.official.items()}
        return replace(
            self,
            labels=self.labels[kept],
            files=self.files and tuple(self.files[i] for i in kept),
            read=self.read and (lambda index: self.read(kept[index])),
            stamp=self.stamp and (lambda index: self.stamp(kept[index])),
            official={key: i[i >= 0] for key, i in official.items()},
        )


def load_source(name, path=None, on_corrupt="error", **options) -> Source:
    """Load a data set by its name.

    Args:
        name: One of "generated", "cifar10", "cifar100", "miniimagenet", "tf_flowers",
            "imagenet2012", "folder".
        path: A folder or a tar archive (.tar, .tar.gz, .tar.bz2, .tar.xz) of images in
            a folder for each class; for CIFAR also the official binary archive, or the
            folder of its .bin files; for Mini-ImageNet also a folder with train.csv,
            val.csv, test.csv and images/. Without a path, CIFAR, TF Flowers and
            ImageNet come from TensorFlow Datasets.
        on_corrupt: "error" or "skip". Empty files are found here, others when the
            images are decoded (`Source.decoded`).
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
        from pipelines.generated import generated_source

        _check_options(name, generated_source, options)
        return generated_source(**options)
    known = KNOWN[name]
    if path is None and known.parts:
        from pipelines.tensorflow_datasets_reader import open_tensorflow_datasets

        _check_options(name, open_tensorflow_datasets, options, given=1)
        fields = open_tensorflow_datasets(name, **options)
        return _known_source(name, on_corrupt=on_corrupt, **fields)
    if path is None and known.archive:
        from pipelines.tensorflow_datasets_reader import read_tensorflow_datasets

        _check_options(name, read_tensorflow_datasets, options, given=1)
        return _array_source(name, *read_tensorflow_datasets(name, **options))
    if options:
        raise ValueError(
            f"Expected no further options for {name} from a path. Received: {options}"
        )
    if path is None:
        raise ValueError(f"{name} needs a folder or a tar archive: pass path (--data).")
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
        **fields,
    )


def _file_source(name, tree, on_corrupt):
    if name == "miniimagenet" and layouts.has_csv_splits(tree):
        listing = layouts.list_csv_splits(tree)
    else:
        listing = layouts.list_class_folders(tree)
    official = listing.official
    if name == "miniimagenet":
        # Its parts have disjoint classes: a few-shot division, of no use here.
        official = {}
    else:
        layouts.check_parts_share_classes(listing, tree.root)
    if len(listing.class_names) < 2:
        raise ValueError(
            f"Expected at least 2 classes. Received: {tree.root} with the classes "
            f"{list(listing.class_names)}."
        )
    class_names, labels = _in_official_order(name, listing, tree.root)
    skipped = [(tree.where(n), why) for n, why in listing.problems]
    _raise_or_list(skipped, on_corrupt)
    names = listing.names
    return _known_source(
        name,
        class_names=class_names,
        labels=labels,
        files=tuple(tree.label(n) for n in names),
        read=lambda index: tree.read(names[index]),
        stamp=lambda index: tree.stamp(names[index]),
        official=official,
        skipped=tuple(skipped),
        on_corrupt=on_corrupt,
    )


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


def _raise_or_list(problems, on_corrupt):
    """Raise for the first (file, reason) unless corrupt files are skipped."""
    if not problems or on_corrupt == "skip":
        return
    where, reason = problems[0]
    others = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
    raise CorruptImageError(where, f"{reason}{others}. {HOW_TO_SKIP}")


def _fit(spec):
    from keras_attn.preprocessing import ImagePreprocessing

    return ImagePreprocessing(spec).fit_size
