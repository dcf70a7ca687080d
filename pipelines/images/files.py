"""Image files named by a user, read in chunks."""

import pathlib

from keras_attn.pipelines.images.decoding import CorruptImageError, decode_files
from keras_attn.pipelines.images.headers import SUFFIXES
from keras_attn.preprocessing import ImagePreprocessing

# Images that are in memory at a time.
CHUNK = 1024


def image_files(paths):
    """Files as they are given, and all images below folders, sorted.

    Hidden files and folders are left out, and what is named twice comes once.

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
        `(images, kept, problems)`: the images, 8-bit; the paths that they are from;
        one `CorruptImageError` for each path left out.

    Raises:
        CorruptImageError: If a file cannot be decoded and is not to be skipped.
    """
    if on_corrupt not in ("error", "skip"):
        raise ValueError(
            "Expected on_corrupt to be 'error' or 'skip'. "
            f"Received: on_corrupt={on_corrupt!r}"
        )
    images, kept, problems = decode_files(
        lambda index: files[index].read_bytes(),
        [str(file) for file in files],
        (spec.height, spec.width),
        ImagePreprocessing(spec).fit_size,
    )
    if problems and on_corrupt == "error":
        first = problems[0]
        others = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
        raise CorruptImageError(
            first.where, f"{first.reason}{others}. --on-corrupt skip leaves such out."
        )
    return images, [files[index] for index in kept], problems


def check_readable(kept, problems):
    """Raises if there was no image that could be decoded."""
    if not len(kept):
        raise ValueError(f"Expected a readable image. Received: {problems[0]}")
