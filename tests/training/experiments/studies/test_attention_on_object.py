"""Attention on known objects, against counting pixel by pixel."""

import keras
import numpy as np
import pytest

from keras_attn.explain import object_heads
from keras_attn.models.vit import VIT_SIZES, attention_of
from keras_attn.pipelines.generated.dataset import generate
from keras_attn.training.data.load import load_data, load_source_of, load_source_split
from keras_attn.training.experiments.studies import (
    attention_on_generated,
    attention_on_object,
)
from keras_attn.training.fit.train import initial_model
from keras_attn.training.runs.map_model import sample_of
from tests.training.tiny_dino import TINY_SIZE, tiny_recipe

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)


def counted(maps, regions):
    """Each pixel has its part of its cell's share."""
    shares = []
    for values, region in zip(maps, regions, strict=True):
        height, width = region.shape
        down, right = height // values.shape[0], width // values.shape[1]
        inside = sum(
            values[y // down, x // right]
            for y in range(height)
            for x in range(width)
            if region[y, x]
        )
        shares.append(inside / values.sum() / down / right)
    return np.mean(shares)


def test_share_is_that_of_counting_pixels():
    random = np.random.default_rng(0)
    maps, regions = random.random((3, 2, 5)), random.random((3, 6, 35)) < 0.3
    found = attention_on_object.share(maps, regions)
    assert found == pytest.approx(counted(maps, regions))
    everywhere = attention_on_object.share(np.ones((3, 2, 5)), regions)
    assert everywhere == pytest.approx(regions.mean())


class Untrained:
    """A run whose model is as its recipe starts with."""

    def __init__(self, recipe):
        self.recipe = recipe
        self.network = initial_model(recipe, load_data(recipe)[0])

    def load_model(self, which):
        return self.network


def test_rows_of_a_run(monkeypatch):
    monkeypatch.setitem(VIT_SIZES, "tiny", TINY_SIZE)
    recipe = tiny_recipe()
    run, source = Untrained(recipe), load_source_of(recipe)
    lines = attention_on_object.study({"dino": run}, {"dino": source})
    found = {(row, metric): value for row, metric, value, _ in lines}
    _, _, images, indices = load_source_split(recipe, source=source)
    chosen = indices["test"]
    masks = source.annotations["mask"][chosen]
    assert masks.any(axis=(1, 2)).all()
    attention = np.asarray(attention_of(run.network)(images[chosen]))
    maps = attention[:, :, 0, 1:].reshape(-1, 2, 8, 8)
    best = np.argmax([counted(maps[:, head], masks) for head in range(2)])
    on_object = {
        "dino": counted(maps.mean(axis=1), masks),
        "best_head": max(counted(maps[:, head], masks) for head in range(2)),
        "other_image": counted(np.roll(maps.mean(axis=1), 1, axis=0), masks),
        "best_head_other_image": counted(np.roll(maps[:, best], 1, axis=0), masks),
        "uniform": masks.mean(),
    }
    sample = images[chosen[sample_of(len(chosen))]]
    heads = [head for _, head in object_heads(run.network, sample)]
    on_object["chosen_heads"] = counted(maps[:, heads].mean(axis=1), masks)
    for row, value in on_object.items():
        metric = row, "attention_on_object"
        assert found[metric] == pytest.approx(100 * value, abs=1e-3)
    for metric in attention_on_object.METRICS:
        # Nothing was trained.
        assert found["random_initialization", metric] == pytest.approx(
            found["dino", metric]
        )
    top, left, bottom, right = source.annotations["box"][chosen].T
    area = ((bottom - top) * (right - left)).mean() / 32**2
    assert found["uniform", "attention_in_box"] == pytest.approx(100 * area)
    boxes = source.annotations["box"][chosen]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 32**2
    assert found["uniform", "corloc"] == pytest.approx(100 * (areas >= 0.5).mean())
    for row in ("token_cut", "lost", "chosen_heads", "token_cut_other_image"):
        assert 0 <= found[row, "corloc"] <= 100


def test_runs_on_other_images_are_judged_on_generated_ones(monkeypatch):
    monkeypatch.setitem(VIT_SIZES, "tiny", TINY_SIZE)
    monkeypatch.setattr(attention_on_generated, "EXAMPLES", 30)
    monkeypatch.setattr(attention_on_generated, "DIFFICULTIES", (0.5,))
    recipe = tiny_recipe()
    run, source = Untrained(recipe), load_source_of(recipe)
    lines = attention_on_generated.study({"dino": run}, {"dino": source})
    found = {(row, metric): value for row, metric, value, _ in lines}
    data = generate(30, image_size=recipe.image_size, difficulty=0.5)
    attention = np.asarray(attention_of(run.network)(data.images))
    maps = attention[:, :, 0, 1:].reshape(30, 2, 8, 8).mean(axis=1)
    on_object = 100 * counted(maps, data.masks)
    assert found["dino", "attention_on_object_0.5"] == pytest.approx(on_object)
    area = 100 * data.masks.mean()
    assert found["uniform", "attention_on_object_0.5"] == pytest.approx(area)
    assert len(found) == 2 * 8 + 5
