import keras
import numpy as np
import pytest

from keras_attn.layers import ClassEmbedding
from tests.harness import check_layer, example, gradients, randomize, run, to_numpy
from tests.reference.class_embedding import class_embedding

ARGUMENTS = {
    "num_classes": 5,
    "filters": 11,
    "window": (3, 2),
    "merge": "concatenate",
    "use_bias": True,
    "return_patch_logits": False,
    "kernel_initializer": "he_normal",
    "kernel_regularizer": "l2",
}


def test_concatenating_keeps_the_promises_of_a_layer():
    check_layer(
        ClassEmbedding,
        ARGUMENTS,
        (2, 7, 3, 13),
        other_shapes=[(1, 1, 1, 2), (2, 4, 6, 3)],
        expected_num_trainable_weights=6,
        expected_num_non_trainable_weights=2,
        expected_num_losses=2,
    )


def test_adding_keeps_the_promises_of_a_layer():
    check_layer(
        ClassEmbedding,
        {"num_classes": 5},
        (2, 7, 3, 13),
        other_shapes=[(1, 1, 1, 2), (2, 4, 6, 3)],
        keeps_default=set(ARGUMENTS) - {"num_classes"},
    )


def reference(layer, inputs):
    """The block in NumPy with the layer's weights."""

    def linear(sublayer):
        kernel = to_numpy(sublayer.kernel)
        return kernel, 0.0 if sublayer.bias is None else to_numpy(sublayer.bias)

    normalization = layer.normalization
    height, width = inputs.shape[1:3]
    return class_embedding(
        to_numpy(inputs),
        layer.window or (max(height // 2, 1), max(width // 2, 1)),
        linear(layer.patch_logits.classifier),
        (*map(to_numpy, normalization.weights), normalization.epsilon),
        linear(layer.values),
        linear(layer.shortcut) if layer.merge == "add" else None,
    )


@pytest.mark.parametrize("shape", [(2, 8, 8, 6), (2, 7, 5, 3), (3, 1, 1, 4)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"filters": 9},
        {"merge": "concatenate", "filters": 7},
        {"use_bias": True, "window": (3, 4)},
    ],
)
def test_equals_the_numpy_version(shape, options):
    layer = ClassEmbedding(5, **options)
    inputs = example(shape)
    layer(inputs)
    randomize(layer)
    outputs = run(layer, inputs)
    features, scores = reference(layer, inputs)
    np.testing.assert_allclose(outputs["features"], features, atol=1e-4)
    np.testing.assert_allclose(outputs["patch_logits"], scores, atol=1e-5)


def test_on_a_single_cell_the_block_is_pointwise():
    layer = ClassEmbedding(3)
    maps = example((6, 1, 1, 4))
    together = run(layer, maps)["features"]
    alone = [run(layer, maps[i : i + 1])["features"] for i in range(6)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)


def test_zero_values_and_identity_shortcut_change_nothing():
    layer = ClassEmbedding(3)
    inputs = example((2, 5, 7, 4))
    layer(inputs)
    layer.values.kernel.assign(np.zeros((3, 4)))
    layer.shortcut.kernel.assign(np.eye(4))
    np.testing.assert_allclose(
        run(layer, inputs)["features"], to_numpy(inputs), atol=1e-6
    )


def test_region_that_matches_no_class_receives_the_zero_vector():
    layer = ClassEmbedding(3, merge="concatenate", filters=2)
    inputs = example((2, 5, 7, 4))
    layer(inputs)
    layer.normalization.beta.assign([-100.0] * 3)
    assert not run(layer, inputs)["features"][..., 4:].any()


def test_a_class_vector_is_added_in_proportion_to_the_match():
    """One class, one cell: doubling what passes the ReLU doubles the embedding."""
    layer = ClassEmbedding(1, merge="concatenate", filters=3)
    inputs = example((1, 1, 1, 2))
    layer(inputs)
    layer.patch_logits.classifier.kernel.assign([[0.0], [0.0]])
    embeddings = []
    for match in (1.0, 2.0):
        layer.normalization.beta.assign([match])
        embeddings.append(run(layer, inputs)["features"][0, 0, 0, 2:])
    np.testing.assert_allclose(
        embeddings[0], to_numpy(layer.values.kernel)[0], atol=1e-6
    )
    np.testing.assert_allclose(embeddings[1], 2 * embeddings[0], atol=1e-6)


def test_the_main_loss_reaches_the_patch_classifier_through_the_values_alone():
    layer = ClassEmbedding(3)
    inputs = to_numpy(example((2, 4, 5, 6)))
    layer(inputs)

    def classifier_gradient():
        weights = [to_numpy(v) for v in layer.trainable_variables]
        state = [v.value for v in layer.non_trainable_variables]
        found = gradients(
            lambda *tensors: keras.ops.sum(
                layer.stateless_call(list(tensors), state, inputs)[0]["features"] ** 2
            ),
            *weights,
        )
        paths = [variable.path for variable in layer.trainable_variables]
        (index,) = [i for i, p in enumerate(paths) if "classifier/kernel" in p]
        return found[index]

    assert np.abs(classifier_gradient()).max() > 1e-3
    layer.values.kernel.assign(np.zeros((3, 6)))
    np.testing.assert_array_equal(classifier_gradient(), 0.0)


def test_training_mode_normalises_the_scores_with_the_batch():
    layer = ClassEmbedding(3, merge="concatenate", filters=3)
    inputs = example((4, 5, 7, 6))
    layer(inputs)
    layer.values.kernel.assign(np.eye(3))
    scores = run(layer, inputs)["patch_logits"]
    matches = to_numpy(layer(inputs, training=True)["features"])[..., 6:]
    mean, variance = scores.mean((0, 1, 2)), scores.var((0, 1, 2))
    wanted = np.maximum((scores - mean) / np.sqrt(variance + 1e-3), 0.0)
    np.testing.assert_allclose(matches, wanted, atol=1e-4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"merge": "multiply"}, "merge"),
        ({"filters": 0}, "filters"),
        ({"window": (0, 1)}, "window"),
        ({"num_classes": -1}, "num_classes"),
    ],
)
def test_refuses_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=f"Expected `{message}`"):
        ClassEmbedding(**{"num_classes": 3, **options})
