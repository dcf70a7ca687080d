"""Object-DINO against loops, and against all ways to divide heads into clusters."""

import itertools

import keras
import numpy as np
import pytest

from keras_attn.explain import (
    attention_maps,
    head_features,
    object_heads,
    token_cut,
)
from keras_attn.models import attention_map_model, vit
from tests.harness import to_numpy

WIDTH, HEADS, BLOCKS = 12, 3, 2
DEPTH = WIDTH // HEADS
ALL = list(itertools.product(range(BLOCKS), range(HEADS)))
IMAGES = np.random.default_rng(0).standard_normal((3, 8, 12, 3)).astype("float32")


def model_with(places=()):
    """Tokens stay as they are; heads in these places have the same kernel."""
    model = vit((WIDTH, BLOCKS, HEADS), 4, (8, 12, 3))
    random = np.random.default_rng(2)
    thing = random.normal(size=(WIDTH, 3, DEPTH))
    for number in range(BLOCKS):
        block = model.get_layer(f"block_{number + 1}")
        for dense in (block.attention.projection, block.reduce):
            dense.kernel.assign(np.zeros(dense.kernel.shape))
        kernel = random.normal(size=(WIDTH, 3, HEADS, DEPTH))
        for head in range(HEADS):
            if (number, head) in places:
                kernel[:, :, head] = thing
        block.attention.queries_keys_values.kernel.assign(kernel.reshape(WIDTH, -1))
    return model


def parts_of(model):
    """Dict from `(block, head)` to `(images, 3, patches, depth)`, of length 1."""
    tokens = keras.Model(model.input, model.get_layer("block_1").input)(IMAGES)
    tokens = to_numpy(tokens)[:, 1:]
    centred = tokens - tokens.mean(-1, keepdims=True)
    tokens = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    found = {}
    for number, head in ALL:
        dense = model.get_layer(f"block_{number + 1}").attention.queries_keys_values
        kernel = to_numpy(dense.kernel).reshape(WIDTH, 3, HEADS, DEPTH)[:, :, head]
        parts = np.einsum("bpw,wrd->brpd", tokens, kernel)
        found[number, head] = parts / np.linalg.norm(parts, axis=-1, keepdims=True)
    return found


def rows_of(parts):
    """Description of each head, standardised over the heads."""
    rows = []
    for head in ALL:
        row = np.zeros((len(IMAGES), 6))
        for image, part in itertools.product(range(len(IMAGES)), range(3)):
            r = parts[head][image, part]
            for query in r:
                weights = np.exp([query @ key / 60 for key in r])
                row[image] += weights / weights.sum() / 18
        rows.append(row.ravel())
    return (rows - np.mean(rows, axis=0)) / np.std(rows, axis=0)


def test_equals_the_best_of_all_divisions():
    model = model_with()
    rows, losses = rows_of(parts_of(model)), {}
    for labels in itertools.product(range(3), repeat=len(ALL)):
        groups = [rows[np.equal(labels, label)] for label in range(3)]
        loss = sum(((g - g.mean(0)) ** 2).sum() for g in groups if len(g))
        losses[labels] = loss
    best = min(losses, key=losses.get)
    last = {label: best[HEADS:].count(label) for label in best}
    groups = [[h for h, b in zip(ALL, best, strict=True) if b == k] for k in set(best)]
    most = [
        each for each in groups if last[best[ALL.index(each[0])]] == max(last.values())
    ]
    found = object_heads(model, IMAGES, clusters=3)
    assert found in most and len(groups) == 3
    assert object_heads(model, IMAGES, clusters=1) == ALL


def test_of_equal_clusters_the_one_inside_is_taken():
    model = vit((WIDTH, 1, HEADS), 4, (12, 12, 3))
    for weight in model.weights:
        weight.assign(keras.random.normal(weight.shape, seed=len(weight.path)))
    images = np.random.default_rng(0).standard_normal((3, 12, 12, 3))
    maps = to_numpy(attention_maps(model, images))
    inside = (maps[:, :, 1, 1] / maps.sum(axis=(2, 3))).mean(axis=0)
    # Each head is a cluster, and all are of the last block.
    assert object_heads(model, images) == [(0, inside.argmax())]


