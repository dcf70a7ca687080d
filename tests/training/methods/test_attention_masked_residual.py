import dataclasses

import keras
import numpy as np
import pytest

from keras_attn.models.masked_resnet import masked_resnet
from keras_attn.models.vit import attention_map_model, vit
from keras_attn.pipelines.attention_maps.batches import other_images
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec, spec_of
from keras_attn.training.evaluation.evaluate import judged_outputs
from keras_attn.training.methods import attention_masked_residual as method
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.map_model import load_map_model
from keras_attn.training.runs.run import Run
from tests.harness import to_numpy

SPEC = ImageSpec(16, 16, class_names=("a", "b", "c"))
PRESET = "generated_vit_mini_8_dino"


def recipe(**changes):
    values = {
        "method": "attention_masked_residual",
        "backbone": "resnet8",
        "stem": "native",
        "mask_strength": 0.5,
        "image_size": 16,
        "batch_size": 6,
        "epochs": 1,
    }
    return Recipe("tiny", **{**values, **changes})


def feed_of(recipe, splits):
    return method.METHOD.make_feed(recipe, splits, SPEC)


@pytest.fixture(scope="module")
def splits():
    random = np.random.default_rng(0)
    return {
        name: (
            random.integers(0, 256, (count, 16, 16, 3)).astype("uint8"),
            (np.arange(count) % 3).astype("int32"),
        )
        for name, count in (("train", 12), ("validation", 5))
    }


@pytest.fixture
def generator(tmp_path):
    """File of a small transformer for images of 16 pixels, of 4 x 4 patches."""
    images = keras.Input((16, 16, 3), name="images")
    spec = ImageSpec(16, 16, mean=(0.5, 0.5, 0.5))
    normalized = ImagePreprocessing(spec, name="preprocessing")(images)
    model = vit((8, 2, 2), 4, input_tensor=normalized)
    # Positions and patches that matter, so that maps differ from each other.
    for weight in model.weights:
        weight.assign(keras.random.normal(weight.shape, stddev=0.7, seed=3))
    path = tmp_path / "generator.keras"
    model.save(path)
    return path


def test_a_run_keeps_the_heads_of_its_maps(generator, splits, tmp_path):
    wanted = recipe(map_model=str(generator), map_heads="objects")
    feed = feed_of(wanted, splits)
    images, _ = splits["train"]
    maps = attention_map_model(
        keras.saving.load_model(generator), "mean", "minmax", heads=feed.heads
    )
    found = feed.maps["train"] / 255
    np.testing.assert_allclose(found, to_numpy(maps(images)), atol=0.01)
    run = run_of(wanted, tmp_path, feed)
    kept = load_map_model(run.checkpoints / "map_model.keras")
    np.testing.assert_allclose(found, to_numpy(kept(images)), atol=0.01)
    all_heads = feed_of(recipe(map_model=str(generator)), splits).maps["train"]
    assert np.abs(all_heads / 255 - found).max() > 0.1
    with pytest.raises(ValueError, match="indices with map_mode=end_to_end"):
        feed_of(
            recipe(
                map_model="x", map_mode="end_to_end", map_heads="objects", backbone="r"
            ),
            splits,
        )


def run_of(recipe, folder, feed):
    run = Run.create(folder / "run", recipe)
    feed.save(run)
    return run


def test_a_cached_training_and_what_it_is_served_as(generator, splits, tmp_path):
    wanted = recipe(map_model=str(generator))
    feed = feed_of(wanted, splits)
    assert feed.steps == 2
    model = method.METHOD.make_model(wanted, SPEC)
    model.compile("sgd", **method.METHOD.losses(wanted, model), run_eagerly=True)
    training = feed.training(0).map(lambda x, y: (x, {"logits": y}))
    model.fit(training, steps_per_epoch=2, verbose=0, shuffle=False)
    served = method.METHOD.serving_model(model, run_of(wanted, tmp_path, feed))
    # Not that of the generator, which has one of its own.
    assert spec_of(served).class_names == SPEC.class_names
    images, labels = splits["validation"]
    ((pair, found_labels),) = feed.validation()
    np.testing.assert_array_equal(found_labels, labels)
    wanted_logits = to_numpy(model(pair, training=False)["logits"])
    found = served(images)
    # Cached maps are kept in steps of 1/255.
    np.testing.assert_allclose(to_numpy(found["logits"]), wanted_logits, atol=1e-2)
    maps = to_numpy(found["attention_map"])
    np.testing.assert_allclose(
        maps.repeat(4, axis=1).repeat(4, axis=2), pair["attention_map"], atol=2e-3
    )
    assert maps.max() == 1 and maps.min() == 0
    assert found["mask_3"].shape == (5, 4, 4, 64)
    # The maps stand beside their model, for all runs, each split in a folder.
    assert len(list((generator.parent / "maps").iterdir())) == 2
    changed = generator.parent / "maps"
    before = {file: file.stat().st_mtime_ns for file in changed.rglob("*.npz")}
    feed_of(wanted, splits)
    assert before == {file: file.stat().st_mtime_ns for file in changed.rglob("*.npz")}


