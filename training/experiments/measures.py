"""Measures of a trained run, by name."""

from keras_attn.training.evaluation.evaluate import evaluate_model, score
from keras_attn.training.experiments import features
from keras_attn.training.experiments.protocol import Value
from keras_attn.training.methods import method_of
from keras_attn.training.trained import load_trained


def accuracy(run, splits):
    """Top-1 accuracy of the last epoch's model, in per cent; a `Measure`.

    On the test set, or on the validation set where the split has no test set. The last
    epoch is taken, not the best one on the validation set, which would flatter.
    """
    split = held_out(splits)
    method = method_of(run.recipe)
    fed = method.fed_logits(run, *splits[split])
    if fed:
        return Value(f"{split}_accuracy", 100.0 * score(*fed)["accuracy"])
    model = load_trained(run.workdir, "last").judged
    result = evaluate_model(model, *splits[split], batch_size=256)
    return Value(f"{split}_accuracy", 100.0 * result["accuracy"])


def same_class_neighbours(run, splits):
    """Share of same-class neighbours among the features before the last stage."""
    cells = features.sampled_cells(run, splits[held_out(splits)])
    last = cells[-1]
    value = features.same_class_neighbours(last.features, last.labels, last.images)
    return Value("same_class_neighbours", value)


def held_out(splits):
    """The name of the split that judges: `test`, else `validation`.

    Splits are a dict from names to `(images, labels)`, or to indices.
    """
    test = splits["test"]
    labels = test[1] if isinstance(test, tuple) else test
    return "test" if len(labels) else "validation"


MEASURES = {
    "accuracy": accuracy,
    "same_class_neighbours": same_class_neighbours,
}
