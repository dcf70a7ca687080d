import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.layers import ClassEmbedding
from keras_attn.losses import mixed_patch_loss
from keras_attn.surgery import insert


def small_backbone():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="features")(inputs)
    y = layers.Conv2D(6, 3, padding="same", name="branch")(x)
    x = layers.Add(name="join")([x, y])
    outputs = layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="small")


def test_neutral_block_leaves_the_outputs_unchanged():
    backbone = small_backbone()
    block = ClassEmbedding(4)
    model = insert(backbone, "features", block)
    block.values.kernel.assign(np.zeros((4, 6)))
    block.shortcut.kernel.assign(np.eye(6))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(
        model.predict(images, verbose=0)["logits"],
        backbone.predict(images, verbose=0),
        atol=1e-5,
    )


def test_every_reader_of_the_layer_reads_the_block():
    """With a block that returns zeros, both branches of the join see zeros."""
    backbone = small_backbone()
    block = ClassEmbedding(4)
    model = insert(backbone, "features", block)
    block.values.kernel.assign(np.zeros((4, 6)))
    block.shortcut.kernel.assign(np.zeros((6, 6)))
    logits = model.predict(np.ones((1, 8, 8, 3), "float32"), verbose=0)["logits"]
    other = model.predict(np.full((1, 8, 8, 3), 9.0, "float32"), verbose=0)["logits"]
    np.testing.assert_array_equal(logits, other)


def test_leaves_the_given_model_alone_and_shares_no_weights():
    backbone = small_backbone()
    kernel = backbone.get_layer("branch").get_weights()[0].copy()
    model = insert(backbone, "features", ClassEmbedding(4))
    model.get_layer("branch").kernel.assign(np.zeros_like(kernel))
    np.testing.assert_array_equal(backbone.get_layer("branch").get_weights()[0], kernel)
    assert "class_embedding" not in [layer.name for layer in backbone.layers]


def test_inner_maps_stay_within_reach_and_the_model_survives_saving(tmp_path):
    model = insert(small_backbone(), "features", ClassEmbedding(4, name="block"))
    inner = keras.Model(model.input, model.get_layer("join").output)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    assert inner.predict(images, verbose=0).shape == (2, 8, 8, 6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name, values in model.predict(images, verbose=0).items():
        np.testing.assert_allclose(
            loaded.predict(images, verbose=0)[name], values, atol=1e-6
        )


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="JAX takes half a minute to build ResNet-50; smaller models are above",
)
def test_resnet50_of_keras_applications_trains_with_the_block():
    backbone = keras.applications.ResNet50(
        weights=None, input_shape=(64, 96, 3), classes=5, classifier_activation=None
    )
    model = insert(backbone, "conv4_block6_out", ClassEmbedding(5))
    # Eager, because tracing ResNet50 takes longer than this one step.
    model.compile("sgd", **mixed_patch_loss(0.5), run_eagerly=True)
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype("float32")
    labels = np.array([1, 4])
    logs = model.train_on_batch(
        images, {"logits": labels, "patch_logits": labels}, return_dict=True
    )
    assert np.isfinite(logs["loss"])
    outputs = model.output
    assert outputs["logits"].shape == (None, 5)
    assert outputs["patch_logits"].shape == (None, 4, 6, 5)


def test_a_block_with_a_single_output_keeps_the_models_output():
    block = ClassEmbedding(4, return_patch_logits=False)
    model = insert(small_backbone(), "features", block)
    assert model.output.shape == (None, 4)


def test_refuses_unknown_layers_and_names_the_nearest():
    with pytest.raises(ValueError, match="at='feature'.*Nearest: features"):
        insert(small_backbone(), "feature", ClassEmbedding(4))
    with pytest.raises(ValueError, match="functional model"):
        insert(keras.Sequential([layers.Dense(1)]), "dense", ClassEmbedding(4))
