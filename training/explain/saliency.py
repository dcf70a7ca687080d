"""Grad-CAM and similar methods drawn over images, for models of any kind."""

import dataclasses
import functools
import warnings

import keras
import numpy as np

from keras_attn import explain
from keras_attn.pipelines.progress import counted
from keras_attn.training import drawing
from keras_attn.training.explain.explanation import Explanation, image_sheet
from keras_attn.training.explain.names import IN_PASSES, ON_A_LAYER, TITLES
from keras_attn.training.runs.outputs import top_classes

# Images at a time; features and slopes of all their cells are in memory.
BATCH = 8
SCALE = "share of the map's range"
ALL_CLASSES = "all classes"


@dataclasses.dataclass(frozen=True)
class MapExplanation(Explanation):
    """Maps of one image by one method.

    Args:
        maps: Dict from label to `(H, W)` in 0..1; from `None` if the map is the same
            for all classes.
    """

    maps: dict

    def panels(self, labels):
        """List of (caption, map)."""
        if None in self.maps:
            panels = [(ALL_CLASSES, self.maps[None])]
        else:
            panels = [(self.caption(label), self.maps[label]) for label in labels]
        return [
            (caption if values.any() else f"{caption}, constant map", values)
            for caption, values in panels
        ]


@dataclasses.dataclass(frozen=True)
class Saliency:
    """Explainer by one method, for any model.

    Args:
        method: Key of `keras_attn.training.explain.names.TITLES`.
        layer: Name of a layer, for methods `ON_A_LAYER`; `None`: that of
            `keras_attn.explain.last_map`.
        labels: Classes to draw; `None`: the most probable.
        count: Number of the most probable classes.
    """

    measurable = True

    method: str
    layer: str | None = None
    labels: list | None = None
    count: int = 3

    def explain(self, subject, images, titles=None):
        """List of `MapExplanation`."""
        probabilities = subject.probabilities(images)
        if self.labels is None:
            labels = top_classes(probabilities, self.count)
        else:
            labels = np.tile(self.labels, (len(images), 1))
        maps = self.maps(subject, images, labels)
        by_label = [
            {None: row[0]}
            if self.method == "rollout"
            else dict(zip(chosen.tolist(), row, strict=True))
            for chosen, row in zip(labels, maps, strict=True)
        ]
        return MapExplanation.of_images(
            subject, images, titles, probabilities, by_label
        )

    def maps(self, subject, images, labels):
        """`(images, classes, height, width)` in 0..1 of labels `(images, classes)`."""
        function = FUNCTIONS.get(self.method) or getattr(explain, self.method)
        if self.method in ON_A_LAYER:
            function = functools.partial(function, layer=self.layer)
        parts = []
        show = counted("Evaluated", BATCH)
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            inputs = np.asarray(images[part])
            if self.method in IN_PASSES:
                function = functools.partial(
                    function, progress=_of_all(show, start, len(inputs), len(images))
                )
            with warnings.catch_warnings():
                # Captions and metrics name constant maps.
                warnings.filterwarnings("ignore", ".* maps are constant")
                labels_of_part = np.asarray(labels[part], "int32")
                found = function(subject.model, inputs, labels=labels_of_part)
            parts.append(keras.ops.convert_to_numpy(found))
        return np.concatenate(parts)

    def picture(self, explanation, labels):
        """The image, and one map per class."""
        panels, image = explanation.panels(labels), explanation.image
        figure, (axes,) = drawing.grid(1, len(panels) + 1, image, margins=(1.2, 1.2))
        figure.suptitle(f"{explanation.decision()}\n{TITLES[self.method]}", fontsize=11)
        drawing.draw_image(axes[0], image)
        axes[0].set_title("image", fontsize=9)
        _draw_panels(figure, axes[1:], explanation, panels, 9)
        return figure

    def sheet(self, explanations, rows):
        """All images, one per row, with their maps."""
        panels = [
            explanation.panels(labels)
            for explanation, labels in zip(explanations, rows, strict=True)
        ]
        figure, axes = image_sheet(explanations, len(panels[0]) + 1)
        for line, explanation, each in zip(axes, explanations, panels, strict=True):
            _draw_panels(figure, line[1:], explanation, each, 8)
        return figure


def _draw_panels(figure, axes, explanation, panels, size):
    for axis, (caption, values) in zip(axes, panels, strict=True):
        drawing.draw_map(axis, explanation.image, values, (0, 1))
        axis.set_title(caption, fontsize=size)
    drawing.colour_bar(figure, axes[-1], SCALE)


def _of_all(show, start, count, images):
    """From the passes of some images, `start` before them, to those of all images."""

    def progress(done, total):
        each = total // count
        show(start * each + done, images * each)

    return progress


def _rollout(model, inputs, labels):
    maps = keras.ops.convert_to_numpy(explain.attention_rollout(model, inputs))
    return np.repeat(maps[:, None], labels.shape[1], axis=1)


# Methods whose function in `keras_attn.explain` has another name or other arguments.
FUNCTIONS = {
    "cam": explain.class_activation_map,
    "finer_cam": functools.partial(explain.grad_cam, against="nearest"),
    "rollout": _rollout,
}
