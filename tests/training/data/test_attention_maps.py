"""The maps of a data set: all of them, found again by a training, and drawn."""

import json

import keras
import numpy as np
import pytest
from keras.saving import load_model
from PIL import Image

from keras_attn.models.vit import attention_map_model, vit
from keras_attn.ops.attention_maps import normalize_map
from keras_attn.pipelines.attention_maps.cache import MapCache
from keras_attn.pipelines.attention_maps.compute import as_floats
from keras_attn.pipelines.generated.dataset import generated_source
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.data import attention_maps
from tests.pipelines.map_models import grey_model

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)
GENERATED = ("examples=130", "image_size=32")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "grey.keras"
    grey_model(32, 32, 4).save(path)
    return path


def test_a_generated_data_set(model_file, tmp_path):
    arguments = (model_file, "generated", tmp_path / "maps")
    shown = []
    summary, problems = attention_maps.masks(
        *arguments,
        assignments=GENERATED,
        progress=lambda *counts: shown.append(counts),
    )
    assert problems == [] and shown[-1] == (130, 130)
    source = generated_source(examples=130, image_size=32)
    cache = MapCache.open(tmp_path / "maps")
    wanted = source.images.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4, 5)) / 255
    order = np.random.default_rng(0).permutation(130)[:40]
    found = as_floats(cache.maps_of(source.images[order]))
    np.testing.assert_allclose(found[..., 0], wanted[order], atol=0.51 / 255)
    assert cache.notes["dataset"] == "generated"
    assert summary["size"] == summary["network_size"] == [32, 32]
    text = attention_maps.format_summary(json.loads(json.dumps(summary)))
    assert "maps of 130 images, 8 x 8 cells of 32 x 32 pixels, uint8" in text
    assert Image.open(summary["picture"]).format == "PNG"
    # Again: nothing to do; with another size: an error that says so.
    del shown[:]
    attention_maps.masks(
        *arguments, assignments=GENERATED, progress=lambda *c: shown.append(c)
    )
    assert shown == [(130, 130)]
    with pytest.raises(ValueError, match="images=.* there, .* now"):
        attention_maps.masks(*arguments, assignments=("examples=130", "image_size=40"))


