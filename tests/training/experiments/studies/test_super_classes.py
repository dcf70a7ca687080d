import types

import numpy as np
import pytest

from keras_attn.training.experiments.studies.super_classes import accuracies, study


def test_counts_by_hand():
    correct = np.array([True, False, True, True, False])
    groups = np.array(["Aves", "Aves", "Fungi", "Aves", "Fungi"])
    found = accuracies(correct, groups)
    assert list(found) == ["Aves", "Fungi", "Total"]
    assert found["Aves"] == pytest.approx(200 / 3)
    assert found["Fungi"] == pytest.approx(50)
    assert found["Total"] == pytest.approx(60)


def test_data_without_super_classes_are_refused():
    source = types.SimpleNamespace(name="generated", annotations={})
    with pytest.raises(ValueError, match="'super_class' known. Received: generated"):
        list(study({"none": None}, {"none": source}))
