"""A classifier of anybody's, in the form that everything else here takes."""

import dataclasses
import numbers
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_attn._checks import one_of
from keras_attn.graph.expose import with_logits
from keras_attn.graph.flat import FlatGraph
from keras_attn.graph.head import has_labels, output_key, output_names
from keras_attn.models.catalogue import CAFFE_MEAN, CAFFE_STD
from keras_attn.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImagePreprocessing,
    ImageSpec,
    spec_of,
)

# For models that leave the size of their images open.
USUAL_SIZE = 224
# Order of the colours that a model takes.
CHANNELS = ("rgb", "bgr", "grey")
# Name -> mean and standard deviation on the scale 0..1, and order of the colours.
PIXELS = {
    "0..255": ((0.0,) * 3, (1 / 255,) * 3, "rgb"),
    "0..1": ((0.0,) * 3, (1.0,) * 3, "rgb"),
    "-1..1": ((0.5,) * 3, (0.5,) * 3, "rgb"),
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD, "rgb"),
    "caffe": (CAFFE_MEAN, CAFFE_STD, "bgr"),
}
SMALLEST_PROBABILITY = 1e-30


@keras.saving.register_keras_serializable(package="keras_attn")
class ModelPixels(ImagePreprocessing):
    """Fits raw images to a model's size and gives it the values that it was made for.

    Args:
        spec: `ImageSpec`, or its dict. Of a grey model the first of its means and
            standard deviations counts.
        channels: `"rgb"`; `"bgr"`, blue first; `"grey"`, one channel.

    Input shape: `(batch, height, width, 3)`, values 0..255 of any dtype.

    Output shape: `(batch, spec.height, spec.width, 3)`, or 1 channel; in the layer's
        compute dtype. Pixels that the model takes as they are stay exact.
    """

    def __init__(self, spec, channels="rgb", **kwargs):
        super().__init__(spec, **kwargs)
        self.channels = one_of("channels", channels, CHANNELS)

    def normalize(self, images):
        images = ops.cast(images, "float32")
        order = slice(None, None, -1 if self.channels == "bgr" else 1)
        mean, std = self.spec.mean[order], self.spec.std[order]
        if self.channels == "bgr":
            images = ops.flip(images, axis=-1)
        if self.channels == "grey":
            images, mean, std = _grey(images), mean[:1], std[:1]
        if np.allclose(std, 1 / 255, rtol=1e-6):
            images = images - 255 * ops.convert_to_tensor(mean, "float32")
        else:
            images = (images / 255 - np.float32(mean)) / np.float32(std)
        if not keras.backend.is_float_dtype(self.compute_dtype):
            images = ops.round(images)
        return ops.cast(images, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        shape = super().compute_output_shape(input_shape)
        return (*shape[:-1], 1 if self.channels == "grey" else 3)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


def _grey(images):
    """Luma of ITU-R 601 in 65536ths, exact for whole numbers; grey pixels stay."""
    weights = ops.convert_to_tensor([19595.0, 38470.0, 7471.0], "float32")
    total = ops.sum(images * weights, axis=-1, keepdims=True)
    return ops.floor((total + 32768) / 65536)


@keras.saving.register_keras_serializable(package="keras_attn")
class AsClasses(keras.layers.Layer):
    """Scores that are no logits of classes, as such.

    Args:
        kind: `"logit"`: a single one, as logits of two classes; `"probability"`: a
            single one, as those of two classes; `"probabilities"`: as their logarithms.

    Input shape: `(batch, scores)`.

    Output shape: `(batch, classes)`.
    """

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = one_of("kind", kind, ("logit", "probability", "probabilities"))

    def call(self, scores):
        if self.kind == "probabilities":
            return ops.log(ops.maximum(scores, SMALLEST_PROBABILITY))
        if self.kind == "logit":
            # Of both signs, so that either class has a slope.
            return ops.concatenate([-scores / 2, scores / 2], axis=-1)
        return ops.concatenate([1 - scores, scores], axis=-1)

    def compute_output_shape(self, input_shape):
        single = self.kind != "probabilities"
        return (*input_shape[:-1], 2 if single else input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


def adopt(
    model: keras.Model,
    class_names: Sequence[str] = (),
    pixels: str | tuple | None = None,
    output: str | int | None = None,
    size: tuple[int, int] | None = None,
    several_labels: bool = False,
    thresholds: float | Sequence[float] = (),
) -> keras.Model:
    """A model that all of this package and its commands take, from any classifier.

    The new model takes raw pixels, fits and scales them, and carries class names and
    pixels in its file. Its layers are those of the given model, which stays as it is,
    and its numbers too.

    Args:
        model: Functional or `Sequential` classifier of one image, also of other models:
            with a softmax, sigmoids or bare logits, a single score or several labels.
        class_names: Names of the classes, in the order of the scores; without any they
            are numbered. A single score stands for two classes, the second of which it
            is for; one name will do.
        pixels: Values that the model takes: `"0..255"`, `"0..1"`, `"-1..1"`,
            `"imagenet"` (0..1 less the usual mean, by the usual deviation), `"caffe"`
            (0..255 less the usual mean, blue first), or mean and standard deviation, a
            number or one per channel, as a tuple or a text such as
            `"0.5,0.5,0.5/0.25,0.25,0.25"`; on the scale 0..255 if one is above 1.
            `None`: `"0..255"`, or those of a model that was adopted before.
        output: Name or index of the output with the scores, of a model with several;
            `None`: `logits`, or the only one. Where the model returns a dict with
            `logits`, its other outputs stay too.
        size: Height and width of the images, where the model leaves them open;
            `None`: 224 x 224.
        several_labels: Whether logits without activation are of labels that do not
            exclude each other.
        thresholds: Least probability with which such labels are named, a number or one
            for each; empty: 0.5.

    Returns:
        Functional model from `images`, `(batch, height, width, 3)`, raw pixels 0..255,
        to a dict of `logits`, `(batch, classes)`, and `probabilities`, the given
        model's own, where it returns any.

    Raises:
        ValueError: If the model is no such classifier, or arguments do not fit it.

    Example:

    >>> backbone = keras.applications.MobileNetV2(
    ...     input_shape=(64, 96, 3), weights=None, classes=2
    ... )
    >>> model = keras_attn.adopt(backbone, ["cat", "dog"], pixels="-1..1")
    >>> sorted(model.output), keras_attn.spec_of(model).class_names
    (['logits', 'probabilities'], ('cat', 'dog'))
    """
    if is_adopted(model):
        return _readopted(model, class_names, pixels, output, thresholds)
    graph = FlatGraph(model)
    given = _image_input(graph)
    key = _scores_key(graph, output)
    count = graph.tensors[key].shape[-1]
    names = _class_names(class_names, count)
    mean, std, channels = pixel_statistics(pixels or "0..255")
    if given.shape[-1] == 1:
        channels = "grey"
    height, width = _size(given, size)
    spec = ImageSpec(height, width, mean, std, class_names=names)
    spec = dataclasses.replace(spec, thresholds=_thresholds(thresholds, names))
    images = keras.Input((height, width, 3), name="images")
    prepared = ModelPixels(spec, channels, dtype=given.dtype, name="pixels")(images)
    view_input = keras.tree.map_structure(lambda _: images, graph.function.input)
    entered = keras.tree.map_structure(lambda _: prepared, graph.function.input)
    outputs, logits, head = with_logits(graph, model, key, view_input, entered)
    end = graph.outputs.index(key)
    name = output_names(graph)[end]
    scores = keras.tree.flatten(outputs)[end]
    own = outputs if isinstance(outputs, dict) and output is None else {}
    others = {each: tensor for each, tensor in own.items() if each != name}
    named = _named_scores(
        scores, logits, head.kind, several_labels, lambda: _adds_up(model, end)
    )
    found = keras.Model(images, {**others, **named}, name=model.name)
    return _checked(found, spec.thresholds)


def _readopted(model, names, pixels, output, thresholds):
    """A model of this kind, with one output as its logits, other names or pixels."""
    outputs = model.output
    if output is None and not names and pixels is None and not thresholds:
        return model
    if output is not None:
        graph = FlatGraph(model)
        outputs = {"logits": graph.tensors[output_key(graph, output)]}
    names = names and _class_names(names, outputs["logits"].shape[-1])
    view = keras.Model(model.input, outputs, name=model.name)
    if not names and pixels is None and not thresholds:
        return view
    thresholds = _thresholds(thresholds, range(outputs["logits"].shape[-1]))

    def clone(layer):
        if not isinstance(layer, ImagePreprocessing):
            return layer
        config = layer.get_config()
        spec = dataclasses.replace(
            layer.spec,
            class_names=names or layer.spec.class_names,
            thresholds=thresholds or layer.spec.thresholds,
        )
        if isinstance(layer, ModelPixels) and pixels is not None:
            mean, std, channels = pixel_statistics(pixels)
            spec = dataclasses.replace(spec, mean=mean, std=std)
            if config["channels"] != "grey":
                config["channels"] = channels
        return type(layer).from_config({**config, "spec": spec})

    found = keras.models.clone_model(view, clone_function=clone)
    return _checked(found, thresholds)


def _thresholds(thresholds, names):
    """A threshold for each of the classes, or none."""
    if isinstance(thresholds, numbers.Real):
        thresholds = (thresholds,) * len(names)
    if len(thresholds) not in (0, len(names)):
        raise ValueError(
            f"Expected a threshold for each of {len(names)} labels. "
            f"Received: {len(thresholds)}"
        )
    return tuple(map(float, thresholds))


def _checked(model, thresholds):
    if thresholds and not has_labels(model):
        raise ValueError(
            "Expected a model of labels that do not exclude each other, to have "
            "thresholds (`several_labels`). Received: "
            f"thresholds={thresholds} for {model.name!r}"
        )
    return model


def is_adopted(model: keras.Model) -> bool:
    """Test for a model that carries its spec and has named outputs, as all here."""
    output = getattr(model, "output", None)
    if not isinstance(output, dict) or not {"logits", "embedding"} & set(output):
        return False
    try:
        spec_of(model)
    except ValueError:
        return False
    return True


def pixel_statistics(pixels: str | tuple) -> tuple:
    """Mean and standard deviation on the scale 0..1, and the order of the colours.

    Args:
        pixels: See `adopt`.
    """
    if isinstance(pixels, str) and pixels in PIXELS:
        return PIXELS[pixels]
    try:
        parts = pixels.split("/") if isinstance(pixels, str) else pixels
        mean, std = (_three(part) for part in parts)
    except (TypeError, ValueError, AttributeError):
        raise ValueError(
            f"Expected `pixels` to be one of {', '.join(PIXELS)}, or MEAN/STD, a "
            f"number or three for each. Received: pixels={pixels!r}"
        ) from None
    scale = 255 if max(map(abs, mean + std)) > 1 else 1
    if min(std) <= 0:
        raise ValueError(
            "Expected positive standard deviations of the pixels. "
            f"Received: pixels={pixels!r}"
        )
    return tuple(m / scale for m in mean), tuple(s / scale for s in std), "rgb"


def _three(part):
    if isinstance(part, numbers.Real):
        part = [part]
    values = [
        float(each) for each in (part.split(",") if isinstance(part, str) else part)
    ]
    if len(values) not in (1, 3):
        raise ValueError(values)
    return tuple(values) * (3 // len(values))


def _image_input(graph):
    """The symbolic tensor of the only input."""
    tensors = [graph.tensors[key] for key in graph.inputs]
    shapes = [tuple(each.shape) for each in tensors]
    if len(tensors) == 1 and len(shapes[0]) == 4 and shapes[0][-1] in (1, 3):
        return tensors[0]
    raise ValueError(
        "Expected a classifier of images with one input (batch, height, width, 3), or "
        f"1 for grey ones. Received: {graph.function.name!r} with inputs {shapes}"
    )


def _scores_key(graph, output):
    """The key of the scores, with an error for whoever does not name them."""
    names = output_names(graph)
    if output is None and len(names) > 1 and "logits" not in names:
        shapes = [tuple(graph.tensors[key].shape) for key in graph.outputs]
        named = dict(zip(names, shapes, strict=True))
        fit = [name for name, shape in named.items() if len(shape) == 2]
        if not fit:
            raise ValueError(
                "Expected a classifier, with an output (batch, classes). Received: "
                f"{graph.function.name!r} with outputs {named}"
            )
        raise ValueError(
            f"Expected the name of an output (`output`; --head NAME), one of "
            f"{', '.join(fit)}. Received: {graph.function.name!r} with several"
        )
    return output_key(graph, output)


def _size(given, size):
    own = tuple(given.shape[1:3])
    size = tuple(size or own)
    if len(size) != 2 or any(
        o not in (None, s) for o, s in zip(own, size, strict=True)
    ):
        raise ValueError(
            f"Expected a size that fits the model, {own}. Received: {size}"
        )
    return tuple(side or USUAL_SIZE for side in size)


def _class_names(names, count):
    if isinstance(names, str):
        raise ValueError(f"Expected a list of names. Received: class_names={names!r}")
    names = tuple(str(name) for name in names)
    if count == 1 and len(names) == 1:
        names = (f"not {names[0]}", *names)
    expected = max(count or 0, 2) if count is not None else None
    if expected is None:
        raise ValueError("Expected a model with a fixed number of classes.")
    names = names or tuple(str(label) for label in range(expected))
    if len(names) != expected:
        raise ValueError(
            f"Expected a name for each of {expected} classes. "
            f"Received: {len(names)} names"
        )
    return names


def _named_scores(scores, logits, kind, several_labels, adds_up):
    """`logits` and, where they are known otherwise, `probabilities`."""
    count = scores.shape[-1]
    if count == 1:
        if kind not in ("logits", "sigmoid"):
            raise ValueError(
                "Expected a single score to be a logit, or to end in a sigmoid. "
                f"Received: an end in {kind or 'something else'}"
            )
        two = AsClasses("logit", name="two_logits")
        if kind == "logits":
            return {"logits": two(scores)}
        both = AsClasses("probability", name="two_probabilities")
        return {"logits": two(logits), "probabilities": both(scores)}
    if kind in ("softmax", "sigmoid") and logits is not None:
        return {"logits": logits, "probabilities": scores}
    if kind == "log_sigmoid" and logits is not None:
        return {"logits": logits, "probabilities": _labels(logits)}
    if kind in (None, "softmax") and adds_up():
        log = AsClasses("probabilities", name="log_probabilities")
        return {"logits": log(scores), "probabilities": scores}
    if several_labels:
        return {"logits": scores, "probabilities": _labels(scores)}
    return {"logits": scores}


def _labels(logits):
    return keras.layers.Activation("sigmoid", name="label_probabilities")(logits)


def _adds_up(model, index):
    """Test for an output, of an unknown end, with probabilities of classes."""
    given = model.inputs[0]
    shape = [2, *(side or 64 for side in given.shape[1:])]
    noise = np.random.default_rng(0).uniform(0, 255, shape)
    values = model.outputs[index]
    values = keras.Model(model.inputs, values)(ops.cast(noise, given.dtype))
    values = ops.convert_to_numpy(ops.cast(values, "float32"))
    return values.min() >= 0 and np.allclose(values.sum(axis=-1), 1, atol=0.01)
