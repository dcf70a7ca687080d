"""Grad-CAM and its kin drawn over images, for models of any kind."""

import dataclasses

import keras
import numpy as np

from keras_attn import explain
from keras_attn.training.drawing import (
    colour_bar,
    draw_image,
    draw_map,
    new_figure,
    panel_inches,
    upsample,
    wrap,
)
from keras_attn.training.explain.explanation import Explanation
from keras_attn.training.runs.outputs import softmax

TITLES = {
    "auto": "class maps",
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "cam": "CAM",
    "rollout": "attention rollout",
    "occlusion": "occlusion",
}
METHODS = tuple(TITLES)
# Images at a time; features and slopes of all their cells are in memory.
BATCH = 8
SCALE = "share of the map's range"
ALL_CLASSES = "all classes"


@dataclasses.dataclass(frozen=True)
class MapExplanation(Explanation):
    """Maps of one image by one method.

    Args:
        image: `(H, W, 3)` 8-bit pixels, as the model gets them.
        probabilities: `(classes,)`.
        maps: Dict from label to `(H, W)` in 0..1; from `None` if the map is the same
            for all classes.
        class_names: One name a class.
        title: What the image is called.
        method: Key of `TITLES`.
    """

    image: np.ndarray
    probabilities: np.ndarray
    maps: dict
    class_names: tuple
    title: str
    method: str

    def panels(self, labels):
        """List of (caption, map)."""
        if None in self.maps:
            return [(ALL_CLASSES, self.maps[None])]
        return [
            (
                f"{wrap(self.class_names[label])}\n"
                f"{100 * self.probabilities[label]:.1f} %",
                self.maps[label],
            )
            for label in labels
        ]


@dataclasses.dataclass(frozen=True)
class MethodExplainer:
    """Explains and draws by one method, as the modules of `explainer_of` do.

    Args:
        subject: `ExplainedModel`.
        method: One of `METHODS`.
        layer: Name of a layer, for Grad-CAM and Grad-CAM++; `None`: that of
            `keras_attn.explain.last_map`.
        labels: Classes to draw; `None`: the most probable.
        count: How many of those.
    """

    subject: object
    method: str
    layer: str | None = None
    labels: list | None = None
    count: int = 3

    def explain_images(self, model, images, class_names, titles):
        """List of `MapExplanation`."""
        probabilities = self.subject.probabilities(images)
        if self.labels is None:
            order = np.argsort(-probabilities, axis=1, kind="stable")
            labels = order[:, : self.count]
        else:
            labels = np.tile(self.labels, (len(images), 1))
        maps = self.maps(model, images, labels)
        return [
            MapExplanation(
                image,
                row,
                {None: each[0]}
                if self.method == "rollout"
                else dict(zip(chosen.tolist(), each, strict=True)),
                tuple(class_names),
                title,
                self.method,
            )
            for image, row, chosen, each, title in zip(
                np.asarray(images), probabilities, labels, maps, titles, strict=True
            )
        ]

    def maps(self, model, images, labels):
        """`(images, classes, H, W)` in 0..1 of labels `(images, classes)`."""
        function = {
            "auto": self._class_maps,
            "grad_cam": self._grad_cam,
            "grad_cam_plus_plus": self._grad_cam_plus_plus,
            "cam": _cam,
            "rollout": _rollout,
            "occlusion": _occlusion,
        }[self.method]
        parts = []
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            inputs = self.subject.inputs(np.asarray(images[part]))
            found = function(model, inputs, np.asarray(labels[part], "int32"))
            parts.append(keras.ops.convert_to_numpy(found))
        return np.concatenate(parts)

    def _grad_cam(self, model, inputs, labels):
        return explain.grad_cam(model, inputs, self.layer, labels)

    def _grad_cam_plus_plus(self, model, inputs, labels):
        return explain.grad_cam_plus_plus(model, inputs, self.layer, labels)

    def _class_maps(self, model, inputs, labels):
        cells = softmax(model.predict_on_batch(inputs)["patch_logits"])
        cells = np.moveaxis(cells, -1, 1)
        chosen = np.take_along_axis(cells, labels[:, :, None, None], axis=1)
        size = inputs.shape[1:3]
        return np.stack([[upsample(cell, *size) for cell in row] for row in chosen])

    def picture(self, explanation, labels):
        """The image, and one map a class.

        Args:
            explanation: `MapExplanation`.
            labels: Classes to draw, in this order.

        Returns:
            A matplotlib `Figure`.
        """
        panels = explanation.panels(labels)
        width, height = panel_inches(explanation.image)
        figure = new_figure(((len(panels) + 1) * width + 1.2, height + 1.2))
        axes = figure.subplots(1, len(panels) + 1, squeeze=False)[0]
        figure.suptitle(f"{explanation.decision()}\n{TITLES[self.method]}", fontsize=11)
        draw_image(axes[0], explanation.image)
        axes[0].set_title("image", fontsize=9)
        _draw_panels(figure, axes[1:], explanation, panels, 9)
        return figure

    def sheet(self, explanations, rows):
        """All images, one a row, with their maps.

        Args:
            explanations: List of `MapExplanation`.
            rows: For each the labels of the classes to draw, equally many.

        Returns:
            A matplotlib `Figure`.
        """
        width, height = panel_inches(explanations[0].image)
        columns = len(explanations[0].panels(rows[0])) + 1
        figure = new_figure(
            (0.7 * columns * width + 1.2, len(rows) * (0.7 * height + 0.75))
        )
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for line, explanation, labels in zip(axes, explanations, rows, strict=True):
            draw_image(line[0], explanation.image)
            line[0].set_title(wrap(explanation.title), fontsize=8)
            _draw_panels(figure, line[1:], explanation, explanation.panels(labels), 8)
        return figure


def _draw_panels(figure, axes, explanation, panels, size):
    for axis, (caption, values) in zip(axes, panels, strict=True):
        drawn = draw_map(axis, explanation.image, values, 1.0)
        axis.set_title(caption, fontsize=size)
    colour_bar(figure, drawn, axes[-1], SCALE)


def _cam(model, inputs, labels):
    return explain.class_activation_map(model, inputs, labels)


def _rollout(model, inputs, labels):
    maps = keras.ops.convert_to_numpy(explain.attention_rollout(model, inputs))
    return np.repeat(maps[:, None], labels.shape[1], axis=1)


def _occlusion(model, inputs, labels):
    return explain.occlusion(model, inputs, labels)
