"""The study of retrieval on a run whose descriptors are mean colours."""

import numpy as np
import pytest

from keras_attn.training.data.load import load_data, load_source_of
from keras_attn.training.experiments.studies import retrieval
from tests.training import tiny_models as tiny


def slow_scores(descriptors, labels):
    """Mean average precision (trapezoids) and recall@1, image by image, per cent."""
    precisions, first = [], []
    for query in range(len(labels)):
        others = [i for i in range(len(labels)) if i != query]
        others.sort(key=lambda i: -float(descriptors[i] @ descriptors[query]))
        right = [labels[i] == labels[query] for i in others]
        total, hits, area = sum(right), 0, 0.0
        for rank, is_right in enumerate(right):
            if is_right:
                before = hits / rank if rank else 1.0
                hits += 1
                area += (before + hits / (rank + 1)) / 2 / total
        precisions.append(area)
        first.append(right[0])
    return 100 * np.mean(precisions), 100 * np.mean(first)


def test_scores_are_those_of_ranking_one_image_after_the_other(tmp_path):
    run = tiny.generated_run(tmp_path / "run")
    source = load_source_of(run.recipe)
    lines = retrieval.study({"colours": run}, {"colours": source})
    _, splits = load_data(run.recipe, source=source)
    images, labels = splits["test"]
    assert len(labels) > 5
    # The model pools the normalised images to three numbers: the mean colours.
    means = images.astype("float64").mean(axis=(1, 2)) / 255
    descriptors = means / np.linalg.norm(means, axis=1, keepdims=True)
    wanted = slow_scores(descriptors, labels)
    rows, metrics, values, units = zip(*lines, strict=True)
    assert set(rows) == {"colours"} and set(units) == {"%"}
    assert metrics == ("retrieval_map", "recall_at_1")
    assert values == pytest.approx(wanted, abs=1e-3)
