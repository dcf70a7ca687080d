"""Masks of a network's shortcuts: the attention map, its heads, and learned masks.

Convention: maps are `(height, width, channels)`, rows from the top; a cell is drawn
over its region of the image, see `keras_attn.training.drawing`. Masks lie in [0, 1]:
where one is 0, nothing of the masked branch passes (at full strength), where it is 1
everything.
"""

import dataclasses

import keras
import numpy as np

from keras_attn.layers.attention_map import AttentionMap
from keras_attn.pipelines.attention_maps.compute import fitted
from keras_attn.training.drawing import (
    colour_bar,
    draw_image,
    draw_map,
    grid,
    upsample,
)
from keras_attn.training.explain.explanation import (
    Explanation,
    draw_probabilities,
    image_sheet,
)
from keras_attn.training.runs.outputs import outputs_of, softmax

measurable = False
# Of deep networks not every block is drawn, but those spread evenly to the last one.
BLOCKS_SHOWN = 6
NOTE = (
    "Maps of heads have a scale each;\nmasks are means over channels, on one scale, "
    "their single channels on 0 to 1;\nr: correlation of the mean mask with the map."
)


@dataclasses.dataclass(frozen=True)
class MaskExplanation(Explanation):
    """Attention map and masks of a network for one image.

    Args:
        attention: `(h, w)`, the map that the attention branch gets, in [0, 1], or
            `None` where there is none.
        heads: `(h, w, heads)`, the attention that it was made from, or `None`.
        masks: List of `(h, w, channels)`, one per block, in [0, 1].
    """

    attention: np.ndarray | None
    heads: np.ndarray | None
    masks: list

    def correlation(self, block):
        """Correlation of a block's mean mask with the map; `None` if one is flat."""
        if self.attention is None:
            return None
        mask = self.masks[block].mean(axis=-1)
        size = np.maximum(mask.shape, self.attention.shape)
        maps = [upsample(each, *size).ravel() for each in (mask, self.attention)]
        if min(each.std() for each in maps) < 1e-6:
            return None
        return float(np.corrcoef(*maps)[0, 1])

    def head_count(self):
        """Number of heads whose attention is known."""
        return 0 if self.heads is None else self.heads.shape[-1]

    def shown(self):
        """The blocks to draw."""
        count = len(self.masks)
        places = np.linspace(1, count, min(count, BLOCKS_SHOWN)).round().astype(int)
        return (places - 1).tolist()


def explain(subject, images, titles=None, batch_size=32):
    """See `Explainer.explain`; of a network with attention-masked residuals.

    From images alone to `logits`, `mask_1`, `mask_2`, ... and optionally
    `attention_map`, as its method's `serving_model` returns it.
    """
    model = subject.model
    if "mask_1" not in model.output or len(model.inputs) > 1:
        raise ValueError(
            "Expected a model from images alone with outputs 'mask_1', ..., which "
            "method attention_masked_residual gives. "
            f"Received: {model.name!r} with {len(model.inputs)} inputs and the outputs "
            f"{list(model.output)}"
        )
    outputs = outputs_of(model, images, batch_size)
    nothing = [None] * len(images)
    blocks = sum(name.startswith("mask_") for name in outputs)
    masks = [outputs[f"mask_{block}"] for block in range(1, blocks + 1)]
    attention = nothing
    if "attention_map" in outputs:
        attention = outputs["attention_map"][..., 0]
    heads = _heads(model, images, batch_size)
    return MaskExplanation.of_images(
        subject,
        images,
        titles,
        softmax(outputs["logits"]),
        attention,
        nothing if heads is None else heads,
        zip(*masks, strict=True),
    )


def _heads(model, images, batch_size):
    """`(images, h, w, heads)`, float32, or `None` without a map's generator."""
    generator = head_model(model)
    if generator is None:
        return None
    size = generator.input_shape[1:3]
    # As the model does it that the generator is a part of.
    seen = np.asarray(images) if None in size else np.asarray(fitted(images, size))
    return np.asarray(generator.predict(seen, batch_size, verbose=0), "float32")


