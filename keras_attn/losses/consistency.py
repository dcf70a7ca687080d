"""Consistency loss of warped maps."""

import keras
from keras import ops

from keras_attn._checks import one_of, positive_number
from keras_attn.ops.image_triplets import triplets
from keras_attn.ops.labels import image_labels

# Whole numbers of float32, the dtype of the computation.
LARGEST_LABEL = 2**24 - 1
REDUCTIONS = {"mean": ops.mean, "sum": ops.sum}


@keras.saving.register_keras_serializable(package="keras_attn")
class ConsistencyLoss(keras.losses.Loss):
    """Pulls warped maps of a class together, pushes those of other classes apart.

    Volumetric Transformer Networks, eq. (4), for every image V of the batch, another
    one V' of its class and one V'' of another class:

        sum_i [ |V(i) - V'(i)|^2 - |V(i) - V''(i)|^2 + margin ]_+

    where the squared norm is over all channels at the location i. V' and V'' are the
    next such images in the batch, see `keras_attn.ops.triplets`, so a data set must
    group images by class: batches in random order with several images of each class.
    Under a strategy each device forms triplets of its own part of the batch.

    The paper sums over the locations: equal maps of 14x14 cells then cost 196 margins,
    5,880 for a margin of 30, and outweigh the task's loss. The default is the mean,
    which differs by that factor only.

    Images without one of the two others in the batch are left out of the mean; a batch
    without any triplet costs 0.

    Args:
        margin: The paper's alpha, 20 for VGG and 30 for ResNet; positive.
        locations: `"mean"` or `"sum"` over the locations of an image.
        reduction: Reduction of `keras.losses.Loss`, over the images that have a
            triplet. With `"none"` the others are 0.
        name: Name of the loss.
        dtype: Dtype of the computation, float32 by default also under mixed
            precision.

    Call arguments:
        y_true: Labels of shape `(batch,)` or `(batch, 1)`, integers below 2**24, not
            one-hot. They are compared only, so that -1 is a class as any other.
        y_pred: Warped maps of shape `(batch, height, width, channels)`, or any number
            of axes between the first and the last.

    Raises:
        ValueError: If `margin` is not positive, `locations` unknown, or the maps have
            fewer than two axes; for labels of another shape, an empty batch and, where
            values are known, other numbers.

    Example:

    >>> loss = ConsistencyLoss(margin=30.0)
    >>> float(loss(np.array([0, 1, 0, 1]), np.zeros((4, 14, 14, 8))))
    30.0

    Reference: [kim2020], equation (4).
    """

    def __init__(
        self,
        margin=20.0,
        locations="mean",
        reduction="sum_over_batch_size",
        name="consistency",
        dtype="float32",
    ):
        positive_number("margin", margin)
        one_of("locations", locations, REDUCTIONS)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = margin
        self.locations = locations

    def call(self, y_true, y_pred):
        if len(y_pred.shape) < 2:
            raise ValueError(
                "Expected warped maps of shape (batch, height, width, channels). "
                f"Received: shape {tuple(y_pred.shape)}"
            )
        labels = image_labels(
            "y_true", y_true, y_pred.shape[0], -LARGEST_LABEL, LARGEST_LABEL
        )
        positive, negative, valid = triplets(labels)

        def distances(others):
            difference = y_pred - ops.take(y_pred, others, axis=0)
            return ops.sum(ops.square(difference), axis=-1)

        excess = ops.relu(distances(positive) - distances(negative) + self.margin)
        excess = ops.reshape(excess, (ops.shape(y_pred)[0], -1))
        values = REDUCTIONS[self.locations](excess, axis=-1)
        values = ops.where(valid, values, ops.zeros_like(values))
        if self.reduction in (None, "none", "sum"):
            return values
        # Keras divides by the size of the batch.
        valid = ops.cast(valid, values.dtype)
        return values / ops.maximum(ops.mean(valid), keras.config.epsilon())

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "locations": self.locations,
        }
