"""The cost of an explanation per image, in forward passes of the same network."""

import statistics

import keras
import numpy as np
from keras import ops

from benchmarks import measure
from keras_attn import explain
from keras_attn.models import vit

SIZE = (224, 224, 3)
FORWARD = "forward pass"
SMOOTH_GRAD, INTEGRATED = "smooth_grad, 16 samples", "integrated_gradients, 32 steps"
SCORE_CAM, OCCLUSION = "score_cam, 64 channels", "occlusion, 49 windows"
IN_PASSES = (SMOOTH_GRAD, INTEGRATED, SCORE_CAM, OCCLUSION)


def run(quick):
    """Milliseconds per image of every method, with the ratio to a forward pass.

    The forward pass runs layer by layer, as in the methods of one pass; on TensorFlow
    and JAX a compiled one is faster. Methods of many passes, which compile them, are
    timed once, compiling included.
    """
    count = 1 if quick else 2
    images = np.random.default_rng(0).normal(size=(count, *SIZE)).astype("float32")
    images = ops.convert_to_tensor(images)
    labels = np.zeros(count, "int32")
    rows = []
    for label, model, cases in (
        ("ResNet-50", _resnet(), _convolutional(images, labels)),
        (
            "ViT-S/16",
            vit("small", 16, SIZE, num_classes=1000),
            _attention(images, labels),
        ),
    ):
        rows += _measured(label, model, cases, images, 1 if quick else 5)
    return rows


def _measured(label, model, cases, images, repetitions):
    functions = {FORWARD: lambda: _wait(model(images, training=False))}
    functions |= {
        name: (lambda case=case: _wait(case(model))) for name, case in cases.items()
    }
    once = {name: functions.pop(name) for name in cases if name in IN_PASSES}
    seconds = measure.interleaved(functions, repetitions)
    forward = statistics.median(seconds[FORWARD])
    for name, function in once.items():
        (found,) = measure.interleaved({name: function}, 1, warmup=0)[name]
        seconds[name] = [found * each / forward for each in seconds[FORWARD]]
    return [
        measure.Measurement(
            f"{label}, {row.case}", row.value / len(images), row.unit, row.ratio, "off"
        )
        for row in measure.relative_times(seconds, FORWARD)
    ]


def _wait(outputs):
    measure.wait_for(ops.convert_to_tensor(keras.tree.flatten(outputs)[0]))


def _resnet():
    return keras.applications.ResNet50(
        weights=None, classes=1000, classifier_activation=None
    )


def _convolutional(images, labels):
    return {
        "grad_cam": lambda model: explain.grad_cam(model, images, labels=labels),
        "grad_cam_plus_plus": lambda model: explain.grad_cam_plus_plus(
            model, images, labels=labels
        ),
        "grad_cam, an inner layer": lambda model: explain.grad_cam(
            model, images, "conv3_block4_out", labels
        ),
        "class_activation_map": lambda model: explain.class_activation_map(
            model, images, labels
        ),
        **_same_arguments(images, labels, "hires_cam", "layer_cam"),
        "finer_cam": lambda model: explain.grad_cam(
            model, images, labels=labels, against="nearest"
        ),
        SMOOTH_GRAD: lambda model: explain.smooth_grad(model, images, labels),
        INTEGRATED: lambda model: explain.integrated_gradients(model, images, labels),
        SCORE_CAM: lambda model: explain.score_cam(
            model, images, "conv2_block1_1_relu", labels
        ),
        OCCLUSION: lambda model: explain.occlusion(model, images, labels),
    }


def _attention(images, labels):
    return {
        "attention_maps": lambda model: explain.attention_maps(model, images),
        "attention_rollout": lambda model: explain.attention_rollout(model, images),
        **_same_arguments(images, labels, "legrad", "gradient_rollout", "grad_cam"),
    }


def _same_arguments(images, labels, *names):
    return {
        name: lambda model, name=name: getattr(explain, name)(
            model, images, labels=labels
        )
        for name in names
    }
