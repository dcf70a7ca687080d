"""Image files named by a user."""

import pathlib

from keras_attn._checks import one_of
from keras_attn.pipelines.images.headers import SUFFIXES

# Images in memory at a time.
CHUNK = 1024


def image_files(paths):
    """Files in the given order, and all images below folders, sorted.

    Hidden files and folders are left out, and files named twice come once.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds no images.
    """
    files = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            inside = [
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(
                    part.startswith(".") for part in file.relative_to(path).parts
                )
            ]
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
    return list(dict.fromkeys(files))


def read_images(files, spec, on_corrupt="error"):
    """Decodes files and fits them to the size of an `ImageSpec`, as training does.

    Args:
        files: Paths.
        spec: `ImageSpec`.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.

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
    )
    raise_or_list([(p.where, p.reason) for p in decoded.problems], on_corrupt)
    return decoded._replace(kept=[files[index] for index in decoded.kept])


def check_readable(kept, problems):
    """Raises if no image could be decoded."""
    if not len(kept):
        raise ValueError(f"Expected a readable image. Received: {problems[0]}")
