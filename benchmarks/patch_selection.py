"""Choosing patches for a batch of maps at once against a loop over images."""

import keras
import numpy as np

from benchmarks import measure
from keras_attn.ops.patches import localize_patches

BATCH, QUICK_BATCH = 256, 32
# The map of AnchorNet-95, which sees 95 pixels at each of 17x17 cells.
CELLS, STRIDE, PATCH_SIZE = 17, 8, 95
MAX_PATCHES, IOU_THRESHOLD = 10, 0.3
# Of the batched operation, so short that one call is mostly the clock and the caches.
CALLS = 20
XLA = {"tensorflow": ("on", "off"), "jax": ("on",), "torch": ("off",)}


def run(quick):
    """Measurements of the batched operation, and of two loops over images."""
    random = np.random.default_rng(0)
    shape = (QUICK_BATCH if quick else BATCH, CELLS, CELLS)
    maps = random.standard_normal(shape).astype("float32")
    backend = keras.backend.backend()
    batched = {xla: batched_selection(maps, xla == "on") for xla in XLA[backend]}
    check(maps, [function() for function in batched.values()])
    measurements = []
    for xla, function in batched.items():
        # A case of its own where it is compiled, as only that has a target.
        name = "batched, compiled" if xla == "on" else "batched"
        cases = {
            "Python loop": lambda: [loop_over_cells(each) for each in maps],
            "NumPy loop": lambda: [loop_over_patches(each) for each in maps],
            name: lambda function=function: [function() for _ in range(CALLS)],
        }
        seconds = measure.interleaved(cases, 3 if quick else 11)
        seconds[name] = [time / CALLS for time in seconds[name]]
        rows = speedups(seconds, "Python loop", xla)
        measurements += rows if not measurements else rows[-1:]
    return measurements


def speedups(seconds, reference, xla):
    """Milliseconds of each case, with its speed relative to the reference."""
    return [
        measure.Measurement(
            row.case,
            row.value,
            row.unit,
            measure.median_ratio(seconds[reference], seconds[row.case]),
            row.xla if row.case.startswith("batched") else "",
        )
        for row in measure.relative_times(seconds, reference, xla)
    ]


def batched_selection(maps, compiled):
    """A function that returns the boxes for all maps as a NumPy array."""

    def select(evidence):
        return localize_patches(evidence, PATCH_SIZE, MAX_PATCHES, IOU_THRESHOLD)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec((None, CELLS, CELLS), tf.float32)]
        select = tf.function(select, input_signature=signature, jit_compile=compiled)
    elif backend == "jax":
        import jax

        select = jax.jit(select)
    evidence = keras.ops.convert_to_tensor(maps)
    return lambda: keras.ops.convert_to_numpy(select(evidence)["boxes"])


def check(maps, results):
    """Raises RuntimeError if the ways to choose patches do not agree."""
    for evidence, *boxes in zip(maps, *results, strict=True):
        wanted = loop_over_cells(evidence)
        found = [[tuple(box) for box in each[each[:, 0] >= 0]] for each in boxes]
        if any(each != wanted for each in (*found, loop_over_patches(evidence))):
            raise RuntimeError("Expected all ways to choose the same patches.")


def loop_over_cells(evidence):
    """Algorithm 1 of the AnchorNet paper as it is printed."""
    boxes = []
    for cell in np.argsort(-evidence, axis=None, kind="stable").tolist():
        y, x = STRIDE * (cell // CELLS), STRIDE * (cell % CELLS)
        box = (y, x, y + PATCH_SIZE, x + PATCH_SIZE)
        if all(overlap(box, other) < IOU_THRESHOLD for other in boxes):
            boxes.append(box)
            if len(boxes) == MAX_PATCHES:
                break
    return boxes


def overlap(box, other):
    """Intersection over union of two boxes."""
    height = min(box[2], other[2]) - max(box[0], other[0])
    width = min(box[3], other[3]) - max(box[1], other[1])
    if height <= 0 or width <= 0:
        return 0.0
    shared = height * width
    area = (box[2] - box[0]) * (box[3] - box[1])
    other_area = (other[2] - other[0]) * (other[3] - other[1])
    return shared / (area + other_area - shared)


def loop_over_patches(evidence):
    """The same, with all remaining cells compared to each new patch at once."""
    order = np.argsort(-evidence, axis=None, kind="stable")
    y, x = STRIDE * (order // CELLS), STRIDE * (order % CELLS)
    boxes = []
    while len(boxes) < MAX_PATCHES and len(y):
        boxes.append((y[0], x[0], y[0] + PATCH_SIZE, x[0] + PATCH_SIZE))
        height = np.maximum(PATCH_SIZE - np.abs(y - y[0]), 0)
        width = np.maximum(PATCH_SIZE - np.abs(x - x[0]), 0)
        shared = height * width
        free = shared / (2 * PATCH_SIZE**2 - shared) < IOU_THRESHOLD
        y, x = y[free], x[free]
    return boxes