def test_maps_made_online_are_those_of_the_cache_on_clean_images(generator, splits):
    feeds = [
        feed_of(
            recipe(map_model=str(generator), map_mode=mode, augmentation="none"),
            splits,
        )
        for mode in ("cached", "online")
    ]
    for batches in (
        [feed.training(0) for feed in feeds],
        [f.validation() for f in feeds],
    ):
        (cached, labels), (online, again) = (next(iter(each)) for each in batches)
        np.testing.assert_array_equal(labels, again)
        np.testing.assert_array_equal(cached["images"], online["images"])
        np.testing.assert_allclose(
            cached["attention_map"], online["attention_map"], atol=3e-3
        )


def test_enlarged_images(generator, splits, tmp_path):
    wanted = recipe(map_model=str(generator), network_size=32, stem="patch")
    with pytest.raises(ValueError, match="of the size"):
        feed_of(wanted, splits)
    wanted = dataclasses.replace(wanted, mask_control="constant")
    feed = feed_of(wanted, splits)
    pair, _ = next(iter(feed.training(0)))
    assert pair["images"].shape == (6, 32, 32, 3)
    assert pair["attention_map"].shape == (6, 32, 32, 1)
    model = method.METHOD.make_model(wanted, SPEC)
    served = method.METHOD.serving_model(model, run_of(wanted, tmp_path, feed))
    ((pair, _),) = feed.validation()
    np.testing.assert_allclose(
        to_numpy(served(splits["validation"][0])["logits"]),
        to_numpy(model(pair)["logits"]),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "changes",
    [{"mask_strength": 0.0}, {"mask_control": "constant"}, {"mask_target": "none"}],
)
def test_what_reads_no_map_needs_no_map_model(changes, splits, tmp_path):
    wanted = recipe(**changes)
    feed = feed_of(wanted, splits)
    model = method.METHOD.make_model(wanted, SPEC)
    ((inputs, _),) = feed.validation()
    logits = to_numpy(model(inputs)["logits"])
    served = method.METHOD.serving_model(model, run_of(wanted, tmp_path, feed))
    found = served(splits["validation"][0])
    np.testing.assert_allclose(to_numpy(found["logits"]), logits, atol=1e-5)
    assert "attention_map" not in found
    assert isinstance(inputs, dict) == (wanted.options.mask_target != "none")


def test_shuffled_validation_keeps_images_and_labels_together(generator, splits):
    wanted = recipe(map_model=str(generator), mask_control="shuffled")
    ((pair, labels),) = feed_of(wanted, splits).validation()
    images, expected = splits["validation"]
    order = [
        int(np.flatnonzero((images == image).all((1, 2, 3)))[0])
        for image in pair["images"].numpy()
    ]
    assert sorted(order) == list(range(5)) and order != sorted(order)
    np.testing.assert_array_equal(labels, expected[order])


def test_end_to_end_trains_the_transformer(generator, splits, tmp_path):
    wanted = recipe(map_model=str(generator), map_mode="end_to_end")
    feed = feed_of(wanted, splits)
    model = method.METHOD.make_model(wanted, SPEC)
    before = keras.saving.load_model(generator).get_layer("block_1").get_weights()
    transformer = model.get_layer("map_model")
    np.testing.assert_array_equal(
        transformer.get_layer("block_1").get_weights()[2], before[2]
    )
    losses = method.METHOD.losses(wanted, model)
    model.compile(keras.optimizers.SGD(0.1), **losses, run_eagerly=True)
    training = feed.training(0).map(lambda x, y: (x, {"logits": y}))
    model.fit(training, steps_per_epoch=2, verbose=0, shuffle=False)
    assert np.any(transformer.get_layer("block_1").get_weights()[2] != before[2])
    served = method.METHOD.serving_model(model, run_of(wanted, tmp_path, feed))
    assert spec_of(served).class_names == SPEC.class_names
    assert served(splits["validation"][0])["attention_map"].shape == (5, 4, 4, 1)


