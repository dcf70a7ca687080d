"""The cost of an explanation per image, in forward passes of the same network."""

import keras
import numpy as np
from keras import ops

from benchmarks import measure
from keras_attn import explain
from keras_attn.models import vit

SIZE = (224, 224, 3)
FORWARD = "forward pass"


def run(quick):
    """Milliseconds per image of every method, with the ratio to a forward pass.

    The network is called as the methods call it, layer by layer; on TensorFlow and
    JAX a compiled pass is faster. Occlusion alone runs compiled.
    """
    count = 2 if quick else 8
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
        rows += _measured(label, model, cases, images, 2 if quick else 7)
    return rows


def _measured(label, model, cases, images, repetitions):
    functions = {FORWARD: lambda: _wait(model(images, training=False))}
    functions |= {
        name: (lambda case=case: _wait(case(model))) for name, case in cases.items()
    }
    seconds = measure.interleaved(functions, repetitions)
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
        **_same_arguments(images, labels, "hires_cam", "layer_cam", "smooth_grad"),
        "finer_cam": lambda model: explain.grad_cam(
            model, images, labels=labels, against="nearest"
        ),
        "integrated_gradients, 32 steps": lambda model: explain.integrated_gradients(
            model, images, labels
        ),
        # 64 channels.
        "score_cam, an early layer": lambda model: explain.score_cam(
            model, images, "conv2_block1_1_relu", labels
        ),
        # 5 x 5 windows.
        "occlusion, 25 windows": lambda model: explain.occlusion(
            model, images, labels, window=56, stride=42
        ),
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
