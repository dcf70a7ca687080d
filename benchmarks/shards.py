"""Tar shards and Parquet against a folder of files: speed, and memory of a million.

Photographs are JPEGs of 256 pixels; the many images are PNGs of 100 bytes. Files are
written to the folder for temporary ones, and are in the cache of the system when they
are read.
"""

import concurrent.futures
import dataclasses
import functools
import io
import multiprocessing
import pathlib
import statistics
import tarfile
import tempfile
import time

import numpy as np

from benchmarks import measure
from keras_attn.pipelines.collections import open_collection
from keras_attn.pipelines.images.streaming import StreamedImages
from keras_attn.pipelines.sources import load_source, pack
from keras_attn.preprocessing import ImageSpec

PHOTOGRAPHS, QUICK_PHOTOGRAPHS = 2_000, 400
MANY, QUICK_MANY = 1_000_000, 4_000
CLASSES, SIDE, SHARD = 100, 256, 20_000
ROWS = 500  # of a group of a Parquet file
BATCH = 64
LIMIT = 1000.0  # MB


def run(quick):
    """Measurements of reading speed, and of listing and streaming many images."""
    photographs = QUICK_PHOTOGRAPHS if quick else PHOTOGRAPHS
    many = QUICK_MANY if quick else MANY
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        return speeds(folder, photographs, 3 if quick else 5) + costs(folder, many)


def speeds(folder, count, rounds):
    """Images per second of each source, in order, in random order, and decoded."""
    places = write_photographs(folder, count)
    opened = {name: open_collection(place) for name, place in places.items()}
    shuffled = np.random.default_rng(0).permutation(count)
    spec = ImageSpec(height=SIDE, width=SIDE)
    ways = {
        "in order": lambda name: read(opened[name], range(count)),
        "in random order": lambda name: read(opened[name], shuffled),
        "decoded": lambda name: decode(load_source("folder", places[name]), spec),
    }
    measurements = []
    for title, way in ways.items():
        cases = {name: functools.partial(way, name) for name in places}
        seconds = measure.interleaved(cases, rounds)
        measurements += rates(seconds, count, title)
    return measurements


def rates(seconds, count, title):
    """Images per second, and how many times faster than the folder."""
    return [
        measure.Measurement(
            f"{name}, {title}",
            count / statistics.median(times),
            "images/s",
            measure.median_ratio(seconds["folder"], times),
        )
        for name, times in seconds.items()
    ]


def read(images, order):
    for _ in images.read(order):
        pass


def decode(source, spec):
    """Decodes all images of a source as training without augmentation does."""
    import tensorflow as tf

    images = StreamedImages(source, spec)
    order = tf.data.Dataset.range(len(images)).batch(BATCH)
    for _ in images.batches(order, BATCH):
        pass


def write_photographs(folder, count):
    """The same images as a folder, tar shards and a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    random = np.random.default_rng(0)
    contents = [encoded(random, SIDE, "JPEG") for _ in range(min(count, 50))]
    for number in range(count):
        file = folder / "photographs" / f"{number % CLASSES:03}" / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(contents[number % len(contents)])
    source = load_source("folder", folder / "photographs")
    pack.pack(source, folder / "packed")
    table = {
        "image": [source.read(index) for index in range(count)],
        "label": source.labels,
    }
    path = folder / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=ROWS)
    return {"folder": folder / "photographs", "tar": folder / "packed", "parquet": path}


def encoded(random, side, kind):
    from PIL import Image

    # Smooth, as photographs are.
    small = random.integers(0, 256, (max(side // 8, 1), max(side // 8, 1), 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((side, side)).save(file, kind)
    return file.getvalue()


def costs(folder, count):
    """Seconds and memory of listing many images, and memory of streaming them."""
    image = encoded(np.random.default_rng(0), 4, "PNG")
    places = {"folder": write_files(folder / "files", count, image)}
    places["tar"] = write_tars(folder / "tars", count, image)
    measurements = []
    for name, place in places.items():
        seconds, listed = in_new_process(list_many, place)
        _, streamed = in_new_process(stream_many, place)
        values = {"listed": listed, "streamed": streamed}
        measurements += [
            measure.Measurement(
                f"{name}, {count} listed, s", seconds, "s", seconds / 30
            ),
            *(
                measure.Measurement(
                    f"{name}, {count} {way}, MB", each, "MB", each / LIMIT
                )
                for way, each in values.items()
            ),
        ]
    return measurements


def in_new_process(function, place):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, str(place)).result()


def list_many(place):
    """Seconds of listing, and the memory that it adds at its peak."""
    with Growth() as growth:
        open_collection(place).describe()
    return growth.seconds, growth.megabytes


def stream_many(place):
    """The same with all bytes read in random order, and a part decoded."""
    source = load_source("folder", place)
    spec = ImageSpec(height=4, width=4)
    decode(part_of(source, 1000), spec)
    with Growth() as growth:
        for index in np.random.default_rng(0).permutation(len(source)):
            source.read(index)
        decode(part_of(source, 50_000), spec)
    return growth.seconds, growth.megabytes


def part_of(source, count):
    """The first images of a source, for reading alone."""
    return dataclasses.replace(source, labels=source.labels[:count])


class Growth:
    """Context that measures the time, and the peak of this process's memory above the
    memory at its beginning.
    """

    def __enter__(self):
        self.before = memory("VmRSS")
        # The peak so far counts no more.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.start
        self.megabytes = memory("VmHWM") - self.before


def memory(field, process="self"):
    """A field of memory of a process, on Linux, in MB."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{field}:"))
    return int(found.split()[1]) * 1024 / 1e6


def write_files(folder, count, image):
    for number in range(count):
        place = folder / f"{number % CLASSES:03}"
        if number < CLASSES:
            place.mkdir(parents=True)
        (place / f"{number:07}.png").write_bytes(image)
    return folder


def write_tars(folder, count, image):
    folder.mkdir()
    for start in range(0, count, SHARD):
        path = folder / f"data-{start:07}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(start, min(start + SHARD, count)):
                for suffix, content in (
                    ("png", image),
                    ("cls", str(number % CLASSES).encode()),
                ):
                    member = tarfile.TarInfo(f"{number:07}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder
