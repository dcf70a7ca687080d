"""The cost of masks: reading their maps from the cache, and the steps that use them."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from benchmarks import measure
from keras_attn.models.masked_resnet import masked_resnet
from keras_attn.pipelines.attention_maps.batches import masked_batches, placed_maps
from keras_attn.pipelines.attention_maps.compute import as_floats
from keras_attn.pipelines.augment.operations import Augmentation
from keras_attn.pipelines.batches.build import training_batches

BATCH_SIZE = 128
# Per epoch of the input pipeline.
BATCHES = 4
# CIFAR's images, the network's, and the maps of patches of 8 pixels.
IMAGE_SIZE, NETWORK_SIZE, CELLS = 32, 224, 28
CLASSES = 10
AUGMENTATION = "translate_flip_erase"
REFERENCE = "step with masks"


def run(quick):
    """Measurements of ResNet8 at 224 x 224 and of its batches."""
    batch_size = BATCH_SIZE // 4 if quick else BATCH_SIZE
    images, maps, labels = random_data(BATCHES * batch_size)
    cases = {
        REFERENCE: training_step(batch_size, 1.0),
        "step without masks": training_step(batch_size, None),
        "maps from the cache": reading(maps, batch_size),
        "batch with maps": consuming(with_maps(images, maps, labels, batch_size)),
        "batch without maps": consuming(without_maps(images, labels, batch_size)),
    }
    # An input pipeline is slower until it has chosen its number of threads.
    seconds = measure.interleaved(cases, 5 if quick else 15, warmup=4)
    for case in ("batch with maps", "batch without maps"):
        seconds[case] = [time / BATCHES for time in seconds[case]]
    return [
        dataclasses.replace(
            measurement, xla="off" if "step" in measurement.case else ""
        )
        for measurement in measure.relative_times(seconds, REFERENCE)
    ]


def training_step(batch_size, strength):
    """A function that trains a new ResNet8 for one step, on data on the device."""
    model = masked_resnet(strength=strength, num_classes=CLASSES)
    model.compile(
        keras.optimizers.AdamW(1e-3),
        loss={"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        jit_compile=False,
    )
    random = np.random.default_rng(0)
    shape = (batch_size, NETWORK_SIZE, NETWORK_SIZE)
    images = keras.ops.convert_to_tensor(random.normal(size=(*shape, 3)), "float32")
    maps = keras.ops.convert_to_tensor(random.random((*shape, 1)), "float32")
    inputs = {"images": images, "attention_map": maps} if strength else images
    labels = keras.ops.convert_to_tensor(random.integers(0, CLASSES, batch_size))

    def step():
        model.train_on_batch(inputs, {"logits": labels})
        # The losses are known before the last variable is updated.
        measure.wait_for(model.trainable_variables[0].value)

    return step


def reading(maps, batch_size):
    """A function that reads a batch of maps from memory, moved and enlarged."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    maps, augmentation = tf.constant(maps), Augmentation(AUGMENTATION)

    @tf.function
    def read(indices, seed):
        transforms = augmentation.transforms(seed, batch_size, size)
        batch = as_floats(tf.gather(maps, indices))
        return placed_maps(batch, transforms, size, (NETWORK_SIZE, NETWORK_SIZE))

    random = np.random.default_rng(0)

    def once():
        indices = random.permutation(len(maps))[:batch_size]
        measure.wait_for(read(indices, random.integers(0, 2**31, 2, "int32")))

    return once


def with_maps(images, maps, labels, batch_size):
    """An epoch of augmented and enlarged images and their maps."""
    size = (NETWORK_SIZE, NETWORK_SIZE)
    return masked_batches(
        images, maps, labels, batch_size, 0, 1, 0, AUGMENTATION, image_size=size
    )


def without_maps(images, labels, batch_size):
    """The same images alone."""
    images = images.astype("float32")
    alone = training_batches(images, labels, batch_size, 0, 1, 0, AUGMENTATION)
    return alone.map(
        lambda batch, _: tf.image.resize(
            batch, (NETWORK_SIZE, NETWORK_SIZE), "bicubic", antialias=True
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def consuming(batches):
    """A function that makes all batches of an epoch, none of them ahead of time."""

    def consume():
        for _ in batches:
            pass

    return consume


def random_data(examples):
    """8-bit images, 8-bit maps and labels."""
    random = np.random.default_rng(0)
    images = random.integers(
        0, 256, (examples, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8
    )
    maps = random.integers(0, 256, (examples, CELLS, CELLS, 1), dtype=np.uint8)
    return images, maps, random.integers(0, CLASSES, examples, dtype=np.int32)
