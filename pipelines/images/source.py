"""`Source`: labelled images of a data set and their facts."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from keras_attn.pipelines.images.boxes import boxes_in_frame, cut_at_border
from keras_attn.pipelines.images.decoding import (
    CorruptImageError,
    check_files,
    decode_files,
    decode_image,
    rows_above,
    stored_size,
    where_of,
)
from keras_attn.pipelines.images.files import counted_names
from keras_attn.pipelines.images.orientation import turned_box, turned_size
from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD

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
        remote: Whether a read is a request, of which many run at a time.
        annotations: Arrays with one row for each example. `box`: see
            `keras_attn.pipelines.images.boxes`, in pixels of `array(i)`; the boxes of
            images in files come with `size`, the images' heights and widths.
        in_files: For streamed images, `box` in pixels of the files, where
            `annotations` has it in pixels of the images that a network sees; else
            empty.
        official: Index arrays of the data set's own split, `train` and `test`,
            optionally `validation`; empty when it has none.
        mean, std: Channel statistics, in 0..1.
        licence, url: Terms of use and home.
        skipped: Pairs (file, reason) of the images left out.
        ignored: Names of files beside the images: no images, or in no class.
        on_corrupt: "error" or "skip", for files that cannot be decoded.
        banner: Rows at the bottom of every file that are no part of its image.
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    images: np.ndarray | None = None
    files: tuple | None = None
    read: Callable[[int], bytes] | None = None
    stamp: Callable[[int], tuple[int, str]] | None = None
    remote: bool = False
    annotations: dict[str, np.ndarray] = field(default_factory=dict)
    in_files: dict[str, np.ndarray] = field(default_factory=dict)
    official: dict[str, np.ndarray] = field(default_factory=dict)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    licence: str = "unknown"
    url: str = ""
    skipped: tuple = ()
    ignored: tuple = ()
    on_corrupt: str = "error"
    banner: int = 0

    def __len__(self):
        return len(self.labels)

    @property
    def left_out(self):
        """Files left out, counted, with the first names; empty without any."""
        skipped = [f"{file}: {reason}" for file, reason in self.skipped]
        kinds = (
            (skipped, "image that cannot be read", "images that cannot be read"),
            (
                self.ignored,
                "file that is no image or in no class",
                "files that are no images or in no class",
            ),
        )
        return "; ".join(counted_names(*kind) for kind in kinds if kind[0])

    def where(self, index):
        """The name of an example in messages."""
        if self.files is None:
            return f"{self.name}[{index}]"
        return where_of(self.files[index])

    def array(self, index, spec=None):
        """One image, uint8 (H, W, 3); with an `ImageSpec`, fitted to its size.

        Raises:
            CorruptImageError: Its file cannot be decoded, whatever `on_corrupt` is.
        """
        if self.images is not None:
            image = self.images[index]
        else:
            image = decode_image(self.read(index), self.where(index), self.banner)
        if spec is None or image.shape[:2] == (spec.height, spec.width):
            return image
        return np.asarray(_fit(spec)(image), np.uint8)

    def decoded(self, spec, progress=None):
        """This source with all images in memory, fitted to the size of an `ImageSpec`.

        Images of that size already stay as they are. Files that cannot be decoded end
        this with an error, or are left out and listed in `skipped`, depending on
        `on_corrupt`.

        Args:
            spec: An `ImageSpec`; its height and width count.
            progress: Called with (images done, images in all) now and then.

        Returns:
            A `Source` with `images`, and boxes in their pixels; itself, when it has
            them in this size.

        Raises:
            CorruptImageError: A file cannot be decoded.
            ValueError: Images in memory would change their size and have annotations,
                which are in pixels.
        """
        size = (spec.height, spec.width)
        if self.images is not None and self.images.shape[1:3] == size:
            return self
        if self.images is not None:
            if self.annotations:
                raise ValueError(
                    f"Expected the images of {self.name} in the size {size[0]} x "
                    f"{size[1]}, since their annotations are in pixels. Received: "
                    f"{self.images.shape[1:3]}"
                )
            return replace(self, images=self._fitted(spec, progress))
        where = [self.where(i) for i in range(len(self))]
        images, kept, problems = decode_files(
            self.read, where, size, _fit(spec), progress, self.banner
        )
        kept = self._without(problems, kept).with_boxes_in_frame(spec)
        return replace(kept, images=images, read=None, stamp=None, in_files={})

    def with_boxes_in_frame(self, spec):
        """This source of files with its boxes in pixels of images fitted to a spec."""
        original = {**self.annotations, **self.in_files}
        if "box" not in original:
            return self
        box = boxes_in_frame(original["box"], original["size"], spec)
        return replace(
            self,
            annotations={**original, "box": box},
            in_files={"box": original["box"]},
        )

    def with_boxes_in_images(self):
        """This source of files with `size` and boxes cut off at the images' border.

        Reads the headers of the files, unless the sizes are known.

        Raises:
            CorruptImageError: A header cannot be read, or a box is outside its image;
                with `on_corrupt="skip"` such files are left out.
        """
        if "box" not in self.annotations:
            return self
        given, sizes, problems = self._upright()
        boxes, outside = cut_at_border(given, sizes, self.banner)
        for index in np.flatnonzero(outside):
            if index not in problems:
                box = tuple(self.annotations["box"][index].tolist())
                height, width = sizes[index]
                problems[index] = CorruptImageError(
                    self.where(index),
                    f"its box (y0, x0, y1, x1) = {box} is outside the image of "
                    f"{height} x {width} pixels",
                )
        annotations = {**self.annotations, "box": boxes, "size": sizes}
        kept = np.setdiff1d(np.arange(len(self)), list(problems))
        problems = [problems[index] for index in sorted(problems)]
        return replace(self, annotations=annotations)._without(problems, kept)

    def _upright(self):
        """Boxes and sizes, int32 (N, 2), of the upright images, and errors by index.

        Boxes in files are those of the images as they are stored.
        """
        boxes = self.annotations["box"].copy()
        if "size" in self.annotations:
            return boxes, self.annotations["size"], {}
        sizes, problems = np.ones((len(self), 2), np.int32), {}
        for index in range(len(self)):
            # Only the header of a file on its own is read.
            file = self.files[index] if self.files else None
            file = file if isinstance(file, str) else self.read(index)
            try:
                size, orientation = stored_size(file, self.where(index))
                height, width = turned_size(size, orientation)
                height = rows_above(self.banner, height, self.where(index))
                sizes[index] = height, width
                if (boxes[index] != -1).any():
                    boxes[index] = turned_box(boxes[index], size, orientation)
            except CorruptImageError as error:
                problems[index] = error
        return boxes, sizes, problems

    def readable(self):
        """This source without the files that cannot be decoded.

        Decodes every file once and keeps none of them in memory.

        Raises:
            CorruptImageError: A file cannot be decoded and `on_corrupt` is "error".
        """
        where = [self.where(i) for i in range(len(self))]
        problems = check_files(self.read, where, self.banner)
        corrupt = {problem.where for problem in problems}
        kept = np.flatnonzero([name not in corrupt for name in where])
        return self._without(problems, kept)

    def _without(self, problems, kept):
        """The images `kept`, when the `problems` of the others are to be skipped."""
        problems = [(p.where, p.reason) for p in problems]
        raise_or_list(problems, self.on_corrupt)
        if not len(kept):
            where, reason = problems[0]
            raise ValueError(
                f"Expected readable images in {self.name}. Received: {len(self)} "
                f"files that are not ({where}: {reason})."
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
            annotations={key: rows[kept] for key, rows in self.annotations.items()},
            in_files={key: rows[kept] for key, rows in self.in_files.items()},
            official={key: i[i >= 0] for key, i in official.items()},
        )


def raise_or_list(problems, on_corrupt):
    """Raise for the first (file, reason) unless corrupt files are skipped."""
    if not problems or on_corrupt == "skip":
        return
    where, reason = problems[0]
    others = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
    raise CorruptImageError(where, f"{reason}{others}. {HOW_TO_SKIP}")


def _fit(spec):
    from keras_attn.preprocessing import ImagePreprocessing

    return ImagePreprocessing(spec).fit_size
