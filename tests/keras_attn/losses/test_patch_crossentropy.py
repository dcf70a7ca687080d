import keras
import numpy as np
import pytest
from scipy.special import log_softmax

from keras_attn.losses import PatchCrossentropy, mixed_patch_loss


def data(shape=(5, 3, 7, 4)):
    generator = np.random.default_rng(0)
    scores = (3 * generator.normal(size=shape)).astype("float32")
    return generator.integers(0, shape[-1], shape[0]), scores


def reference(labels, scores):
    """Loop over images and cells."""
    values = []
    for label, image in zip(labels, scores, strict=True):
        cells = image.reshape(-1, image.shape[-1])
        values.append(np.mean([-log_softmax(cell)[label] for cell in cells]))
    return np.array(values)


def test_equals_a_loop_over_images_and_cells():
    labels, scores = data()
    values = PatchCrossentropy(reduction="none")(labels, scores)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(values), reference(labels, scores), rtol=1e-5
    )
    mean = float(PatchCrossentropy()(labels[:, None], scores))
    np.testing.assert_allclose(mean, reference(labels, scores).mean(), rtol=1e-5)


def test_uniform_scores_cost_the_logarithm_of_the_classes():
    loss = PatchCrossentropy()(np.array([3, 0]), np.zeros((2, 2, 3, 7), "float32"))
    np.testing.assert_allclose(float(loss), np.log(7), rtol=1e-6)


def test_without_cells_it_is_the_usual_crossentropy():
    labels, scores = data((6, 4))
    usual = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    np.testing.assert_allclose(
        float(PatchCrossentropy()(labels, scores)),
        float(usual(labels, scores)),
        rtol=1e-5,
    )


def test_label_smoothing_equals_kerass_on_one_hot_labels():
    labels, scores = data((6, 4))
    usual = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    np.testing.assert_allclose(
        float(PatchCrossentropy(label_smoothing=0.2)(labels, scores)),
        float(usual(np.eye(4)[labels], scores)),
        rtol=1e-5,
    )


def test_sample_weights_weight_images():
    labels, scores = data()
    weights = np.array([0.0, 1.0, 2.0, 0.0, 3.0], "float32")
    total = float(PatchCrossentropy(reduction="sum")(labels, scores, weights))
    np.testing.assert_allclose(total, weights @ reference(labels, scores), rtol=1e-5)


def test_half_precision_scores_are_summed_in_float32():
    labels, scores = data((2, 64, 64, 3))
    half = keras.ops.cast(scores, "bfloat16")
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(half, "float32"))
    np.testing.assert_allclose(
        float(PatchCrossentropy()(labels, half)),
        reference(labels, rounded).mean(),
        rtol=1e-5,
    )


def test_config_round_trip():
    loss = PatchCrossentropy(label_smoothing=0.1, reduction="sum", name="patches")
    revived = keras.losses.deserialize(keras.losses.serialize(loss))
    assert revived.get_config() == loss.get_config()
    assert keras.saving.get_registered_name(PatchCrossentropy).startswith("keras_attn>")


def two_headed_model():
    inputs = keras.Input((4, 4, 3))
    scores = keras.layers.Dense(3, name="patch_logits")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    logits = keras.layers.Dense(3, name="logits")(pooled)
    return keras.Model(inputs, {"logits": logits, "patch_logits": scores})


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_fit_minimises_equation_3_1(weight):
    labels = np.array([0, 2, 1, 1])
    images = np.random.default_rng(1).normal(size=(4, 4, 4, 3)).astype("float32")
    model = two_headed_model()
    model.compile(keras.optimizers.SGD(0.1), **mixed_patch_loss(weight))
    outputs = model.predict(images, verbose=0)
    before = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
    targets = {"logits": labels, "patch_logits": labels}
    logs = model.evaluate(images, targets, return_dict=True, verbose=0)
    main = reference(labels, outputs["logits"][:, None]).mean()
    patch = reference(labels, outputs["patch_logits"]).mean()
    np.testing.assert_allclose(
        logs["loss"], (1 - weight) * main + weight * patch, rtol=1e-5
    )
    model.fit(images, targets, batch_size=4, verbose=0)
    moved = {
        w.path.split("/")[0]
        for w in model.weights
        if np.abs(keras.ops.convert_to_numpy(w) - before[w.path]).max() > 0
    }
    assert moved == {
        name
        for name, share in (("logits", 1 - weight), ("patch_logits", weight))
        if share
    }


def test_compiled_loss_survives_saving(tmp_path):
    labels, images = np.array([0, 2]), np.ones((2, 4, 4, 3), "float32")
    targets = {"logits": labels, "patch_logits": labels}
    model = two_headed_model()
    model.compile("sgd", **mixed_patch_loss(0.3))
    before = model.evaluate(images, targets, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    after = loaded.evaluate(images, targets, verbose=0, return_dict=True)
    np.testing.assert_allclose(after["loss"], before["loss"], rtol=1e-6)


def test_refuses_weights_outside_the_unit_interval():
    with pytest.raises(ValueError, match="patch_loss_weight=1.5"):
        mixed_patch_loss(1.5)
    with pytest.raises(ValueError, match="label_smoothing"):
        PatchCrossentropy(label_smoothing=1.0)
