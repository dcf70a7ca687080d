"""Many passes of a network, several versions of the images in each."""

from keras import ops

from keras_attn.explain.feature_maps import slope_of
from keras_attn.explain.gradients import compiled

# Images in one pass, forward alone and with slopes, whose maps are all in memory.
SCORED, SLOPED = 32, 8
# Passes of the same shape from which on compiling takes less time than it saves.
WORTH_COMPILING = 4


def versions_in_one(total, parts, images):
    """Number of versions of the images in one pass, a divisor of their total number.

    Args:
        total: Their number.
        parts: `Split`; where other inputs reach the scores there is one in a pass.
        images: Images in a pass, at most, unless one version has more.
    """
    most = max(1, images // parts.features.shape[0]) if parts.is_alone else 1
    return max(count for count in range(1, min(most, total) + 1) if total % count == 0)


def compiled_if_worth(function, passes, model):
    """The function, compiled for many passes of a model that need not run eagerly."""
    if passes < WORTH_COMPILING or model.run_eagerly:
        return function
    return compiled(function)


def scores_of(functions, logits, count):
    """`(count, batch, maps)` of the logits of several versions of the images.

    Args:
        functions: One per map, see `Objectives`.
        logits: `(count * batch, ...)`, one version after the other.
        count: Number of versions.
    """
    logits = ops.cast(logits, "float32")
    batch = logits.shape[0] // count
    parts = [logits[each * batch : (each + 1) * batch] for each in range(count)]
    scores = [ops.stack([each(part) for each in functions], axis=-1) for part in parts]
    return ops.stack(scores)


def summed_slopes(asked, parts, objective, versions, total, progress=None):
    """Sum over versions of the features of the slope of every map's score.

    Args:
        asked, parts, objective: `Asked`, its `Split` and `Objectives`.
        versions: Function from the first version and the end to features `(versions,
            batch, ...)`, called in order.
        total: Number of versions.
        progress: See `integrated_gradients`.

    Returns:
        For every map a float32 tensor of the features' shape.
    """
    functions, shape = objective.functions, tuple(parts.features.shape)
    count = versions_in_one(total, parts, SLOPED)

    def slope(features, index):
        def score(logits):
            return ops.take(scores_of(functions, logits, count), index, axis=-1)

        found = slope_of(parts, score, ops.reshape(features, (-1, *shape[1:])))
        return ops.sum(ops.reshape(found, (count, *shape)), axis=0)

    # Functions of others, and sizes of slopes in float16, may need values.
    if objective.labels is not None and not parts.is_half:
        passes = total // count * len(functions)
        slope = compiled_if_worth(slope, passes, asked.model)
    sums = [0.0] * len(functions)
    for start in range(0, total, count):
        features = ops.cast(versions(start, start + count), parts.features.dtype)
        for index in range(len(functions)):
            sums[index] += slope(features, ops.convert_to_tensor(index, "int32"))
        if progress is not None:
            progress((start + count) * shape[0], total * shape[0])
    return sums