def test_a_folder_of_photographs(model_file, tmp_path):
    random = np.random.default_rng(0)
    for name in ("ant/0.png", "ant/1.png", "bee/0.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (32, 32, 3)).astype("uint8")
        Image.fromarray(pixels).save(path)
    (tmp_path / "photos" / "bee" / "1.png").write_bytes(b"no image")
    arguments = (model_file, str(tmp_path / "photos"), tmp_path / "maps")
    summary, problems = attention_maps.masks(*arguments, on_corrupt="skip", in_memory=0)
    assert summary["images"] == 3 and summary["size"] == [32, 32]
    assert len(problems) == 1 and "bee/1.png" in problems[0]
    # Held in 16 pixels and enlarged for the model.
    summary, _ = attention_maps.masks(
        *arguments[:2], tmp_path / "small", size=16, on_corrupt="skip"
    )
    assert summary["size"] == [16, 16] and summary["network_size"] == [32, 32]


def test_the_maps_of_a_transformer(tmp_path):
    images = keras.Input((32, 32, 3), name="images")
    normalized = ImagePreprocessing(ImageSpec(32, 32), name="preprocessing")(images)
    vit((8, 1, 2), 8, input_tensor=normalized).save(tmp_path / "vit.keras")
    summary, _ = attention_maps.masks(
        tmp_path / "vit.keras", "generated", tmp_path / "m", assignments=GENERATED
    )
    assert summary["map_shape"] == [4, 4, 1]
    maps, _ = MapCache.open(tmp_path / "m").read()
    assert (maps.min((1, 2)) == 0).all() and (maps.max((1, 2)) == 255).all()
    # As caches were described before heads could be chosen.
    assert MapCache.open(tmp_path / "m").maker["settings"] == {}

    def of_heads(heads, folder):
        arguments = tmp_path / "vit.keras", "generated", tmp_path / folder
        summary, _ = attention_maps.masks(
            *arguments, heads=heads, assignments=GENERATED
        )
        return summary, MapCache.open(tmp_path / folder).read()[0]

    pixels = generated_source(examples=130, image_size=32).images[:9]
    wanted = attention_map_model(load_model(tmp_path / "vit.keras"))(pixels)
    wanted = normalize_map(wanted)
    summary, found = of_heads("1", "one")
    np.testing.assert_allclose(found[:9, ..., 0] / 255, wanted[..., 1], atol=0.01)
    assert "heads [1], uint8" in attention_maps.format_summary(summary)
    summary, found = of_heads("objects", "chosen")
    ((block, head),) = summary["heads"]
    np.testing.assert_allclose(found[:9, ..., 0] / 255, wanted[..., head], atol=0.01)
    assert block == 0
    with pytest.raises(ValueError, match=r"settings=.* there, .*1.* now"):
        of_heads([1], "m")
    with pytest.raises(
        ValueError, match=r"heads in 0..1 of block -1. Received: head 2"
    ):
        of_heads("2", "no")
    with pytest.raises(ValueError, match="Did you mean 'objects'"):
        of_heads("object", "no")
    assert not (tmp_path / "no").exists()


def test_each_image_stands_beside_its_map():
    images = np.zeros((3, 64, 64, 3), "uint8")
    images[0], images[2] = 80, 200
    maps = np.zeros((3, 2, 2, 1), "uint8")
    maps[2, 0, 1] = 255
    sheet = attention_maps.map_sheet(images, maps, [0, 0, 1], ["ant", "bee"], 2)
    pixels = np.asarray(sheet)
    assert sheet.size == (200 + 4 * 68 + 4, 2 * 68 + 4)
    first, over_first = (pixels[36, x] for x in (204 + 32, 204 + 68 + 32))
    assert (first == 80).all() and np.ptp(over_first.astype(int)) < 30
    bright, dark = (pixels[68 + 4 + 2, 204 + 68 + x] for x in (61, 2))
    assert bright.astype(int).sum() > dark.astype(int).sum() + 150
    over = attention_maps.overlaid(images[2], np.array([[0.0, 1.0]]))
    # Inferno runs from black to a light yellow; the grey is 200.
    np.testing.assert_allclose(over[0, 0], 0.4 * 200, atol=4)
    np.testing.assert_allclose(
        over[0, -1], 0.4 * 200 + 0.6 * 255 * np.array([0.988, 0.998, 0.645]), atol=2
    )


def test_mistakes(model_file, tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'cifar10'"):
        attention_maps.masks(model_file, "cifar1O", tmp_path / "maps")
    with pytest.raises(ValueError, match="name of a data set only"):
        attention_maps.masks(model_file, str(tmp_path), tmp_path / "maps", data="x")
    with pytest.raises(ValueError, match="whose heads can be chosen"):
        attention_maps.masks(model_file, "generated", tmp_path / "maps", heads="0")
    images = keras.Input((None, None, 3))
    free = keras.Model(images, keras.layers.Conv2D(1, 4, 4)(images))
    free.save(tmp_path / "free.keras")
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / name / "0.png")
    with pytest.raises(ValueError, match=r"a size of the images \(--size\)"):
        attention_maps.masks(
            tmp_path / "free.keras", str(tmp_path / "photos"), tmp_path / "m"
        )
    vit((8, 1, 2), 4, (16, 16, 3)).save(tmp_path / "bare.keras")
    with pytest.raises(ValueError, match="normalises raw images itself"):
        attention_maps.masks(tmp_path / "bare.keras", "generated", tmp_path / "m")
    with pytest.raises(ValueError, match="examples_per_class=0"):
        attention_maps.map_sheet(
            np.zeros((1, 8, 8, 3), "uint8"), np.zeros((1, 1, 1, 1)), [0], ["a"], 0
        )
    assert not (tmp_path / "maps").exists()