def test_says_what_is_missing_or_wrong(generator, splits, tmp_path):
    with pytest.raises(ValueError, match="Expected map_model of recipe 'tiny'"):
        feed_of(recipe(), splits)
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        load_map_model(tmp_path / "none.keras")
    assert load_map_model(PRESET).output_shape == (None, 8, 8, 1)
    with pytest.raises(FileNotFoundError, match=f"Did you mean '{PRESET}'"):
        load_map_model(PRESET[:-1])
    other = tmp_path / "other.keras"
    masked_resnet(strength=None, input_shape=(16, 16, 3)).save(other)
    with pytest.raises(ValueError, match="with the output 'tokens'"):
        load_map_model(other)
    bare = tmp_path / "bare.keras"
    vit((8, 1, 2), 4, (16, 16, 3)).save(bare)
    with pytest.raises(ValueError, match="normalises raw images itself"):
        load_map_model(bare)
    with pytest.raises(ValueError, match="Did you mean 'resnet8'"):
        method.METHOD.make_model(recipe(backbone="resnet9"), SPEC)
    feed_of(recipe(map_model=str(generator)), splits)
    cache = next((tmp_path / "maps").iterdir())
    wrong = recipe(map_model=str(generator), map_cache=str(cache), network_size=32)
    with pytest.raises(ValueError, match="Received: maps of size"):
        feed_of(wrong, splits)


def test_erased_pixels_are_in_the_units_of_the_networks_images(splits):
    spec = dataclasses.replace(SPEC, mean=(0.1, 0.5, 0.9), std=(0.01, 0.02, 0.04))
    wanted = recipe(mask_strength=0.0, augmentation="translate_flip_erase", epochs=40)
    feed = method.METHOD.make_feed(wanted, splits, spec)
    plain = recipe(mask_strength=0.0, augmentation="translate_flip", epochs=40)
    changed = []
    for (pair, _), (before, _) in zip(
        feed.training(0), feed_of(plain, splits).training(0), strict=True
    ):
        images, clean = pair["images"].numpy(), before["images"].numpy()
        changed.append(images[(images != clean).all(axis=-1)])
    noise = np.concatenate(changed) / 255
    assert len(noise) > 2000
    np.testing.assert_allclose(noise.mean(axis=0), spec.mean, atol=3e-3)
    np.testing.assert_allclose(noise.std(axis=0), spec.std, rtol=0.05)


@pytest.mark.parametrize("map_mode", ["cached", "end_to_end"])
def test_shuffled_maps_are_judged_with_the_maps_of_other_images(
    map_mode, generator, splits, tmp_path
):
    wanted = recipe(
        map_model=str(generator),
        map_mode=map_mode,
        mask_control="shuffled",
        mask_strength=1.0,
    )
    feed = feed_of(wanted, splits)
    model = method.METHOD.make_model(wanted, SPEC)
    run = run_of(wanted, tmp_path, feed)
    control = method.METHOD.control_model(method.METHOD.serving_model(model, run), run)
    images, labels = splits["train"]
    found = judged_outputs(control, images, labels, 5)[0]
    # The maps are those of the model itself, each beside the image that it is not of.
    maps = load_map_model(generator).predict(images, verbose=0)
    others = other_images(len(images), 0)
    assert (others != np.arange(12)).all() and sorted(others) == list(range(12))
    network = masked_resnet(
        num_classes=3,
        stem="native",
        input_tensor=ImagePreprocessing(SPEC)(keras.Input((16, 16, 3), name="images")),
        map_shape=(4, 4, 1),
    )
    for layer in network.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    expected = network(
        {"images": images, "attention_map": maps[others]}, training=False
    )
    np.testing.assert_allclose(found, to_numpy(expected["logits"]), atol=1e-4)
    own = recipe(map_model=str(generator), map_mode=map_mode)
    assert (
        method.METHOD.control_model(model, run_of(own, tmp_path / "own", feed)) is None
    )
