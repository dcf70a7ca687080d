"""Class prompts: where the prompt of a class looks in the last block, head by head."""

import dataclasses

import numpy as np

from keras_attn.training import drawing
from keras_attn.training.explain.explanation import Explanation, image_sheet
from keras_attn.training.runs.outputs import outputs_of

measurable = True
OUTPUT = "prompt_attention"
# The predicted class and the runner-up, where no classes are named.
MOST_CLASSES = 2
# Heads in a picture.
MOST_HEADS = 12
NOTE = "Attention of each class's prompt; every map has a scale of its own."


@dataclasses.dataclass(frozen=True)
class PromptExplanation(Explanation):
    """Attention of the prompts in one image.

    Args:
        attention: `(classes, heads, rows, columns)`.
    """

    attention: np.ndarray

    def top(self, count):
        return super().top(min(count, MOST_CLASSES))


def explain(subject, images, titles=None, batch_size=32):
    """See `Explainer.explain`; of a model of `keras_attn.models.prompt_cam`."""
    outputs = outputs_of(subject.model, images, batch_size)
    kept = {name: outputs.get(name) for name in ("logits", "probabilities")}
    probabilities = subject.probabilities_of(**kept)
    return PromptExplanation.of_images(
        subject, images, titles, probabilities, outputs[OUTPUT]
    )


def maps(subject, images, labels, batch_size=32):
    """`(images, classes, height, width)` of labels `(images, classes)`; mean heads."""
    outputs = subject.model.predict(images, batch_size=batch_size, verbose=0)
    means = outputs[OUTPUT].mean(axis=2)
    chosen = np.take_along_axis(means, np.asarray(labels)[:, :, None, None], axis=1)
    size = images.shape[1:3]
    return np.stack([[drawing.upsample(each, *size) for each in row] for row in chosen])


def picture(explanation, labels):
    """One class per row: the mean of its heads, and each of them."""
    heads = min(explanation.attention.shape[1], MOST_HEADS)
    shape = len(labels), heads + 2, explanation.image
    figure, axes = drawing.grid(*shape, gaps=(0, 0.5), margins=(0.2, 1.0))
    figure.suptitle(explanation.decision(), fontsize=12)
    figure.supxlabel(NOTE, fontsize=8)
    for line, label in zip(axes, labels, strict=True):
        drawing.draw_image(line[0], explanation.image)
        line[0].set_title(explanation.caption(label), fontsize=8)
        of_class = explanation.attention[label]
        for number, values in enumerate([of_class.mean(axis=0), *of_class[:heads]]):
            title = f"head {number}" if number else "mean of heads"
            _draw(line[number + 1], explanation, values, title)
    return figure


def sheet(explanations, rows):
    """All images, one per row, with the mean of the heads of their classes."""
    figure, axes = image_sheet(explanations, len(rows[0]) + 1, NOTE)
    for line, explanation, labels in zip(axes, explanations, rows, strict=True):
        for axis, label in zip(line[1:], labels, strict=True):
            mean = explanation.attention[label].mean(axis=0)
            _draw(axis, explanation, mean, explanation.caption(label))
    return figure


def _draw(axis, explanation, values, title):
    drawing.draw_map(axis, explanation.image, values, smooth=False)
    axis.set_title(f"{title}\nup to {100 * values.max():.2g} %", fontsize=8)
