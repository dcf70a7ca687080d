"""Bulk jobs by workers, parts and Ray against one process; the cost of a plan."""

import functools
import importlib.util
import pathlib
import shutil
import statistics
import tempfile
import time

import keras
import numpy as np

from benchmarks import measure
from benchmarks.shards import Growth, encoded, in_new_process, memory, write_files
from keras_attn.models import vit
from keras_attn.pipelines.attention_maps.compute import stored
from keras_attn.pipelines.collections import open_collection
from keras_attn.pipelines.images.files import image_files, read_images
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.bulk.plan import Plan
from keras_attn.training.bulk.run import run as run_job
from keras_attn.training.bulk.worker import Worker
from keras_attn.training.retrieval.descriptors import describe, embedder_of
from keras_attn.training.runs.map_model import load_map_model
from keras_attn.training.trained import load_trained

# Task -> its name in the table, and the patches of ViT-S.
TASKS = {"masks": ("maps of ViT-S/8", 8), "embed": ("descriptors of ViT-S/16", 16)}
SIZE, IMAGES, SHARD, BATCH = ("small", 224), 128, 16, 16
QUICK_SIZE, QUICK_IMAGES, QUICK_SHARD = ((16, 1, 2), 32), 64, 8
MANY, QUICK_MANY = 1_000_000, 4_000
LIMIT_SECONDS, LIMIT_MEGABYTES = 30.0, 1000.0
SINGLE, PLANNED = "single process", "single process, with a plan"


def run(quick):
    """Measurements of speed, memory per worker, and of planning many images."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        photographs = write_photographs(folder, QUICK_IMAGES if quick else IMAGES)
        rows = []
        for task in TASKS:
            rows += of_task(task, folder, photographs, quick)
        return rows + planning(folder, QUICK_MANY if quick else MANY)


def write_photographs(folder, count):
    random, place = np.random.default_rng(0), folder / "photographs"
    place.mkdir()
    for number in range(count):
        (place / f"{number:06}.jpg").write_bytes(encoded(random, 256, "JPEG"))
    return place


def of_task(task, folder, photographs, quick):
    title, patch = TASKS[task]
    size, side = QUICK_SIZE if quick else SIZE
    model = folder / f"{task}.keras"
    image = keras.Input((side, side, 3))
    pixels = ImagePreprocessing(ImageSpec(side, side))(image)
    vit(size, patch, (side, side, 3), input_tensor=pixels).save(model)
    shard = QUICK_SHARD if quick else SHARD

    def plan(name):
        shutil.rmtree(folder / name, ignore_errors=True)
        options = {"batch_size": min(BATCH, shard), "shard": shard}
        return Plan.make(task, model, photographs, folder / name, **options)

    single = plain(task, model, image_files([photographs]), shard)
    seconds = in_one_process(single, plan("one"), 3)
    count = len(image_files([photographs]))
    alone = count / statistics.median(seconds[SINGLE])
    rows = [
        measure.Measurement(
            f"{title}, {name}",
            count / statistics.median(times),
            "images/s",
            measure.median_ratio(seconds[SINGLE], times),
        )
        for name, times in seconds.items()
    ]
    cases = {
        "1 worker": {},
        "2 workers": {"workers": 2},
        "part 1/2": {"part": (1, 2)},
    }
    if importlib.util.find_spec("ray"):
        cases["Ray, 2 actors"] = {"runner": "ray", "workers": 2}
    for name, options in cases.items():
        rate, largest = speed(plan("job"), options)
        rows.append(
            measure.Measurement(f"{title}, {name}", rate, "images/s", rate / alone)
        )
        if largest:
            row = f"{title}, {name}, memory of a worker"
            rows.append(measure.Measurement(row, largest, "MB", 1.0))
    return rows


def in_one_process(single, plan, rounds):
    """Seconds of all images in this process, without and with the files of a plan."""
    worker = Worker(*plan.plain())

    def planned():
        for shard in plan.shards():
            shard.path.unlink(missing_ok=True)
        for number in range(len(plan.shards())):
            worker.compute(number)

    return measure.interleaved({SINGLE: single, PLANNED: planned}, rounds)


def plain(task, model, files, shard):
    """A function that decodes and computes all images, a part at a time."""
    if task == "masks":
        network = load_map_model(model)
        spec = ImageSpec(*network.input_shape[1:3])

        def compute(images):
            return stored(np.asarray(network.predict_on_batch(images)), "uint8")

    else:
        trained = load_trained(model, classifies=False)
        spec = trained.spec
        compute = functools.partial(
            describe, embedder_of(trained), batch_size=min(BATCH, shard)
        )

    def loop():
        found = []
        for start in range(0, len(files), shard):
            images, _, _ = read_images(files[start : start + shard], spec)
            found.append(compute(images))
        return np.concatenate(found)

    return loop


def speed(plan, options):
    """Images per second once all workers compute, and MB of the largest worker."""
    events, largest = [], 0.0

    def progress(done, total):
        nonlocal largest
        events.append((time.perf_counter(), done))
        largest = max([largest, *map(peak, children())])

    run_job(plan, progress=progress, **options)
    begun, before = events[options.get("workers", 1)]
    ended, after = events[-1]
    return (after - before) / (ended - begun), largest


def children():
    path = pathlib.Path("/proc/self/task")
    found = [each.read_text().split() for each in path.glob("*/children")]
    return [int(pid) for pids in found for pid in pids]


def peak(pid):
    """MB of a worker, 0 of another process."""
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        return memory("VmHWM", pid) if b"bulk.process" in command else 0.0
    except (OSError, StopIteration):
        return 0.0


def planning(folder, count):
    """Seconds and memory of listing and planning many files."""
    image = encoded(np.random.default_rng(0), 4, "PNG")
    place = write_files(folder / "files", count, image)
    seconds, megabytes = in_new_process(plan_many, place)
    title = f"{count} files listed and planned"
    return [
        measure.Measurement(f"{title}, s", seconds, "s", seconds / LIMIT_SECONDS),
        measure.Measurement(
            f"{title}, MB", megabytes, "MB", megabytes / LIMIT_MEGABYTES
        ),
    ]


def plan_many(place):
    """The time of all that a plan does but for loading the model."""
    with Growth() as growth:
        images = open_collection(place)
        described = images.describe()
        maker = {
            "examples": len(images),
            "listing": described["digest"],
            "format": "npz",
            "shard": 256,
            "columns": {},
        }
        output = pathlib.Path(place).with_name("planned")
        plan = Plan.open_or_create(output, maker, {"images": str(place)})
        assert len(plan.state().waiting) == len(plan.shards())
    return growth.seconds, growth.megabytes
