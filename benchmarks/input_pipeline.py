"""Images per second of the input pipeline, and of the step that consumes them."""

import statistics

import numpy as np

from benchmarks import measure
from benchmarks.step_time import random_images, training_step
from keras_attn.pipelines.batches import build

EXAMPLES = 20_000
STEPS = 3


def run(quick):
    """Measurements of pipeline and step at the recipes' batch size and a large one."""
    examples = EXAMPLES // 4 if quick else EXAMPLES
    images, labels = random_images(np.random.default_rng(0), examples)
    measurements = []
    for batch_size in (128,) if quick else (128, 32):
        # The baseline is the fastest consumer of the table's rows.
        step = training_step("baseline", batch_size)
        cases = {
            "pipeline": epoch_of_batches(images, labels, batch_size),
            "step": lambda step=step: [step() for _ in range(STEPS)],
        }
        seconds = measure.interleaved(cases, 3 if quick else 7)
        produced = build.steps_per_epoch(examples, batch_size) * batch_size
        counts = {"pipeline": produced, "step": STEPS * batch_size}
        measurements += rates(seconds, counts, batch_size)
    return measurements


def epoch_of_batches(images, labels, batch_size):
    """A function that makes all batches of an epoch and drops them.

    It starts a new iterator, so that nothing was prefetched before it is timed.
    """
    batches = build.training_batches(images, labels, batch_size, seed=0, epochs=1)
    batches = build.label_outputs(batches, ("logits", "patch_logits"))

    def consume():
        for _ in batches:
            pass

    return consume


def rates(seconds, counts, batch_size):
    """Images per second of each case, and their ratio to those of the step."""
    rate = {case: [counts[case] / time for time in seconds[case]] for case in seconds}
    return [
        measure.Measurement(
            f"{case}, batch {batch_size}",
            statistics.median(values),
            "images/s",
            measure.median_ratio(values, rate["step"]),
            "off" if case == "step" else "",
        )
        for case, values in rate.items()
    ]
