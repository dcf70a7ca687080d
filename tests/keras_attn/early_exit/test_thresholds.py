import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.early_exit.thresholds import ExitThresholds, policy_of
from tests.harness import to_numpy


def test_stops_where_the_confidence_exceeds_the_threshold():
    confidences = ops.convert_to_tensor([[0.9, 0.6], [0.95, 0.4]])
    several, one = ExitThresholds([0.9, 0.5]), ExitThresholds(0.59)
    assert (several.exits, one.exits) == (3, None)
    for policy, wanted in (
        (several, [[False, True], [True, False]]),
        (one, [[True, True], [True, False]]),
    ):
        for stage in range(2):
            found = to_numpy(policy.stop(stage, confidences[:, : stage + 1]))
            np.testing.assert_array_equal(found, wanted[stage])


def test_is_saved_with_a_model():
    policy = ExitThresholds([0.9, 0.5])
    config = keras.saving.serialize_keras_object(policy)
    revived = keras.saving.deserialize_keras_object(config)
    assert revived.thresholds == [0.9, 0.5]


@pytest.mark.parametrize("thresholds", [1.1, [0.5, -0.1], "0.5", [True]])
def test_refuses_what_is_not_in_0_to_1(thresholds):
    with pytest.raises(ValueError, match="number in 0..1 or a list.*Received"):
        ExitThresholds(thresholds)


def test_either_thresholds_or_a_policy():
    policy = ExitThresholds(0.5)
    assert policy_of(None, policy) is policy and policy_of(None, None) is None
    assert policy_of(0.4, None).thresholds == 0.4
    with pytest.raises(ValueError, match="either `thresholds` or `policy`"):
        policy_of(0.4, policy)
