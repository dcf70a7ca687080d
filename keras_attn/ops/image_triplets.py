"""Triplets of the images of a batch: an anchor, a mate and a stranger."""

from keras import ops

from keras_attn._checks import check_shape


def triplets(labels):
    """For every image of a batch, one of its class and one of another class.

    Volumetric Transformer Networks, eq. (4): the instances V' and V'' that an anchor V
    is compared with. The positive is the next image of the anchor's class in the
    batch, the negative the next one of any other class; after the last image comes the
    first. Nothing is drawn here: where the batch is in random order, these are random
    images, and the same batch always gives the same triplets.

    Args:
        labels: Tensor of shape `(batch,)`, any dtype that can be compared.

    Returns:
        `(positive, negative, valid)`, each of shape `(batch,)`: int32 indices into the
        batch, and whether the batch has both. An index that there is none for is the
        anchor's own.

    Raises:
        ValueError: If `labels` is not 1-dimensional.

    Example:

    >>> positive, negative, valid = triplets(np.array([5, 7, 5, 9]))
    >>> positive, negative, valid
    ([2, 1, 0, 3], [1, 2, 3, 0], [True, False, True, False])
    """
    labels = ops.convert_to_tensor(labels)
    check_shape("labels", labels, "(batch,)")
    count = ops.shape(labels)[0]
    steps = ops.arange(count, dtype="int32")
    # Row i lists the images from i on, itself first.
    following = ops.mod(steps[:, None] + steps, count)
    same = ops.equal(ops.take(labels, following, axis=0), labels[:, None])
    mates = ops.logical_and(same, steps > 0)
    strangers = ops.logical_not(same)

    def first(found):
        # No match: argmax is 0, the anchor itself.
        step = ops.argmax(ops.cast(found, "int32"), axis=1)
        return ops.mod(steps + ops.cast(step, "int32"), count)

    valid = ops.logical_and(ops.any(mates, axis=1), ops.any(strangers, axis=1))
    return first(mates), first(strangers), valid
