import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.layers.volumetric_transformer import VolumetricTransformer
from tests.harness import (
    check_configuration,
    check_layer,
    check_mixed_precision,
    check_output_shape,
    check_round_trip,
    gradients,
    run,
    slow_on,
    to_numpy,
    unweighted,
)
from tests.reference import volumetric_transformer as reference

JAX = keras.backend.backend() == "jax"
ARGUMENTS = {
    "groups": 3,
    "window": 3,
    "temperature": 2.5,
    # JAX compiles every operation for every shape, so there it is one level.
    "estimator_filters": (4,) if JAX else (4, 5),
    "squeezed_channels": (2,) if JAX else (2, 1),
    "kernel_regularizer": "l2",
}
ABLATIONS = {
    "complete": {},
    "no mixing": {"squeezed_channels": None, "mix_channels": False},
    "no groups": {"groups": None, "squeezed_channels": (4, 3)},
    "no probabilities": {"probabilistic": False},
}
SHAPE = (2, 5, 7, 6)


def features_of(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(0, 2, shape).astype("float32")


def layer_with_random_weights(scale=0.5, shape=SHAPE, **arguments):
    """The same weights on every backend, none of them zero."""
    layer = VolumetricTransformer(**{**ARGUMENTS, **arguments})
    layer.build(shape)
    random = np.random.default_rng(4)
    for weight in layer.weights:
        value = random.normal(0, scale, weight.shape)
        if weight.path.endswith(("gamma", "moving_variance")):
            value = np.exp(value)
        weight.assign(value)
    return layer


# ---- a layer among others ------------------------------------------------------------


KEEPS_DEFAULT = ("mix_channels", "probabilistic")


@slow_on("jax", "takes long; the next test makes do with less")
def test_keeps_the_promises_of_a_layer():
    check_layer(
        VolumetricTransformer,
        ARGUMENTS,
        SHAPE,
        other_shapes=[(1, 3, 11, 3)],
        keeps_default=KEEPS_DEFAULT,
        float32_outputs=("fields",),
        # Of four convolutions, four mixings, and the last layer.
        expected_num_trainable_weights=4 * 3 + 4 + 2,
        expected_num_losses=9,
        expected_num_non_trainable_weights=8,
    )


@pytest.mark.skipif(not JAX, reason="part of the test before on the other backends")
def test_keeps_the_promises_that_jax_could_break():
    """Round trip, types, and one compiled function for any batch, without saving."""
    import jax

    check_configuration(VolumetricTransformer, ARGUMENTS, KEEPS_DEFAULT)
    check_mixed_precision(VolumetricTransformer, ARGUMENTS, SHAPE, ("fields",))
    layer = layer_with_random_weights()
    check_round_trip(layer, features_of())
    check_output_shape(layer, SHAPE)
    features = features_of()
    compiled = jax.jit(lambda maps: layer(maps))(features[:1])
    for name, value in run(layer, features).items():
        np.testing.assert_allclose(compiled[name], value[:1], atol=1e-5)


def test_keeps_the_arguments_of_the_ablations():
    check_configuration(
        VolumetricTransformer,
        {"groups": None, "mix_channels": False, "probabilistic": False},
        keeps_default=(*ARGUMENTS,),
    )


def test_reads_the_config_of_earlier_versions():
    config = VolumetricTransformer(**ARGUMENTS).get_config()
    config["features"] = config.pop("estimator_filters")
    config["channels"] = config.pop("squeezed_channels")
    layer = VolumetricTransformer.from_config(config)
    assert layer.estimator_filters == ARGUMENTS["estimator_filters"]
    assert layer.squeezed_channels == ARGUMENTS["squeezed_channels"]


@unweighted()
def test_has_the_parameters_of_its_default_widths():
    layer = VolumetricTransformer()
    layer.build((None, 14, 14, 2048))
    count = sum(math.prod(weight.shape) for weight in layer.trainable_weights)
    assert count == 790_761
    shape = (None, 14, 14, 32, 2)
    assert layer.compute_output_shape((None, 14, 14, 2048))["fields"] == shape


@pytest.mark.skipif(JAX, reason="counted for two levels")
def test_counts_its_multiply_adds():
    layer = VolumetricTransformer(**ARGUMENTS)
    layer.build(SHAPE)
    convolutions = 3 * 35 * 9 * 2 * 4 + 2 * 12 * 9 * 4 * 5
    convolutions += 1 * 4 * 9 * 5 * 4 + 2 * 12 * 9 * 4 * 4
    mixing = 35 * 4 * 3 * 2 + 12 * 5 * 2 * 1 + 4 * 4 * 1 * 2 + 12 * 4 * 2 * 3
    last, expectation, sampling = 3 * 35 * 4 * 9, 3 * 35 * 18, 4 * 35 * 6
    wanted = convolutions + mixing + last + expectation + sampling
    assert layer.multiply_adds(SHAPE) == wanted
    assert layer.window_steps() is None


def test_serves_maps_of_any_size():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Only TensorFlow compiles for sizes that are not known.")
    import tensorflow as tf

    layer = layer_with_random_weights(shape=(None, None, None, 6))
    signature = [tf.TensorSpec((None, None, None, 6))]
    call = tf.function(lambda maps: layer(maps), input_signature=signature)
    for size in [(5, 7), (3, 4)]:
        features = features_of((2, *size, 6))
        found, wanted = call(features), run(layer, features)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


# ---- the whole computation ---------------------------------------------------------


@pytest.mark.parametrize(
    "ablation",
    [
        "complete",
        "no mixing",
        pytest.param("no groups", marks=slow_on("jax", "other shapes take long")),
        "no probabilities",
    ],
)
def test_equals_the_slow_version(ablation):
    layer = layer_with_random_weights(**ABLATIONS[ablation])
    features = features_of()
    found = run(layer, features)
    for image in range(2):
        warped, fields = reference.volumetric_transformer(
            features[image].astype("float64"), weights_of(layer), layer.get_config()
        )
        assert np.abs(fields).max() > 0.3
        np.testing.assert_allclose(found["fields"][image], fields, atol=2e-5)
        np.testing.assert_allclose(found["features"][image], warped, atol=2e-4)


def weights_of(layer):
    """The weights as the plain version takes them."""
    normalizations = [each.normalization for each in layer.estimator.convolutions]
    variables = {
        **trainable_weights_of(layer),
        "means": [each.moving_mean for each in normalizations],
        "variances": [each.moving_variance for each in normalizations],
    }
    return {
        kind: [to_numpy(variable).astype("float64") for variable in some]
        for kind, some in variables.items()
    }


def trainable_weights_of(layer):
    estimator = layer.estimator
    convolutions = estimator.convolutions
    return {
        "kernels": [each.convolution.kernel for each in convolutions],
        "scales": [each.normalization.gamma for each in convolutions],
        "offsets": [each.normalization.beta for each in convolutions],
        "mixings": [each.kernel for each in estimator.mixings],
        "head": estimator.head.weights,
    }


@slow_on("jax", "other shapes take long; the slow version normalises too")
def test_groups_are_normalised_as_by_torch():
    torch = pytest.importorskip("torch")
    features = features_of((2, 5, 7, 128), seed=1) + 3.0
    _, seen = VolumetricTransformer(groups=32)._group_maps(features)
    groups = features.reshape((2, 5, 7, 32, 4))
    pooled = np.stack([groups.max(-1), groups.mean(-1)], axis=-1)
    # Group by group, the largest before the mean.
    channels = np.moveaxis(pooled.reshape((2, 5, 7, 64)), -1, 1)
    wanted = torch.nn.functional.group_norm(
        torch.from_numpy(channels.astype("float64")), 32, eps=1e-5
    )
    wanted = np.moveaxis(wanted.numpy().reshape((2, 32, 2, 5, 7)), 2, -1)
    np.testing.assert_allclose(to_numpy(seen), wanted, atol=2e-6)


# ---- what a new layer does -----------------------------------------------------------


def test_a_new_layer_follows_the_responses_alone():
    layer = VolumetricTransformer(**ARGUMENTS)
    features = features_of()
    groups = features.reshape((2, 5, 7, 3, 2))
    responses = np.moveaxis(groups.max(-1) + groups.mean(-1), -1, 1)
    wanted = reference.expected_displacement(
        responses.reshape((6, 5, 7)), np.zeros((6, 5, 7, 9)), 3, 2.5
    )
    wanted = np.moveaxis(wanted.reshape((2, 3, 5, 7, 2)), 1, 3)
    np.testing.assert_allclose(run(layer, features)["fields"], wanted, atol=1e-5)


def test_a_constant_map_is_pulled_inwards_at_the_border_and_stays_constant():
    outputs = run(VolumetricTransformer(**ARGUMENTS), np.full(SHAPE, 2.0, "float32"))
    fields = outputs["fields"][0]
    np.testing.assert_allclose(fields[1:-1, 1:-1], 0.0, atol=1e-6)
    np.testing.assert_allclose(fields[0, 0], [[0.5, 0.5]] * 3, atol=1e-6)
    np.testing.assert_allclose(fields[2, -1], [[0.0, -0.5]] * 3, atol=1e-6)
    np.testing.assert_allclose(outputs["features"], 2.0, atol=1e-6)


def test_without_probabilities_a_new_layer_changes_nothing():
    layer = VolumetricTransformer(**{**ARGUMENTS, "probabilistic": False})
    features = features_of()
    outputs = run(layer, features)
    np.testing.assert_array_equal(outputs["features"], features)
    np.testing.assert_array_equal(outputs["fields"], 0.0)


@pytest.mark.parametrize("probabilistic", [True, False])
def test_fields_never_lead_out_of_the_map(probabilistic):
    layer = layer_with_random_weights(scale=3.0, probabilistic=probabilistic)
    fields = run(layer, features_of())["fields"]
    cells = np.stack(np.mgrid[:5, :7], axis=-1)[None, :, :, None] + fields
    assert np.abs(fields).max() > 0.9
    assert cells.min() >= -1e-5
    assert np.all(cells <= np.array([4, 6]) + 1e-5)


# ---- groups --------------------------------------------------------------------------


def test_permuted_groups_have_permuted_fields():
    layer = layer_with_random_weights()
    features = features_of()
    outputs = run(layer, features)
    order = [2, 0, 1]
    squeeze, expansion = layer.estimator.mixings[0], layer.estimator.mixings[-1]
    squeeze.kernel.assign(to_numpy(squeeze.kernel)[order])
    expansion.kernel.assign(to_numpy(expansion.kernel)[:, order])
    permuted = features.reshape((*SHAPE[:3], 3, 2))[..., order, :].reshape(SHAPE)
    found = run(layer, permuted)
    np.testing.assert_allclose(
        found["fields"], outputs["fields"][:, :, :, order], atol=1e-5
    )
    assert np.abs(np.diff(outputs["fields"], axis=3)).max() > 0.1


@pytest.mark.parametrize("mixing", ["identity", "none", "full"])
def test_only_mixing_lets_groups_see_each_other(mixing):
    options = {"squeezed_channels": None, "mix_channels": False}
    if mixing != "none":
        options = {"squeezed_channels": (3,) * len(ARGUMENTS["estimator_filters"])}
    layer = layer_with_random_weights(**options)
    if mixing == "identity":
        for matrix in layer.estimator.mixings:
            matrix.kernel.assign(np.eye(3))
    features = features_of()
    changed = features.copy()
    changed[..., 2:4] = features_of((2, 5, 7, 2), seed=9)  # the second of three
    before, after = run(layer, features)["fields"], run(layer, changed)["fields"]
    change = np.abs(after - before).max(axis=(0, 1, 2, 4))
    assert change[1] > 0.05
    if mixing == "full":
        assert change[0] > 1e-4 and change[2] > 1e-4
    else:
        np.testing.assert_array_equal(change[[0, 2]], 0.0)


def test_channels_of_a_group_move_together():
    """Two equal channels in one group stay equal; in two groups they need not."""
    features = features_of()
    features[..., 1] = features[..., 0]
    features[..., 3] = features[..., 0]
    warped = run(layer_with_random_weights(), features)["features"]
    np.testing.assert_array_equal(warped[..., 1], warped[..., 0])
    assert np.abs(warped[..., 3] - warped[..., 0]).max() > 0.01


# ---- learning ------------------------------------------------------------------------


@pytest.mark.parametrize("probabilistic", [True, False])
def test_gradients_equal_finite_differences_of_the_slow_version(probabilistic):
    layer = layer_with_random_weights(probabilistic=probabilistic)
    features, target = features_of()[:1], features_of(seed=5)[:1]
    state = [variable.value for variable in layer.non_trainable_variables]

    def loss(*weights):
        outputs, _ = layer.stateless_call(list(weights), state, features)
        return ops.mean(ops.square(ops.subtract(outputs["features"], target)))

    if JAX:
        import jax

        loss = jax.jit(loss)
    weights = [to_numpy(weight) for weight in layer.trainable_variables]
    found = dict(
        zip(map(id, layer.trainable_variables), gradients(loss, *weights), strict=True)
    )
    slow = weights_of(layer)
    for kind, variables in trainable_weights_of(layer).items():
        for level, variable in enumerate(variables):
            gradient = found[id(variable)]
            place = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
            losses = []
            for move in (1e-5, -1e-5):
                slow[kind][level][place] += move
                warped, _ = reference.volumetric_transformer(
                    features[0].astype("float64"), slow, layer.get_config()
                )
                losses.append(np.mean(np.square(warped - target[0])))
                slow[kind][level][place] -= move
            slope = (losses[0] - losses[1]) / 2e-5
            assert abs(slope) > 1e-4
            np.testing.assert_allclose(gradient[place], slope, rtol=1e-3)


# ---- errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"groups": 0}, "Expected `groups`"),
        ({"window": 4}, "Expected `window` to be an odd integer"),
        ({"window": 1}, "Expected `window` to be an odd integer"),
        ({"temperature": 0.0}, "Expected `temperature` to be a positive"),
        (
            {"estimator_filters": ()},
            "Expected `estimator_filters` to be at least one width",
        ),
        (
            {"estimator_filters": (8, 0)},
            "Expected `estimator_filters` to be a positive integer",
        ),
        (
            {"squeezed_channels": (2,)},
            "Expected as many `squeezed_channels` as `estimator_filters`",
        ),
        (
            {"squeezed_channels": (2, 1), "mix_channels": False},
            "without `mix_channels`",
        ),
    ],
)
def test_refuses_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        VolumetricTransformer(**{"estimator_filters": (4, 5), **arguments})


def test_refuses_channels_that_cannot_be_grouped():
    with pytest.raises(ValueError, match=r"groups=4 and a map of shape .*6\)"):
        VolumetricTransformer(groups=4, window=3)(features_of())


def test_refuses_a_window_larger_than_the_map():
    with pytest.raises(ValueError, match="window=7 and a map of 5 x 7 cells"):
        VolumetricTransformer(groups=3, window=7)(features_of())
    layer = VolumetricTransformer(groups=3, window=3, estimator_filters=(4,))
    layer.build((None, None, None, 6))
    with pytest.raises(ValueError, match="window=3 and a map of 2 x 7 cells"):
        layer(ops.ones((1, 2, 7, 6)))
    # It plays no part without probabilities.
    VolumetricTransformer(3, estimator_filters=(4,), probabilistic=False)(features_of())
