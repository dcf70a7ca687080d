"""Image files named by a user."""

import os
import pathlib
import sys

from keras_attn._checks import one_of
from keras_attn.pipelines.files import walk_files
from keras_attn.pipelines.images.headers import SUFFIXES
from keras_attn.pipelines.progress import counted

# Images from which on decoding takes more than moments.
MANY = 500
# Images in memory at a time.
CHUNK = 1024


def image_files(paths):
    """Files in the given order, and all images below folders, sorted.

    Hidden files and folders are left out, and files named twice come once. A line on
    stderr counts the other files of folders.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds no images.
    """
    files, others = [], []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            inside = [path / os.fsdecode(name) for name, _ in walk_files(path)]
            others += [str(file) for file in inside if not _is_image(file)]
            inside = [file for file in inside if _is_image(file)]
            if not inside:
                raise FileNotFoundError(
                    f"Expected images ({', '.join(SUFFIXES)}). "
                    f"Received: {path}, a folder without any."
                )
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise FileNotFoundError(
                f"Expected an image or a folder. Received: {path}, which does not exist"
            )
    if others:
        text = counted_names(
            others, "file that is no image", "files that are no images"
        )
        print(f"Left out: {text}", file=sys.stderr)
    return list(dict.fromkeys(files))


def _is_image(file):
    return file.suffix.lower() in SUFFIXES


def counted_names(names, one, many):
    """The number of some names with their kind, and the first three."""
    more = ", ..." * (len(names) > 3)
    kind = one if len(names) == 1 else many
    return f"{len(names)} {kind} ({', '.join(names[:3])}{more})"


def read_images(files, spec, on_corrupt="error", progress=None):
    """Decodes files and fits them to the size of an `ImageSpec`, as training does.

    Args:
        files: Paths.
        spec: `ImageSpec`.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.
        progress: Called with (files done, files in all); by default `counted` of many.

    Returns:
        `Decoded`, with the paths of the readable files.

    Raises:
        CorruptImageError: If a file cannot be decoded and is not to be skipped.
    """
    # Listing files needs no TensorFlow.
    from keras_attn.pipelines.images.decoding import decode_files
    from keras_attn.pipelines.images.source import raise_or_list
    from keras_attn.preprocessing import ImagePreprocessing

    one_of("on_corrupt", on_corrupt, ("error", "skip"))
    decoded = decode_files(
        lambda index: files[index].read_bytes(),
        [str(file) for file in files],
        (spec.height, spec.width),
        ImagePreprocessing(spec).fit_size,
        progress or counted("Decoded", MANY),
    )
    raise_or_list([(p.where, p.reason) for p in decoded.problems], on_corrupt)
    return decoded._replace(kept=[files[index] for index in decoded.kept])


def check_readable(kept, problems):
    """Raises if no image could be decoded."""
    if not len(kept):
        raise ValueError(f"Expected a readable image. Received: {problems[0]}")
