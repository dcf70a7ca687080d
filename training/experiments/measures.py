"""What a comparison reports of a trained run."""

from keras_attn.training.evaluation.evaluate import evaluate_model, score
from keras_attn.training.experiments import features
from keras_attn.training.methods import method_of
from keras_attn.training.trained import load_trained


def accuracy(run, splits):
    """Top-1 accuracy of the last epoch's model, in per cent.

    On the test set, or on the validation set where the split has no test set. The
    last epoch is taken, not the best one on the validation set, which would flatter.

    Returns:
        `(metric, value)`.
    """
    split = held_out(splits)
    method = method_of(run.recipe)
    fed = method.fed_logits(run, *splits[split])
    if fed:
        return f"{split}_accuracy", 100.0 * score(*fed)["accuracy"]
    model = load_trained(run.workdir, "last").judged
    result = evaluate_model(model, *splits[split], batch_size=256)
    return f"{split}_accuracy", 100.0 * result["accuracy"]


def same_class_neighbours(run, splits):
    """How well the features that the last stage receives are sorted by class.

    Returns:
        `(metric, value)`, see
        `keras_attn.training.experiments.features.same_class_neighbours`.
    """
    cells = features.sampled_cells(run, splits[held_out(splits)])
    last = cells[-1]
    value = features.same_class_neighbours(last.features, last.labels, last.images)
    return "same_class_neighbours", value


def held_out(splits):
    """`test`, or `validation` where the split has no test set."""
    return "test" if len(splits["test"][1]) else "validation"


MEASURES = {
    "accuracy": accuracy,
    "same_class_neighbours": same_class_neighbours,
}
