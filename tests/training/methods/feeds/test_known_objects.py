import dataclasses

import keras
import numpy as np
import pytest

from keras_attn.pipelines.generated.dataset import generate
from keras_attn.preprocessing import ImageSpec
from keras_attn.training.experiments import reproduce, results
from keras_attn.training.methods import attention_masked_residual as method
from keras_attn.training.methods.feeds import attention_maps
from keras_attn.training.methods.feeds.known_objects import true_maps
from keras_attn.training.recipes.registry import get_experiment
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.run import Run
from keras_attn.training.trained import load_trained

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)
SIZE, COUNT = 32, 24


def recipe(**changes):
    values = {
        "method": "attention_masked_residual",
        "backbone": "resnet8",
        "map_mode": "true_mask",
        "image_size": SIZE,
        "examples": COUNT,
        "batch_size": 6,
        "epochs": 1,
        "difficulty": 0.0,
    }
    return Recipe("tiny", **{**values, **changes})


@pytest.fixture(scope="module")
def data():
    return generate(COUNT, SIZE, difficulty=0.0)


def test_an_image_gets_its_own_object_in_any_order(data):
    order = np.random.default_rng(0).permutation(COUNT)[:9]
    masks = true_maps(recipe(), data.images[order])
    assert masks.dtype == "uint8" and masks.shape == (9, SIZE, SIZE, 1)
    np.testing.assert_array_equal(masks[..., 0], 255 * data.masks[order])
    boxes = true_maps(recipe(map_mode="true_box"), data.images[order])
    for place, box in zip(order, boxes[..., 0], strict=True):
        y0, x0, y1, x1 = data.boxes[place]
        assert (box[y0:y1, x0:x1] == 255).all()
        assert box.sum() == 255 * (y1 - y0) * (x1 - x0)


@pytest.mark.parametrize("network_size", [0, 64])
def test_maps_move_with_their_images(data, network_size):
    """Images that show their mask in place of their pixels tell where it went."""
    wanted = recipe(augmentation="translate_flip", network_size=network_size)
    spec = ImageSpec(SIZE, SIZE, class_names=data.class_names)
    splits = {
        "train": (data.images, data.labels),
        "validation": (data.images[:5], data.labels[:5]),
    }
    feed = attention_maps.MapFeed(wanted, splits, spec)
    ((pair, _),) = feed.validation()
    larger = (network_size or SIZE) // SIZE
    expected = data.masks[:5].repeat(larger, axis=1).repeat(larger, axis=2)
    np.testing.assert_array_equal(pair["attention_map"][..., 0], expected)
    # With the masks as images, augmented images are to be the maps.
    shown = np.where(data.masks[..., None], 255, 0).astype("uint8").repeat(3, axis=-1)
    feed.splits["train"] = (shown, data.labels)
    areas = set()
    for pair, _ in feed.training(0):
        images = pair["images"].numpy()[..., :1].astype("float32") / 255
        maps = pair["attention_map"].numpy()
        areas |= set(maps.mean(axis=(1, 2, 3)).tolist())
        if network_size:
            # Bicubic images and the nearest cell's maps differ at the outline.
            images, maps = (images > 0.5), maps > 0.5
            assert (images == maps).mean() > 0.97
        else:
            np.testing.assert_array_equal(images, maps)
    # Other masks than those of the clean images: some objects left the image in part.
    assert areas - set(data.masks.mean(axis=(1, 2), dtype="float32").tolist())


def test_a_row_is_trained_and_judged_with_its_maps(tmp_path, monkeypatch):
    name = "attention_masked_residual_true_maps_generated"
    small = [f"image_size={SIZE}", "examples=120", "batch_size=20", "epochs=1"]
    path = reproduce.reproduce(
        name,
        workdir=tmp_path / "runs",
        results_folder=tmp_path / "results",
        rows=["a1_true_masks"],
        overrides=[*small, "deterministic=false"],
    )
    (line,) = results.read_rows(path)
    assert (line["row"], line["metric"]) == ("a1_true_masks", "test_accuracy")
    folder = tmp_path / "runs" / name / "a1_true_masks" / "seed-0"
    with pytest.raises(ValueError, match="whose maps can be made of an image"):
        load_trained(folder)

    # By hand: the last model on the test images and their masks.
    run = Run.open(folder)
    data = generate(120, SIZE)
    images, labels, masks = (
        each[100:] for each in (data.images, data.labels, data.masks)
    )
    inputs = {"images": images, "attention_map": masks[..., None].astype("float32")}
    logits = run.load_model("last").predict(inputs, verbose=0)["logits"]
    found, given = method.METHOD.fed_logits(run, images, labels)
    np.testing.assert_allclose(found, logits, atol=1e-4)
    np.testing.assert_array_equal(given, labels)
    assert line["value"] == pytest.approx(100 * (logits.argmax(-1) == labels).mean())


def test_rows_differ_in_nothing_but_their_maps_and_masks():
    rows = get_experiment("attention_masked_residual_true_maps_generated").rows
    same = {
        "name": "",
        "row": "",
        "mask_strength": 1.0,
        "mask_target": "shortcut",
        "mask_control": "none",
        "map_mode": "cached",
    }
    assert len({dataclasses.replace(row.recipe, **same) for row in rows}) == 1
    # Only one needs a model.
    needing = [row.label for row in rows if needs_model(row.recipe)]
    assert needing == ["a1_attention"]


def needs_model(recipe):
    return attention_maps.reads_maps(recipe) and not attention_maps.reads_true_maps(
        recipe
    )


def test_says_what_has_no_known_objects(data):
    with pytest.raises(ValueError, match="known objects for map_mode=true_mask"):
        method.METHOD.check(recipe(dataset="cifar10"))
    method.METHOD.check(recipe(dataset="cifar10", mask_strength=0.0))
    others = data.images.copy()
    others[3] += 1
    with pytest.raises(ValueError, match="the first is image 3"):
        true_maps(recipe(), others)
