"""LeGrad: the slopes of a class's score at the attention of every block."""

from typing import Literal

import keras
from keras import ops

from keras_attn.explain.attention_rollout import grid_for
from keras_attn.explain.attention_slopes import AttentionSlopes
from keras_attn.explain.feature_maps import Asked, DataFormat
from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.targets import Target


def legrad(
    model: keras.Model,
    images,
    labels=None,
    raw: bool = False,
    grid: tuple[int, int] | None = None,
    output: str | int | None = None,
    image_input: str | int | None = None,
    data_format: DataFormat | None = None,
    target: Target | None = None,
    against: Literal["nearest"] | int | list[int] | None = None,
):
    """Map of the patches whose attention raises a class's score, over all blocks.

    Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via
    Feature Formation Sensitivity", section 3. With the attention `A_l` of block `l`,
    and the logit `y_l` that the end of the model gives to the tokens of that block:

    - `E_l = mean over heads and queries of ReLU(dy_l / dA_l)`, for every key,
    - `map = sum over l of E_l`, of the patches alone.

    The end is the model's own, whether it reads the class token or pools the tokens.
    Later blocks are left out for `y_l`. Where blocks are no layers of their own, as in
    a graph of single operations, `y_l` is the logit of the whole model.

    Args:
        model: Functional or `Sequential` model with attention as `attention_maps` finds
            it, also inside its layers. All blocks attend among the same tokens.
        images, labels, raw, output, image_input, data_format, target, against: See
            `grad_cam`.
        grid: See `attention_maps`.

    Returns:
        float32 tensor, see `grad_cam`; raw maps have one cell per patch.

    Raises:
        ValueError: See `grad_cam` and `attention_rollout`.

    Example:

    >>> model = keras_attn.models.vit("mini", 16, (64, 96, 3), num_classes=5)
    >>> images = keras.random.normal((2, 64, 96, 3))
    >>> legrad(model, images, labels=[0, 3]).shape
    (2, 64, 96)

    Reference: [bousselham2024] arXiv:2404.03214.
    """
    given = None, labels, raw, output, image_input, data_format, target, against
    asked = Asked(model, images, *given)
    calls = AttentionSlopes(asked)
    first = calls.attentions[0]
    rows, columns = grid_for(first, calls.size, grid)
    runs = _runs(calls)
    maps = []
    for function in calls.objective.functions:
        total = ops.zeros((len(calls.images), first.shape[-1]))
        for number, watch in runs:
            shape = calls.attentions[0].shape
            (slope,) = calls.slopes(function, {number: shape}, **watch)
            total += ops.mean(ops.relu(slope), axis=(1, 2))
        patches = total[:, -rows * columns :]
        maps.append(ops.reshape(patches, (-1, rows, columns)))
    maps = ops.stack(maps, axis=-1)
    return asked.finish(maps, calls.objective, calls.images)


def _runs(calls):
    """For each block the number of its attention in a call, and how to watch that."""
    blocks = _blocks(calls)
    if blocks is None:
        return [(number, {}) for number in range(len(calls.attentions))]
    tokens = {}

    def keep(path, given, result):
        if path in blocks:
            tokens[path] = result

    with no_gradients():
        calls.logits(lambda number, found: None, on_layer=keep)

    def alone(index):
        # Earlier blocks give what they gave, later ones pass their tokens on.
        def instead(path, given, named):
            if path not in blocks or blocks.index(path) == index:
                return None
            return tokens[path] if blocks.index(path) < index else given[0]

        return {"instead": instead}

    return [(0, alone(index)) for index in range(len(blocks))]


def _blocks(calls):
    """Paths of the layers around each attention, or `None` where there are no such.

    A block is the outermost layer from tokens to tokens of the same shape that has one
    attention inside, in a layer of its own.
    """
    paths = [each.path for each in calls.attentions]
    tokens, last = {}, calls.attentions[0].shape[-1]

    def on_layer(path, given, result):
        shape = tuple(getattr(result, "shape", ()))
        if len(shape) == 3 and given and tuple(given[0].shape) == shape:
            tokens[path] = shape[1] == last

    with no_gradients():
        calls.logits(lambda number, found: None, on_layer=on_layer)
    blocks = []
    for path in paths:
        parts = path.split("/")
        around = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        around = [
            each
            for each in around
            if tokens.get(each)
            and sum(f"{other}/".startswith(f"{each}/") for other in paths) == 1
        ]
        if len(around) < 2:
            return None
        blocks.append(around[0])
    return blocks if len(set(blocks)) == len(blocks) else None