def test_planted_heads_are_found():
    places = [(0, 2), (1, 0), (1, 1)]
    assert object_heads(model_with(places), IMAGES) == places


def test_cosines_of_features_are_the_mean_of_those_of_the_parts():
    model, heads = model_with(), [(0, 1), (1, 2)]
    features = head_features(model, IMAGES, heads)
    assert features.shape == (3, 2, 3, 2 * 3 * DEPTH)
    assert token_cut(features).shape == (3, 2, 3)
    parts = parts_of(model)
    wanted = np.mean([parts[h] @ np.swapaxes(parts[h], 2, 3) for h in heads], (0, 2))
    flat = features.reshape(3, 6, -1)
    found = flat @ np.swapaxes(flat, 1, 2) / 6
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    with pytest.raises(ValueError, match=r"6 pairs .* last of them \(1, 2\)"):
        head_features(model, IMAGES, [(2, 0)])


@pytest.mark.parametrize("wrapped", [False, True])
def test_maps_of_chosen_heads(wrapped, tmp_path):
    model = model_with()
    other = keras.Model(model.input, model.output["embedding"]) if wrapped else model
    heads = [(1, 2), (0, 1), (1, 0)]
    maps = attention_map_model(other, heads=heads)
    found = np.moveaxis(to_numpy(maps(IMAGES)), -1, 0)
    for (block, head), each in zip(heads, found, strict=True):
        wanted = to_numpy(attention_maps(model, IMAGES, block))[:, head]
        np.testing.assert_allclose(each, wanted, atol=1e-5)
    last = to_numpy(attention_map_model(other, heads=[2])(IMAGES))[..., 0]
    np.testing.assert_allclose(last, found[0], atol=1e-6)
    mean = attention_map_model(other, "mean", heads=heads)
    mean.save(tmp_path / "maps.keras")
    loaded = keras.saving.load_model(tmp_path / "maps.keras")
    mean = found.mean(axis=0)
    np.testing.assert_allclose(to_numpy(loaded(IMAGES))[..., 0], mean, atol=1e-6)
    for wrong in ([], [3], [(0, -1)], [(0, 1, 2)]):
        with pytest.raises(ValueError, match="Expected .*heads.*Received: head"):
            attention_map_model(other, heads=wrong)


@pytest.mark.parametrize("flash", [False, None])
def test_attention_of_keras(flash):
    inputs = keras.Input((8, 12, 3))
    tokens = keras.layers.Conv2D(8, 4, 4)(inputs)
    tokens = keras.layers.Reshape((6, 8))(tokens)
    attention = keras.layers.MultiHeadAttention(2, 4, flash_attention=flash)
    tokens = attention(tokens, tokens)
    tokens = attention(tokens, tokens)
    model = keras.Model(inputs, tokens)
    features = head_features(model, IMAGES[:1], [(0, 1)])
    first = keras.Model(inputs, model.layers[2].output)(IMAGES[:1])
    kernel = to_numpy(attention.key_dense.kernel)[:, 1]
    keys = to_numpy(first)[0] @ kernel
    keys /= np.linalg.norm(keys, axis=-1, keepdims=True)
    found = features.reshape(6, 3, 4)
    assert any(np.allclose(found[:, part], keys, atol=1e-5) for part in range(3))
    assert object_heads(model, IMAGES[:1])


def test_without_queries_keys_and_values():
    inputs = keras.Input((8, 12, 3))
    tokens = keras.layers.Reshape((6, 8))(keras.layers.Conv2D(8, 4, 4)(inputs))

    class Plain(keras.layers.Layer):
        def call(self, x):
            scores = keras.ops.matmul(x, keras.ops.swapaxes(x, 1, 2))[:, None]
            return keras.ops.matmul(keras.ops.softmax(scores)[:, 0], x)

    with pytest.raises(ValueError, match="keys and values are made by layers inside"):
        object_heads(keras.Model(inputs, Plain()(tokens)), IMAGES)
    with pytest.raises(ValueError, match="attention among the patches"):
        object_heads(keras.Model(inputs, tokens), IMAGES)
