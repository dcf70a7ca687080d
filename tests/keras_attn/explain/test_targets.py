"""Targets of explanations, on a score that is known in every cell."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain import grad_cam, hires_cam, occlusion, pixels, similarity
from tests.harness import to_numpy


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0.5, 1, (2, 4, 6, 2)).astype("float32")


def scored(units, **options):
    """Scores that are the means of channels, by their sign."""
    inputs = keras.Input((4, 6, 2))
    x = layers.Identity(name="features")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    end = layers.Dense(units, use_bias=False, **options)
    model = keras.Model(inputs, end(x))
    end.set_weights([np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])[:, :units]])
    return model


def test_a_class_and_a_list(images):
    model = scored(3)
    wanted = to_numpy(grad_cam(model, images, labels=[[0, 2], [0, 2]], raw=True))
    found = to_numpy(grad_cam(model, images, target=[0, 2], raw=True))
    np.testing.assert_array_equal(found, wanted)
    # As many as there are classes, and still no one-hot row.
    found = grad_cam(model, images, target=[0, 0, 1], raw=True)
    np.testing.assert_array_equal(to_numpy(found)[:, 1], wanted[:, 0])
    found = grad_cam(model, images, target=2, raw=True)
    np.testing.assert_array_equal(to_numpy(found), wanted[:, 1])


def test_the_sides_of_a_single_score(images):
    model = scored(1, activation="sigmoid")
    raised = to_numpy(hires_cam(model, images - 0.75, target=1, raw=True))
    lowered = to_numpy(hires_cam(model, images - 0.75, target=0, raw=True))
    share = (images[..., 0] - 0.75) / 24
    np.testing.assert_allclose(raised, np.maximum(share, 0), atol=1e-6)
    np.testing.assert_allclose(lowered, np.maximum(-share, 0), atol=1e-6)


def test_any_function_of_the_scores(images):
    model = scored(3)

    def margin(scores):
        return scores[:, 1] - scores[:, 0]

    wanted = to_numpy(grad_cam(model, images, target=1, against=0, raw=True))
    found = to_numpy(grad_cam(model, images, target=[margin, margin], raw=True))
    np.testing.assert_allclose(found[:, 1], wanted, atol=1e-6)


def test_occlusion_takes_targets_too(images):
    model = scored(3)
    options = dict(window=2, stride=2, value=0.0, raw=True)
    wanted = occlusion(model, images, labels=[[0, 2], [0, 2]], **options)
    found = occlusion(model, images, target=[0, 2], **options)
    np.testing.assert_array_equal(found, wanted)

    def third(scores):
        return scores[:, 2]

    found = occlusion(model, images, target=third, **options)
    np.testing.assert_allclose(found, wanted[:, 1], atol=1e-6)
    found = occlusion(model, images, target=[third, third], **options)
    np.testing.assert_allclose(found[:, 0], wanted[:, 1], atol=1e-6)
    assert occlusion(model, images, target=2, **options).shape == (2, 4, 6)


def test_pixels_of_a_segmentation(images):
    inputs = keras.Input((4, 6, 2))
    x = layers.Identity(name="features")(inputs)
    model = keras.Model(inputs, layers.Softmax()(3 * x))
    mask = np.zeros((4, 6))
    mask[1, 2:4] = 1
    raw = to_numpy(
        hires_cam(model, images, "features", target=pixels(mask, 1), raw=True)
    )
    # The softmax is left out: the logits of these pixels alone.
    np.testing.assert_allclose(raw, 3 * images[..., 1] * mask, atol=1e-5)
    with pytest.raises(ValueError, match=r"mask \(2, 2\), scores \(2, 4, 6, 2\)"):
        hires_cam(model, images, "features", target=pixels(np.eye(2)))
    with pytest.raises(ValueError, match="function as `target`.*target=1"):
        hires_cam(model, images, "features", target=1)


def test_the_similarity_of_two_embeddings(images):
    model, other = scored(2), np.array([0.0, 2.0])
    embedding = to_numpy(model(images)).astype("float64")
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    cosine = embedding[:, 1:] / length
    slope = (np.array([[0.0, 1.0]]) - cosine * embedding / length) / length
    kernel = np.array([[1.0, -2.0], [0.0, 3.0]])
    wanted = np.maximum((images * (slope @ kernel.T)[:, None, None] / 24).sum(-1), 0)
    found = hires_cam(model, images, "features", target=similarity(other), raw=True)
    np.testing.assert_allclose(to_numpy(found), wanted, atol=1e-5)


def test_the_images_of_a_pair_are_told_apart_by_call(images):
    tower = scored(2)
    left, right = (
        keras.Input((4, 6, 2), name="left"),
        keras.Input((4, 6, 2), name="right"),
    )
    product = ops.sum(tower(left) * tower(right), axis=-1, keepdims=True)
    pair = keras.Model([left, right], product)
    given = [images, images[::-1]]
    for index in range(2):
        options = dict(target=1, raw=True, image_input=index)
        named = f"{tower.name}/features/{index}"
        found = to_numpy(hires_cam(pair, given, named, **options))
        mine = ops.convert_to_tensor(given[index])
        kernel = np.array([[1.0, -2.0], [0.0, 3.0]])
        slope = to_numpy(tower(given[1 - index])) @ kernel.T / 24
        wanted = np.maximum((to_numpy(mine) * slope[:, None, None]).sum(-1), 0)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "target, message",
    [
        (3, r"class in 0\.\.2"),
        ([], "class in"),
        (0.5, "class in"),
        ([1, len], "not both"),
        (lambda scores: scores, r"one number per image, \(2,\).*\(2, 3\)"),
    ],
)
def test_other_targets_are_refused(images, target, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(scored(3), images, target=target)


def test_labels_and_a_target_exclude_each_other(images):
    with pytest.raises(ValueError, match="`labels` or `target`"):
        grad_cam(scored(3), images, labels=[0, 1], target=1)