def head_model(model):
    """The model from images to the attention of all heads, or `None` without any."""
    for nested in model.layers:
        if not isinstance(nested, keras.Model):
            continue
        for layer in nested.layers:
            if isinstance(layer, AttentionMap):
                return keras.Model(
                    nested.inputs[0], AttentionMap(heads=layer.heads)(layer.input)
                )
    return None


# ---- pictures ----------------------------------------------------------------------


def picture(explanation, labels):
    """The image, its map, the classes; the heads; the masks, and a channel of each."""
    blocks, head_count = explanation.shown(), explanation.head_count()
    columns = max(3, len(blocks), min(head_count, BLOCKS_SHOWN))
    head_rows = -(-head_count // columns)
    rows = 3 + head_rows
    figure, axes = grid(rows, columns, explanation.image, 0.8, (0.2, 0.4))
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle(explanation.decision(), fontsize=12)
    figure.supxlabel(NOTE, fontsize=8)
    draw_image(axes[0, 0], explanation.image)
    _draw_attention(axes[0, 1], explanation)
    draw_probabilities(axes[0, 2], explanation, labels)
    for head, axis in zip(
        range(head_count), axes[1 : 1 + head_rows].flat, strict=False
    ):
        _draw_head(axis, explanation, head)
    limits = mask_limits([explanation])
    for block, axis, below in zip(blocks, axes[-2], axes[-1], strict=False):
        mask = explanation.masks[block]
        _draw_mask(axis, explanation, block, limits)
        channel = int(mask.std(axis=(0, 1)).argmax())
        values = mask[..., channel]
        draw_map(below, explanation.image, values, (0, 1), smooth=False, opacity=1.0)
        below.set_title(f"its channel {channel + 1}, highest variance", fontsize=8)
    colour_bar(figure, axes[-2, len(blocks) - 1])
    return figure


def sheet(explanations, rows, heads=False):
    """All images, one per row: the first class, the map, and the masks of the blocks.

    Args:
        explanations, rows: See `keras_attn.training.explain.protocol.Explainer`.
        heads: Whether to draw the maps of the first heads too, before their mean.
    """
    blocks = explanations[0].shown()
    heads = range(explanations[0].head_count() if heads else 0)[:BLOCKS_SHOWN]
    figure, axes = image_sheet(explanations, 2 + len(heads) + len(blocks), NOTE)
    limits = mask_limits(explanations)
    for line, explanation, labels in zip(axes, explanations, rows, strict=True):
        line[0].set_title(explanation.heading(labels[0]), fontsize=8)
        for axis, head in zip(line[1:], heads, strict=False):
            _draw_head(axis, explanation, head)
        line[1 + len(heads)].set_axis_off()
        _draw_attention(line[1 + len(heads)], explanation)
        for axis, block in zip(line[2 + len(heads) :], blocks, strict=True):
            _draw_mask(axis, explanation, block, limits)
        colour_bar(figure, line[-1])
    return figure


def _draw_head(axis, explanation, head):
    draw_map(axis, explanation.image, explanation.heads[..., head], smooth=False)
    axis.set_title(f"head {head + 1}", fontsize=9)


def _draw_attention(axis, explanation):
    if explanation.attention is None:
        axis.set_title("no attention map", fontsize=9)
        return
    draw_map(axis, explanation.image, explanation.attention, (0, 1), smooth=False)
    axis.set_title("attention map", fontsize=9)


def mask_limits(explanations):
    """Ends of a colour scale that fits the mean masks of all blocks drawn."""
    means = [
        each.masks[block].mean(axis=-1)
        for each in explanations
        for block in each.shown()
    ]
    return min(mean.min() for mean in means), max(mean.max() for mean in means)


def _draw_mask(axis, explanation, block, limits):
    """The mean over a mask's channels."""
    mask = explanation.masks[block].mean(axis=-1)
    # By itself: a flat mask over an image would look as if it followed the image.
    draw_map(axis, explanation.image, mask, limits, smooth=False, opacity=1.0)
    correlation = explanation.correlation(block)
    text = "" if correlation is None else f", r = {correlation:.2f}"
    axis.set_title(f"mask {block + 1}: mean {mask.mean():.2f}{text}", fontsize=8)
