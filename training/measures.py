"""What a comparison reports of a trained run."""

import numpy as np


def accuracy(run, splits):
    """Top-1 accuracy of the last epoch's model, in per cent.

    On the test set, or on the validation set where the split has no test set. The
    last epoch is taken, not the best one on the validation set, which would flatter.

    Returns:
        `(metric, value)`.
    """
    split = "test" if len(splits["test"][1]) else "validation"
    images, labels = splits[split]
    logits = run.load_model("last").predict(images, batch_size=256, verbose=0)
    correct = np.argmax(logits["logits"], axis=-1) == labels
    return f"{split}_accuracy", 100.0 * float(np.mean(correct))


MEASURES = {"accuracy": accuracy}
