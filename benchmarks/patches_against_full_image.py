"""Classifying on patches, and with early exits, against the full image.

ResNet-50 with random weights in all cases, from raw pixels to logits. Networks that
have learned nothing find no patches worth counting, so the decisions are given: how
many images use which branch, how many patches they have, and where they exit. What is
decided is still computed, and so is everything else.
"""

import statistics
import unittest.mock

import keras
import numpy as np
from keras import ops

from benchmarks import measure
from keras_attn import ImagePreprocessing, ImageSpec, multiply_adds
from keras_attn.layers import ClassifyPatches, LocalizePatches, localize_patches
from keras_attn.models import anchornet, anchornet95, branches_of, folded
from keras_attn.models.early_exit import early_exit_classifier
from keras_attn.models.patch_classifier import cost_of, maps_of
from keras_attn.models.resnext import resnext

BATCH_SIZE = 16
IMAGE_SIZE = 224
SPEC = ImageSpec(IMAGE_SIZE, IMAGE_SIZE)

CASES = ("full image", "patches", "early exit")

# AnchorNet paper, table 3 and section 4.4: of 50 000 images 15 050, 18 047 and 16 903
# use the branches 63, 95 and 111, with 5.6, 2.9 and 2.1 patches on average. Among 16
# images these are 4.8, 5.8 and 5.4 with 27.0, 16.7 and 11.4 patches.
PATCHES = [*[6, 6, 6, 5, 5], *[3, 3, 3, 3, 3, 3], *[2, 2, 2, 2, 3]]
BRANCHES = [0] * 5 + [1] * 6 + [2] * 5

# Of the units of 1 G in which the full image costs 4.1, an image costs 1.3: ten exit at
# once, and the others use eleven patches.
EXITS = [0] * 10 + [1, 1, 1, 2, 3, 3]


def run(quick):
    """Measurements of the full image, patches and exits, and of folded networks."""
    import tensorflow as tf

    classifier = _classifier()
    fast = folded(classifier)
    full = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
    models = {
        "full image": keras.Model(full, classifier(full)),
        "full image, folded": keras.Model(full, fast(full)),
        "patches": _patch_classifier(classifier),
        "patches, folded": _patch_classifier(fast),
        "early exit": _early_exit_classifier(classifier),
        "early exit, folded": _early_exit_classifier(fast),
    }
    shape = (BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3)
    images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
    for suffix in ("", ", folded"):
        _check_decisions({case: models[case + suffix] for case in CASES}, images)
    images = tf.constant(images)
    seconds = measure.interleaved(
        {case: _call(tf.function(model), images) for case, model in models.items()},
        3 if quick else 11,
    )
    return [
        measure.Measurement(
            case,
            BATCH_SIZE / statistics.median(times),
            "images/s",
            measure.median_ratio(seconds["full image"], times),
            "off",
        )
        for case, times in seconds.items()
    ]


def _call(function, images):
    def call():
        measure.wait_for(function(images, training=False)["logits"])

    return call


def _classifier():
    """ResNet-50 of raw pixels, the variant that costs 4.1 G at 224 x 224."""
    pixels = keras.Input((None, None, 3))
    x = ImagePreprocessing(SPEC, resize=False)(pixels)
    network = resnext(groups=1, group_width=64, input_tensor=x, name="resnet50")
    return network


def _localizer(builder, **arguments):
    pixels = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
    return builder(input_tensor=ImagePreprocessing(SPEC)(pixels), **arguments)


class GivenPatches(LocalizePatches):
    """Decides and localises, then takes the given branches and numbers of patches."""

    def call(self, maps):
        def given_decision(logits):
            label, branch = decide(logits)
            return label, branch * 0 + ops.convert_to_tensor(BRANCHES, branch.dtype)

        decide = localize_patches.branch_decision
        name = "branch_decision"
        with unittest.mock.patch.object(localize_patches, name, given_decision):
            found = super().call(maps)
        wanted = np.arange(max(self.max_patches)) < np.array(PATCHES)[:, None]
        return {**found, "valid": ops.logical_and(found["valid"], wanted)}


def _patch_classifier(classifier):
    """The same as `patch_classifier`, with the decisions given."""
    localizer = _localizer(anchornet)
    branches = branches_of(localizer)
    localize = GivenPatches(branches, max_patches=(6, 3, 3), iou_threshold=0.3)
    pixels = keras.Input(
        batch_shape=(BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3), name="images"
    )
    found = localize(maps_of(localizer(pixels), branches))
    classified = ClassifyPatches(
        classifier,
        [branch["patch_size"] for branch in branches],
        localize.max_patches,
    )([pixels, found["boxes"], found["valid"], found["branch"]])
    return keras.Model(pixels, {**found, **classified})


class GivenExits:
    """A policy that stops each image at its given exit."""

    def stop(self, stage, confidences):
        exits = ops.convert_to_tensor(EXITS, "float32")
        return exits + 0.0 * confidences[:, -1] <= stage


def _early_exit_classifier(classifier):
    return early_exit_classifier(
        _localizer(anchornet95, folded=True),
        classifier,
        classifier,
        max_patches=4,
        resized_size=95,
        policy=GivenExits(),
    )


def _check_decisions(models, images):
    """Raises if the cases do not have the paper's numbers of patches."""
    unit = multiply_adds(models["full image"]) / 4.1
    outputs = models["patches"].predict_on_batch(images)
    counts = outputs["valid"].sum(axis=1)
    cost = cost_of(models["patches"])
    patches = cost.mean(outputs["branch"], counts, with_localizer=False) / unit
    early = models["early exit"].predict_on_batch(images)
    exits = early["cost"].mean() / unit
    decided = list(counts) == PATCHES and list(early["exit"]) == EXITS
    if not decided or not 2.1 <= patches < 2.25 or not 1.29 < exits < 1.31:
        raise ValueError(
            f"Expected {PATCHES} patches and the exits {EXITS}, costing 2.1 and 1.3. "
            f"Received: {counts}, {early['exit']}, {patches:.3f} and {exits:.3f}"
        )
