"""Writes the images of a `Source` as tar shards in the layout of WebDataset."""

import io
import itertools
import json
import os
import pathlib
import tarfile

from keras_attn._checks import positive_integer
from keras_attn.pipelines.collections.tar import DESCRIPTION
from keras_attn.pipelines.files import digest_of, read_json, write_then_rename
from keras_attn.pipelines.progress import counted
from keras_attn.pipelines.store import is_unused

SHARD = 1000
# Beside the shards: the source that they are made of.
PACKED = "packed.json"


def pack(source, output, shard_size=SHARD):
    """Writes images as they are, each with its label, in the order of the source.

    The same source gives the same bytes. Shards appear when they are complete, so that
    the same call resumes; each has images of one part of the official division, and
    the names of the classes.

    Args:
        source: `Source` of files.
        output: The folder of the shards, new or of the same call.
        shard_size: Images per shard.

    Returns:
        List of the paths of the shards.

    Raises:
        ValueError: The folder holds something else, or cannot be written to.
        OSError: An image cannot be read.
    """
    positive_integer("shard_size", shard_size)
    if source.read is None:
        raise ValueError(
            f"Expected images in files. Received: {source.name}, whose images are not"
        )
    output = pathlib.Path(output)
    names = _Names(source)
    try:
        _begin(source, output, shard_size, names)
        paths, done = [], 0
        show = counted("Packed")
        for number, (part, indices) in enumerate(_shards(source, shard_size)):
            paths.append(output / f"data-{number:06}.tar")
            if not paths[-1].exists():
                with write_then_rename(paths[-1], os.getpid()) as file:
                    _write(file, source, part, indices, names)
            done += len(indices)
            show(done, len(source))
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(output)):
            raise
        raise ValueError(
            f"Expected to write shards to {output}. Received: {error.strerror}"
        ) from error
    return paths


def _shards(source, size):
    """Yields the part and the indices of each shard."""
    parts = source.official or {"": range(len(source))}
    for part, indices in sorted(parts.items(), key=lambda item: item[1][0]):
        for start in range(0, len(indices), size):
            yield part, [int(index) for index in indices[start : start + size]]


class _Names:
    """Names of images below the folder that all of them are in."""

    def __init__(self, source):
        self.files = source.files
        common = os.path.commonprefix([min(self), max(self)])
        self.start = common.rfind("/") + 1

    def __iter__(self):
        return map(_path, self.files)

    def __getitem__(self, index):
        return _path(self.files[index])[self.start :]


def _path(file):
    return file if isinstance(file, str) else file[1]


def _begin(source, output, shard_size, names):
    """Describes new shards; raises `ValueError` for a folder of others."""
    listed = [
        f"{names[i]}\n{source.stamp(i)[0]}\n{source.labels[i]}\n"
        for i in range(len(source))
    ]
    parts = {part: [int(i[0]), len(i)] for part, i in source.official.items()}
    described = {
        "class_names": list(source.class_names),
        "images": len(source),
        "shard_size": shard_size,
        "parts": parts,
        "digest": digest_of("".join(listed)),
    }
    path = output / PACKED
    if path.exists():
        if read_json(path) != described:
            raise ValueError(
                f"Expected a new folder, or the shards of the same images. "
                f"Received: {output}, with others. Choose another --output."
            )
        return
    if not is_unused(output):
        raise ValueError(
            f"Expected a new folder. Received: {output}, which holds something else"
        )
    output.mkdir(parents=True, exist_ok=True)
    with write_then_rename(path) as file:
        file.write((json.dumps(described, indent=1) + "\n").encode())


def _write(file, source, part, indices, names):
    described = {"class_names": list(source.class_names), "part": part}
    used = set()
    # Same bytes everywhere: no times, owners or rights of files.
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, os.fsdecode(DESCRIPTION), json.dumps(described).encode())
        for index in indices:
            key, suffix = _key(names[index], used)
            _add(archive, key + suffix, source.read(index))
            _add(archive, f"{key}.cls", str(int(source.labels[index])).encode())


def _key(name, used):
    """A name without dots but in the suffix, which no other image of a shard has."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.rpartition(".")
    plain = f"{folder}{slash}{stem.replace('.', '_')}"
    candidates = itertools.chain(
        (plain, f"{plain}_{suffix}"), (f"{plain}_{n}" for n in itertools.count(2))
    )
    key = next(each for each in candidates if each not in used)
    used.add(key)
    return key, dot + suffix


def _add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
