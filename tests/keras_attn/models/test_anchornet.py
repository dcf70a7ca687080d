import keras
import numpy as np
import pytest

from keras_attn import multiply_adds, trainable_params
from keras_attn.models import anchornet
from keras_attn.models.anchornet import without_auxiliary
from tests.harness import gradients, slow_on, to_numpy, unweighted

# Its layers are tested on JAX each; the whole network, compiled operation by operation,
# would take minutes there.
slow_on_jax = slow_on("jax", "JAX takes minutes to compile the network")

SMALL = {"input_shape": (119, 127, 3), "num_classes": 4}


@pytest.fixture(scope="module")
def small():
    """With random biases, so that no term is zero by chance."""
    keras.utils.set_random_seed(0)
    model = anchornet(**SMALL)
    for weight in model.weights:
        if weight.path.endswith(("bias", "beta", "moving_mean")):
            weight.assign(np.random.default_rng(1).normal(0, 0.3, weight.shape))
    return model


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@slow_on_jax
@pytest.mark.parametrize(
    "options, inference, training",
    [
        ({"squeeze_ratio": None}, 1.207, 1.498),
        ({"squeeze_base": "expansion"}, 2.233, 2.524),
        ({"squeeze_base": "expansion", "squeeze_ratio": 0.125}, 1.723, 2.014),
        ({}, 1.416, 1.707),
        ({"squeeze_ratio": 0.125}, 1.314, 1.605),
    ],
)
@unweighted()
def test_parameters_of_every_squeeze_rule(options, inference, training):
    """Millions, of which 288 are an expansion that keeps the width and is left out."""
    model = anchornet(auxiliary=True, **options)
    assert trainable_params(model) / 1e6 == pytest.approx(training, abs=8e-4)
    assert trainable_params(without_auxiliary(model)) / 1e6 == pytest.approx(
        inference, abs=8e-4
    )
    if not options:
        assert 0.486e9 <= multiply_adds(without_auxiliary(model)) <= 0.489e9


@unweighted()
def test_maps_of_an_image_of_224_pixels_have_21_17_and_15_rows():
    output = anchornet(auxiliary=True).output
    for size, cells in ((63, 21), (95, 17), (111, 15)):
        assert output[f"evidence_{size}"].shape == (None, cells, cells, 1000)
        assert output[f"attention_{size}"].shape == (None, cells, cells, 1)
        assert output[f"logits_{size}"].shape == (None, 1000)
        assert output[f"auxiliary_{size}"].shape == (None, 1000)


@slow_on_jax
def test_evidence_sums_to_the_logits_and_attention_to_one(small):
    outputs = {name: to_numpy(x) for name, x in small(images(2, 119, 127, 3)).items()}
    for size in (63, 95, 111):
        total = outputs[f"evidence_{size}"].sum(axis=(1, 2))
        np.testing.assert_allclose(total, outputs[f"logits_{size}"], atol=1e-4)
        attention = outputs[f"attention_{size}"].sum(axis=(1, 2, 3))
        np.testing.assert_allclose(attention, 1.0, atol=1e-5)
    stacked = np.stack([outputs[f"logits_{size}"] for size in (63, 95, 111)], axis=1)
    assert (outputs["logits"][:, None] == stacked).all(axis=2).any(axis=1).all()


@slow_on_jax
@pytest.mark.parametrize("size, cell", [(63, (7, 2)), (95, (3, 4)), (111, (1, 0))])
def test_a_cell_sees_its_window_and_nothing_else(size, cell):
    """The support of the gradient, with squeeze-excitation and attention left out."""
    keras.utils.set_random_seed(0)
    model = anchornet(**SMALL, squeeze_ratio=None, branches=(size,), evidence="raw")
    weights = [weight.value for weight in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]

    def evidence_at_the_cell(x):
        outputs, _ = model.stateless_call(weights, state, x)
        return keras.ops.sum(outputs[f"evidence_{size}"][:, cell[0], cell[1]])

    (gradient,) = gradients(evidence_at_the_cell, images(1, 119, 127, 3))
    seen = np.abs(gradient[0]).max(axis=-1) > 0
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert (rows[0], rows[-1]) == (8 * cell[0], 8 * cell[0] + size - 1)
    assert (columns[0], columns[-1]) == (8 * cell[1], 8 * cell[1] + size - 1)


@slow_on_jax
def test_any_image_size_with_the_same_weights(small):
    free = anchornet((None, None, 3), num_classes=4)
    free.set_weights(small.get_weights())
    x = images(1, 119, 127, 3)
    wanted, found = small(x), free(x)
    for name in wanted:
        np.testing.assert_allclose(
            to_numpy(found[name]), to_numpy(wanted[name]), atol=1e-5
        )
    assert free(images(1, 135, 111, 3))["evidence_63"].shape == (1, 10, 7, 4)


@slow_on_jax
def test_survives_saving(small, tmp_path):
    small.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = images(2, 119, 127, 3)
    wanted, found = small(x), loaded(x)
    for name in wanted:
        np.testing.assert_allclose(to_numpy(found[name]), to_numpy(wanted[name]))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"input_shape": (110, 224, 3)}, "at least 111 x 111 pixels.*110 x 224"),
        ({"input_shape": (224, 224, 1)}, "3 channels.*Received: 1"),
        ({"input_shape": (224, 224, 4)}, "3 channels.*Received: 4"),
        ({"branches": (63, 64)}, "Expected `branches`"),
        ({"branches": ()}, "Expected `branches`"),
        ({"squeeze_base": "output"}, "Expected `squeeze_base`"),
        ({"evidence": "plain"}, "Expected `evidence`"),
        ({"aggregation": "max"}, "Expected `aggregation`"),
        ({"shortcut": "right"}, "Expected `shortcut`"),
    ],
)
@unweighted()
def test_refuses_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        anchornet(**options)
