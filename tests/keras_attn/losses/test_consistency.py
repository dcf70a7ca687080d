import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.losses.consistency import ConsistencyLoss
from tests.keras_attn.ops.test_image_triplets import slow_triplets

LABELS = np.array([0, 1, 0, 2, 1, 1, 3])


def maps(shape=(7, 2, 3, 5), scale=1.0):
    return (scale * np.random.default_rng(0).normal(size=shape)).astype("float32")


def reference(labels, warped, margin, combine=np.mean):
    """Loop over anchors and locations: one value an anchor, NaN without a triplet."""
    values = []
    for i, (positive, negative, valid) in enumerate(
        zip(*slow_triplets(list(labels)), strict=True)
    ):
        cells = []
        for y in range(warped.shape[1]):
            for x in range(warped.shape[2]):
                near = np.sum((warped[i, y, x] - warped[positive, y, x]) ** 2)
                far = np.sum((warped[i, y, x] - warped[negative, y, x]) ** 2)
                cells.append(max(0.0, near - far + margin))
        values.append(combine(cells) if valid else np.nan)
    return np.array(values)


@pytest.mark.parametrize(("locations", "combine"), [("mean", np.mean), ("sum", np.sum)])
def test_equals_a_loop_over_anchors_and_locations(locations, combine):
    warped = maps()
    wanted = reference(LABELS, warped, 3.0, combine)
    # Some excesses are cut off, some are not, and one image has no mate.
    assert 0 < np.nanmin(wanted) and np.isnan(wanted).sum() == 2
    mean = ConsistencyLoss(3.0, locations)(LABELS, warped)
    np.testing.assert_allclose(float(mean), np.nanmean(wanted), rtol=1e-5)
    alone = ConsistencyLoss(3.0, locations, reduction="none")(LABELS[:, None], warped)
    np.testing.assert_allclose(
        ops.convert_to_numpy(alone), np.nan_to_num(wanted), rtol=1e-5
    )
    total = ConsistencyLoss(3.0, locations, reduction="sum")(LABELS, warped)
    np.testing.assert_allclose(float(total), np.nansum(wanted), rtol=1e-5)


def test_sample_weights_weight_anchors():
    warped = maps()
    weights = np.array([1, 2, 0, 5, 1, 0, 4], "float32")
    loss = ConsistencyLoss(3.0, reduction="sum")(LABELS, warped, weights)
    wanted = np.nansum(weights * reference(LABELS, warped, 3.0))
    np.testing.assert_allclose(float(loss), wanted, rtol=1e-5)


def test_equal_maps_cost_the_margin_at_every_location():
    labels, same = np.array([4, 9, 4, 9]), np.ones((4, 14, 14, 3), "float32")
    assert float(ConsistencyLoss(30.0)(labels, same)) == 30.0
    # alpha * H * W, the value of the paper's literal sum.
    assert float(ConsistencyLoss(30.0, locations="sum")(labels, same)) == 5880.0


def test_equal_mates_and_far_strangers_cost_nothing():
    labels = np.array([0, 1, 0, 1])
    far = np.ones((4, 2, 3, 1), "float32") * 10 * labels[:, None, None, None]
    assert float(ConsistencyLoss(20.0)(labels, far)) == 0.0
    # The squared distance of 100 does not yet reach a margin of 104.
    assert float(ConsistencyLoss(104.0)(labels, far)) == pytest.approx(4.0)


@pytest.mark.parametrize("labels", [range(7), [1] * 7, [0]])
def test_a_batch_without_triplets_costs_nothing(labels):
    warped = maps((len(labels), 2, 3, 5))
    for reduction in ("sum_over_batch_size", "sum"):
        loss = ConsistencyLoss(reduction=reduction)(np.array(labels), warped)
        assert float(loss) == 0.0


def test_half_precision_maps_are_compared_in_float32():
    warped = ops.cast(maps((7, 3, 2, 512), 3.0), "bfloat16")
    loss = ConsistencyLoss(20.0)(LABELS, warped)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    rounded = ops.convert_to_numpy(ops.cast(warped, "float32")).astype("float64")
    wanted = np.nanmean(reference(LABELS, rounded, 20.0))
    np.testing.assert_allclose(float(loss), wanted, rtol=1e-4)


def model_with_maps(dtype=None):
    inputs = keras.Input((2, 3, 4))
    warped = keras.layers.Dense(5, dtype=dtype, name="warped")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D(dtype=dtype)(warped)
    logits = keras.layers.Dense(3, dtype="float32", name="logits")(pooled)
    return keras.Model(inputs, {"logits": logits, "warped": warped})


def compiled(model, weight, **options):
    model.compile(
        keras.optimizers.SGD(0.1),
        loss={
            "logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "warped": ConsistencyLoss(2.0),
        },
        loss_weights={"logits": 1.0, "warped": weight},
        **options,
    )
    return model


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_fit_minimises_it_beside_the_loss_of_the_task(dtype, tmp_path):
    labels = np.array([0, 1, 2, 0, 1, 2])
    images = maps((6, 2, 3, 4))
    targets = {"logits": labels, "warped": labels}
    # XLA, which TensorFlow does not choose by itself on a CPU.
    compile_xla = dtype == "float32" and keras.backend.backend() == "tensorflow"
    options = {"jit_compile": True} if compile_xla else {}
    model = compiled(model_with_maps(dtype), 0.5, **options)
    before = model.evaluate(images, targets, return_dict=True, verbose=0)
    warped = ops.convert_to_numpy(ops.cast(model(images)["warped"], "float32"))
    wanted = np.mean(reference(labels, warped, 2.0))
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(before["warped_loss"], wanted, rtol=tolerance)
    np.testing.assert_allclose(
        before["loss"], before["logits_loss"] + 0.5 * wanted, rtol=tolerance
    )
    model.fit(images, targets, batch_size=6, epochs=20, shuffle=False, verbose=0)
    after = model.evaluate(images, targets, return_dict=True, verbose=0)
    assert after["warped_loss"] < 0.8 * before["warped_loss"]
    if dtype == "float32":
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        again = loaded.evaluate(images, targets, return_dict=True, verbose=0)
        assert again["loss"] == pytest.approx(after["loss"], rel=1e-5)


def test_a_step_on_a_batch_without_triplets_moves_nothing():
    labels, images = np.array([0, 1, 2]), maps((3, 2, 3, 4))
    model = model_with_maps()
    model.compile("sgd", loss={"warped": ConsistencyLoss(), "logits": None})
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    model.fit(images, {"warped": labels}, verbose=0)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), old)


def test_config_round_trip():
    loss = ConsistencyLoss(7.0, "sum", reduction="sum", name="similar")
    revived = keras.losses.deserialize(keras.losses.serialize(loss))
    assert revived.get_config() == loss.get_config()
    assert keras.saving.get_registered_name(ConsistencyLoss).startswith("keras_attn>")


def test_refuses_what_it_cannot_mean():
    with pytest.raises(ValueError, match="margin=0"):
        ConsistencyLoss(0)
    with pytest.raises(ValueError, match="locations='max'"):
        ConsistencyLoss(locations="max")
    with pytest.raises(ValueError, match=r"Received: shape \(4,\)"):
        ConsistencyLoss()(np.zeros(4), np.zeros(4))
