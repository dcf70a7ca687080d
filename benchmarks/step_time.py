"""Training step of RN26: the rows of the class-embedding paper's table 1."""

import keras
import numpy as np

from benchmarks import measure
from keras_attn.preprocessing import ImageSpec
from keras_attn.training.fit.train import make_model
from keras_attn.training.methods import method_of
from keras_attn.training.recipes.schema import Recipe

ROWS = ("baseline", "aux", "class_embedding")
BATCH_SIZE = 128
IMAGE_SIZE = 32
CLASSES = 10

# On JAX "off" runs the step operation by operation: it has no other mode.
XLA = {"tensorflow": ("off", "on"), "jax": ("on", "off"), "torch": ("off",)}
# For what takes many times longer, and so needs fewer rounds for the same precision.
SLOW = {("jax", "off")}


def run(quick):
    """Measurements of every row, with and without XLA."""
    backend = keras.backend.backend()
    rows = ("baseline", "class_embedding") if quick else ROWS
    measurements = []
    for xla in XLA[backend][: 1 if quick else None]:
        steps = {row: training_step(row, BATCH_SIZE, xla == "on") for row in rows}
        repetitions = 3 if quick or (backend, xla) in SLOW else 11
        seconds = measure.interleaved(steps, repetitions)
        measurements += measure.relative_times(seconds, "baseline", xla)
    return measurements


def training_step(row, batch_size, jit_compile=False):
    """A function that trains a new RN26 for one step, on data on the device."""
    recipe = Recipe(
        name=f"benchmark_rn26_{row}",
        row=row,
        batch_size=batch_size,
        jit_compile=jit_compile,
    )
    spec = ImageSpec(
        IMAGE_SIZE, IMAGE_SIZE, class_names=tuple(map(str, range(CLASSES)))
    )
    model = make_model(recipe, spec)
    method_of(recipe).compile(model, recipe, steps=10_000)
    random = np.random.default_rng(0)
    images, labels = random_images(random, batch_size)
    images = keras.ops.convert_to_tensor(images)
    labels = keras.ops.convert_to_tensor(labels)
    targets = {name: labels for name in model.output}

    def step():
        model.train_on_batch(images, targets)
        # The losses are known before the last variable is updated.
        measure.wait_for(model.trainable_variables[0].value)

    return step


def random_images(random, examples):
    """8-bit images and labels."""
    shape = (examples, IMAGE_SIZE, IMAGE_SIZE, 3)
    images = random.integers(0, 256, shape, dtype=np.uint8)
    return images, random.integers(0, CLASSES, examples, dtype=np.int32)
