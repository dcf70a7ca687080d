import numpy as np
import pytest

from keras_attn.layers import ClassEvidence
from tests.harness import change, check_layer, example, randomize, run, to_numpy

ARGUMENTS = {
    "num_classes": 5,
    "aggregation": "mean",
    "weighted": False,
    "kernel_regularizer": "l2",
}


def test_keeps_the_promises_of_a_layer():
    check_layer(
        ClassEvidence,
        ARGUMENTS,
        [(2, 7, 3, 4), (2, 7, 3, 1)],
        other_shapes=[[(1, 1, 1, 2), (1, 1, 1, 1)]],
        expected_num_trainable_weights=2,
        expected_num_losses=1,
    )


def test_keeps_the_promises_of_a_layer_without_attention():
    check_layer(ClassEvidence, ARGUMENTS, (2, 7, 3, 4), other_shapes=[(1, 1, 1, 2)])


def attention_like(shape, seed=1):
    weights = np.random.default_rng(seed).uniform(0.1, 1.0, shape).astype("float32")
    return weights / weights.sum(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("aggregation, cells", [("sum", 1), ("mean", 15)])
def test_evidence_is_the_weighted_classifier_and_sums_to_the_logits(aggregation, cells):
    layer = ClassEvidence(4, aggregation=aggregation)
    features, attention = to_numpy(example((2, 5, 3, 6))), attention_like((2, 5, 3, 1))
    layer([features, attention])
    randomize(layer)
    kernel, bias = (to_numpy(weight) for weight in layer.weights)
    outputs = run(layer, [features, attention])
    wanted = (features @ kernel + bias) * attention / cells
    np.testing.assert_allclose(outputs["evidence"], wanted, atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], wanted.sum(axis=(1, 2)), atol=1e-5)


def test_uniform_attention_is_global_average_pooling():
    layer = ClassEvidence(4)
    features = to_numpy(example((2, 5, 3, 6)))
    uniform = np.full((2, 5, 3, 1), 1 / 15, "float32")
    layer([features, uniform])
    randomize(layer)
    kernel, bias = (to_numpy(weight) for weight in layer.weights)
    wanted = features.mean(axis=(1, 2)) @ kernel + bias
    logits = run(layer, [features, uniform])["logits"]
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    alone = run(layer, features)
    np.testing.assert_allclose(alone["logits"], wanted, atol=1e-5)
    activation_map = features @ kernel + bias
    np.testing.assert_allclose(alone["evidence"], activation_map / 15, atol=1e-5)


def test_raw_evidence_is_the_classifier_alone_and_the_logits_stay():
    weighted, raw = ClassEvidence(4), ClassEvidence(4, weighted=False)
    inputs = [to_numpy(example((2, 5, 3, 6))), attention_like((2, 5, 3, 1))]
    for layer in (weighted, raw):
        layer(inputs)
    randomize(raw)
    weighted.set_weights(raw.get_weights())
    kernel, bias = (to_numpy(weight) for weight in raw.weights)
    outputs = run(raw, inputs)
    wanted = inputs[0] @ kernel + bias
    np.testing.assert_allclose(outputs["evidence"], wanted, atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], run(weighted, inputs)["logits"])


@pytest.mark.parametrize(
    "options, message",
    [({"aggregation": "max"}, "aggregation"), ({"num_classes": 0}, "num_classes")],
)
def test_refuses_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=f"Expected `{message}`"):
        ClassEvidence(**{"num_classes": 3, **options})


@pytest.mark.parametrize("kind", ["int8", "int4", "float8", "lora"])
def test_a_changed_classifier_is_called_as_it_is(kind):
    layer = ClassEvidence(3)
    features = np.random.default_rng(0).standard_normal((2, 4, 5, 8)).astype("float32")
    before = to_numpy(layer(features)["logits"])
    change(layer.classifier, kind)
    outputs = {name: to_numpy(each) for name, each in layer(features).items()}
    cells = to_numpy(layer.classifier(features)) / 20
    np.testing.assert_allclose(outputs["evidence"], cells, atol=1e-6)
    np.testing.assert_allclose(outputs["logits"], cells.sum(axis=(1, 2)), atol=0.03)
    if kind != "lora":
        np.testing.assert_allclose(outputs["logits"], before, atol=0.1)
