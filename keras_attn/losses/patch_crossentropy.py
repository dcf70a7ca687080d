"""Cross-entropy of patch logits, and the mixed loss around it."""

from typing import Any

import keras
from keras import ops

from keras_attn._checks import number_in
from keras_attn.ops.labels import image_labels


@keras.saving.register_keras_serializable(package="keras_attn")
class PatchCrossentropy(keras.losses.Loss):
    """Cross-entropy of every region's class scores with the label of its image.

    Class embedding paper, equation 3.1, second term: the mean over the cells of
    `-log softmax(a)_y`. One value per image, so sample weights weight images and the
    reduction is Keras's own; under a strategy it averages as any Keras loss does.

    Args:
        label_smoothing: Share of the label's mass, in [0, 1), that is spread evenly
            over the classes.
        reduction: Reduction of `keras.losses.Loss`.
        name: Name of the loss.
        dtype: Dtype of the computation, float32 by default also under mixed
            precision.

    Call arguments:
        y_true: Integer labels of shape `(batch,)` or `(batch, 1)`, not one-hot.
        y_pred: Scores (not probabilities) of shape `(batch, ..., num_classes)`.

    Raises:
        ValueError: If `label_smoothing` is not in [0, 1); for labels of another shape,
            an empty batch, and labels that are no class. Inside a compiled function
            values are unknown: there such a label costs NaN.

    Example:

    >>> loss = PatchCrossentropy()
    >>> float(loss(np.array([3]), np.zeros((1, 8, 8, 10))))  # log(10)
    2.302585

    Reference: [gorgun2022] arXiv:2210.00992, equation 3.1.
    """

    def __init__(
        self,
        label_smoothing=0.0,
        reduction="sum_over_batch_size",
        name="patch_crossentropy",
        dtype="float32",
    ):
        number_in("label_smoothing", label_smoothing, "[0, 1)")
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        if len(y_pred.shape) < 2:
            raise ValueError(
                "Expected scores of shape (batch, ..., num_classes). "
                f"Received: y_pred.shape={tuple(y_pred.shape)}"
            )
        log_probabilities = ops.log_softmax(y_pred, axis=-1)
        cells = tuple(range(1, len(y_pred.shape) - 1))
        if cells:
            # The label is the image's, so averaging before the lookup is the same.
            log_probabilities = ops.mean(log_probabilities, axis=cells)
        images, classes = log_probabilities.shape
        labels = image_labels("y_true", y_true, images, 0, classes - 1)
        indices = ops.clip(ops.cast(labels, "int32"), 0, classes - 1)
        true_class = ops.squeeze(
            ops.take_along_axis(log_probabilities, indices[:, None], axis=-1), axis=-1
        )
        known = ops.equal(ops.cast(indices, labels.dtype), labels)
        true_class = ops.where(known, true_class, float("nan"))
        smooth = ops.mean(log_probabilities, axis=-1)
        return -(
            (1.0 - self.label_smoothing) * true_class + self.label_smoothing * smooth
        )

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def mixed_patch_loss(patch_loss_weight: float = 0.5) -> dict[str, Any]:
    """Arguments of `compile` for the class-embedding paper's mixed loss.

    Equation 3.1: `(1 - lambda) CE(main) + lambda mean_cells CE(patch)`, per image.
    Written as Keras's own losses and weights per named output, so `fit`, mixed
    precision, strategies and reloading need nothing else. The data yields the label
    for both outputs: `{"logits": labels, "patch_logits": labels}`.

    Args:
        patch_loss_weight: The paper's lambda, in [0, 1].

    Returns:
        A dict with `loss` and `loss_weights`, for a model with the outputs
        `logits` and `patch_logits`.

    Raises:
        ValueError: If `patch_loss_weight` is not in [0, 1].

    Example:

    >>> model.compile("adam", **mixed_patch_loss(0.5))
    >>> model.fit(images, {"logits": labels, "patch_logits": labels})
    """
    number_in("patch_loss_weight", patch_loss_weight, "[0, 1]")
    return {
        "loss": {
            # Keras's own takes some labels that are no class, and costs nothing then.
            "logits": PatchCrossentropy(name="crossentropy"),
            "patch_logits": PatchCrossentropy(),
        },
        "loss_weights": {
            "logits": 1.0 - patch_loss_weight,
            "patch_logits": patch_loss_weight,
        },
    }
