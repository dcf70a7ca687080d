import numpy as np
import pytest

from keras_attn.layers import BranchDecision
from tests.harness import check_layer, run


def test_keeps_the_promises_of_a_layer():
    check_layer(
        BranchDecision,
        {},
        [(2, 5), (2, 5), (2, 5)],
        other_shapes=[[(3, 7), (3, 7)]],
        expected_num_trainable_weights=0,
    )


@pytest.mark.parametrize(
    "logits, chosen",
    [
        # Two agree on class 0, against a more confident third; the surer of the two.
        ([[1, 0, 0], [2, 0, 0], [0, 9, 0]], 1),
        # All differ: the most confident.
        ([[1, 0, 0], [0, 2, 0], [0, 0, 3]], 2),
        # Equally sure: the smallest patches.
        ([[2, 0, 0], [2, 0, 0], [0, 1, 0]], 0),
    ],
)
def test_returns_the_logits_of_the_deciding_branch(logits, chosen):
    branches = [np.array([row], "float32") for row in logits]
    np.testing.assert_array_equal(run(BranchDecision(), branches), branches[chosen])
