"""Exit policy of fixed thresholds on the confidence."""

import keras

from keras_attn._checks import is_number


@keras.saving.register_keras_serializable(package="keras_attn")
class ExitThresholds:
    """Stops an image at the first exit whose confidence exceeds its threshold.

    Args:
        thresholds: One number in 0..1 for every exit but the last, or one for all.

    Raises:
        ValueError: For numbers outside 0..1.

    Example:

    >>> policy = keras_attn.ExitThresholds([0.8, 0.9])
    >>> model = keras_attn.models.early_exit_classifier(..., policy=policy)
    """

    def __init__(self, thresholds):
        several = isinstance(thresholds, (tuple, list))
        numbers = thresholds if several else [thresholds]
        if not all(is_number(number) and 0 <= number <= 1 for number in numbers):
            raise ValueError(
                "Expected `thresholds` to be a number in 0..1 or a list of them. "
                f"Received: thresholds={thresholds!r}"
            )
        self.thresholds = [float(n) for n in numbers] if several else float(thresholds)

    @property
    def exits(self):
        """Number of exits; `None` where one threshold holds for any number."""
        if isinstance(self.thresholds, list):
            return len(self.thresholds) + 1
        return None

    def stop(self, stage, confidences):
        """Images that stop at an exit other than the last.

        Args:
            stage: Number of the exit, from 0.
            confidences: `(batch, stage + 1)` confidences so far.

        Returns:
            `(batch,)` bool.
        """
        threshold = self.thresholds
        if isinstance(threshold, list):
            threshold = threshold[stage]
        return confidences[:, -1] > threshold

    def get_config(self):
        return {"thresholds": self.thresholds}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def policy_of(thresholds, policy):
    """The policy that is given as thresholds or as such, or `None`.

    Raises:
        ValueError: If both are given.
    """
    if thresholds is None:
        return policy
    if policy is not None:
        raise ValueError(
            "Expected either `thresholds` or `policy`. Received: "
            f"thresholds={thresholds}, policy={policy}"
        )
    return ExitThresholds(thresholds)
