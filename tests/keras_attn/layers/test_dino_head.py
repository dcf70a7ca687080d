import math

import keras
import numpy as np
import pytest

from keras_attn.graph.costs import multiply_adds
from keras_attn.layers import DinoHead
from tests.harness import check_layer, example, randomize, run, to_numpy

ARGUMENTS = {
    "units": 13,
    "hidden_units": 7,
    "bottleneck_units": 5,
    "hidden_layers": 1,
    "learn_gain": True,
    "batch_normalization": True,
}
ON_TENSORFLOW = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="numbers of weights and of products are the same on all backends",
)


def test_keeps_the_promises_of_a_layer():
    check_layer(
        DinoHead,
        ARGUMENTS,
        (2, 3),
        other_shapes=[(2, 5, 3)],
        supports_masking=True,
        expected_num_trainable_weights=8,
        expected_num_non_trainable_weights=2,
    )


@ON_TENSORFLOW
def test_the_published_size():
    head = DinoHead()
    head.build((None, 768))
    assert head.count_params() == 23_138_560


@ON_TENSORFLOW
def test_multiply_adds_are_counted():
    inputs = keras.Input((5,))
    small = keras.Model(inputs, DinoHead(11, 7, 3)(inputs))
    assert multiply_adds(small) == 5 * 7 + 7 * 7 + 7 * 3 + 3 * 11


def test_equals_the_numpy_version():
    head = DinoHead(13, 7, 5)
    inputs = example((2, 3))
    head(inputs)
    randomize(head)
    hidden = to_numpy(inputs).astype("float64")
    directions, gain, *dense = [to_numpy(weight) for weight in head.weights]
    for number, (kernel, bias) in enumerate(zip(dense[::2], dense[1::2], strict=True)):
        hidden = hidden @ kernel + bias
        if number < 2:
            erf = np.vectorize(math.erf)(hidden / math.sqrt(2))
            hidden = hidden * (1 + erf) / 2
    hidden /= np.linalg.norm(hidden, axis=-1, keepdims=True)
    wanted = hidden @ (gain * directions / np.linalg.norm(directions, axis=0))
    np.testing.assert_allclose(run(head, inputs), wanted, atol=1e-5)


def test_scores_are_cosines_with_rows_of_unit_length():
    head = DinoHead(13, 7, 5, hidden_layers=0)
    head.build((None, 5))
    head.perceptron[0].kernel.assign(np.eye(5))
    # The scores of the unit vectors are the entries of the normalised directions.
    scores = run(head, np.eye(5, dtype="float32"))
    np.testing.assert_allclose(np.linalg.norm(scores, axis=0), 1.0, rtol=1e-5)
    longer = run(head, 100 * np.eye(5, dtype="float32"))
    np.testing.assert_allclose(longer, scores, atol=1e-6)
    head.directions.assign(3 * head.directions)
    np.testing.assert_allclose(run(head, np.eye(5, dtype="float32")), scores, atol=1e-6)
    assert not run(head, np.zeros((1, 5), "float32")).any()
    assert [weight.name for weight in head.non_trainable_weights] == ["gain"]


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="loading PyTorch too takes long"
)
def test_against_pytorch_weight_normalisation():
    torch = pytest.importorskip("torch")
    head = DinoHead(13, 7, 5, hidden_layers=0)
    inputs = example((4, 3))
    head(inputs)
    directions, _, kernel, bias = [to_numpy(weight) for weight in head.weights]
    linear = torch.nn.utils.parametrizations.weight_norm(
        torch.nn.Linear(5, 13, bias=False)
    )
    with torch.no_grad():
        linear.weight = torch.tensor(directions.T)
        linear.parametrizations.weight.original0.fill_(1.0)
        hidden = torch.tensor(to_numpy(inputs) @ kernel + bias)
        wanted = linear(torch.nn.functional.normalize(hidden, dim=-1)).numpy()
    np.testing.assert_allclose(run(head, inputs), wanted, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"units": 0}, {"hidden_layers": -1}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match=f"Received: .*{next(iter(wrong))}="):
        DinoHead(**wrong)
