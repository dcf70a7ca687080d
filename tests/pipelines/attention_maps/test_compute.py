"""Cached maps: whole, found again by what they are of, never taken for others."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.attention_maps import compute as computing
from keras_attn.pipelines.attention_maps import digests
from keras_attn.pipelines.attention_maps.cache import MapCache
from keras_attn.pipelines.attention_maps.compute import as_floats, compute_maps
from keras_attn.pipelines.images.streaming import StreamedImages
from keras_attn.pipelines.sources import load_source
from keras_attn.preprocessing import ImageSpec
from tests.pipelines.map_models import grey_model

HEIGHT, WIDTH, EXAMPLES = 6, 9, 11


def pictures(seed=0):
    shape = (EXAMPLES, HEIGHT, WIDTH, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


def means(images):
    """The maps of `grey_model(HEIGHT, WIDTH, 3)`, by hand."""
    cells = images.reshape(-1, 2, 3, 3, 3, 3).mean((2, 4, 5)) / 255
    return cells[..., None]


@pytest.fixture(scope="module")
def model():
    return grey_model(HEIGHT, WIDTH, 3)


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(MapCache, "SHARD", 4)


@pytest.fixture
def calls(monkeypatch):
    """Grows with every batch that a model sees."""
    seen = []

    def predict_on_batch(model, batch):
        seen.append(len(batch))
        return keras.ops.convert_to_numpy(model(batch, training=False))

    monkeypatch.setattr(keras.Model, "predict_on_batch", predict_on_batch)
    return seen


@pytest.mark.parametrize(
    ("storage", "error"), [("uint8", 0.51 / 255), ("float16", 3e-4)]
)
def test_maps_are_those_of_the_model(model, tmp_path, storage, error):
    images, shown = pictures(), []
    cache = compute_maps(
        model,
        images,
        tmp_path / "a" / "b",
        batch_size=3,
        storage=storage,
        progress=lambda *counts: shown.append(counts),
    )
    maps, keys = cache.read()
    assert maps.dtype == storage and maps.shape == (EXAMPLES, 2, 3, 1)
    np.testing.assert_allclose(as_floats(maps), means(images), atol=error)
    # Three files: 4, 4 and 3 images, in batches of at most 3.
    assert [done for done, _ in shown] == [3, 4, 7, 8, 11]
    assert {total for _, total in shown} == {EXAMPLES} and len(keys) == EXAMPLES
    size = sum(file.stat().st_size for file in cache.path.glob("*.npz"))
    assert size < EXAMPLES * (6 * maps.itemsize + 16) + 3 * 1000


def test_maps_of_any_images_in_any_order(model, tmp_path, calls):
    images = pictures()
    compute_maps(model, images, tmp_path / "cache")
    order = [7, 2, 2, 10, 0]
    found = MapCache.open(tmp_path / "cache").maps_of(images[order])
    np.testing.assert_allclose(as_floats(found), means(images[order]), atol=0.51 / 255)
    changed = images[order].copy()
    changed[3, 1, 1, 1] ^= 1
    with pytest.raises(ValueError, match="a cache of 11 images that lacks 1 of them"):
        MapCache.open(tmp_path / "cache").maps_of(changed)


def test_the_second_time_nothing_is_computed(model, tmp_path, calls):
    images = pictures()
    first = compute_maps(model, images, tmp_path / "cache", 2, notes={"a": 1})
    del calls[:]
    again = grey_model(HEIGHT, WIDTH, 3, name="other_name")
    again.trainable = False
    again.compile("sgd", "mse")
    second = compute_maps(again, images, tmp_path / "cache", 5, notes={"a": 2})
    assert not calls and second.notes == {"a": 1}
    for one, other in zip(first.read(), second.read(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_model_setting_or_image_is_an_error_that_names_it(
    model, tmp_path, calls, monkeypatch
):
    images = pictures()
    wanted = compute_maps(model, images, tmp_path / "cache", settings={"heads": "mean"})
    before = {file.name: file.read_bytes() for file in wanted.path.iterdir()}
    changed = images.copy()
    changed[7, 3, 2, 1] ^= 1
    weights = grey_model(HEIGHT, WIDTH, 3, scale=1 / 256)
    large = grey_model(2 * HEIGHT, 2 * WIDTH, 3)
    heads = {"heads": "mean"}
    cases = [
        ((weights, images), {"settings": heads}, "model="),
        ((model, changed), {"settings": heads}, "images="),
        ((model, images[::-1]), {"settings": heads}, "images="),
        ((model, images[:9]), {"settings": heads}, "examples=11 there, 9 now"),
        ((model, images), {"settings": {"heads": "sum"}}, "settings={'heads': 'mean'}"),
        ((model, images), {"settings": heads, "storage": "float16"}, "storage=uint8"),
        (
            (large, images),
            {"settings": heads, "image_size": (12, 18)},
            r"image_size=\[6, 9\] there, \[12, 18\] now",
        ),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=f"made otherwise: .*{message}") as caught:
            compute_maps(*arguments, tmp_path / "cache", **options)
        assert "\n" not in str(caught.value)

    with monkeypatch.context() as patch:
        patch.setattr(computing, "__version__", "9.9")
        with pytest.raises(ValueError, match="version=.* there, 9.9 now"):
            compute_maps(model, images, tmp_path / "cache", settings=heads)
    after = {file.name: file.read_bytes() for file in wanted.path.iterdir()}
    assert after == before


def test_weights_and_structure_decide_the_digest():
    found = [
        digests.model_digest(grey_model(HEIGHT, WIDTH, cell, scale))
        for cell, scale in ((3, 0.1), (3, 0.1), (3, 0.2), (1, 0.1))
    ]
    assert found[0] == found[1] and len(set(found)) == 3
    model = grey_model(HEIGHT, WIDTH, 3, 0.1)
    weight = model.weights[0]
    weight.assign(keras.ops.convert_to_numpy(weight) * np.float32(1 + 1e-6))
    assert digests.model_digest(model) != found[0]


def test_an_interrupted_computation_resumes(model, tmp_path, calls):
    images = pictures()

    def interrupt(done, total):
        if done == 9:
            raise KeyboardInterrupt

    arguments = (model, images, tmp_path / "cache", 1)
    with pytest.raises(KeyboardInterrupt):
        compute_maps(*arguments, progress=interrupt)
    cache = MapCache.open(tmp_path / "cache")
    assert len(cache.missing()) == 1
    with pytest.raises(ValueError, match="those of 3 are still to be computed"):
        cache.maps_of(images[:1])
    kept = {file: file.stat().st_mtime_ns for file in cache.path.glob("*.npz")}
    del calls[:]
    shown = []
    compute_maps(*arguments, progress=lambda *counts: shown.append(counts[0]))
    assert len(calls) == 3 and shown == [8, 9, 10, 11]
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    np.testing.assert_allclose(
        as_floats(cache.maps_of(images)), means(images), atol=0.51 / 255
    )


def test_a_kill_while_writing_leaves_no_half_file(model, tmp_path, calls, monkeypatch):
    images, real = pictures(), np.savez

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(
        ValueError, match="Expected to write cached maps .*No space left"
    ):
        compute_maps(model, images, tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["maps.json"]
    # What a killed process leaves has a name that is never read.
    (tmp_path / "cache" / "00000000-00000004.npz.77.partial").write_bytes(b"half")
    monkeypatch.setattr(np, "savez", real)
    cache = compute_maps(model, images, tmp_path / "cache")
    assert len(cache.read()[0]) == EXAMPLES


def test_damaged_files_are_one_error(model, tmp_path, calls):
    images = pictures()
    cache = compute_maps(model, images, tmp_path / "cache")
    file = cache.shards()[1].path
    data = file.read_bytes()
    with np.load(file) as stored:
        arrays = dict(stored)

    def save(**changes):
        return lambda: np.savez(file, **{**arrays, **changes})

    def only(**arrays):
        return lambda: np.savez(file, **arrays)

    for damage in (
        lambda: file.write_bytes(data[: len(data) // 2]),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(data[:200] + b"\xff\xfe" + data[202:]),
        save(maps=arrays["maps"][1:]),
        save(maps=arrays["maps"].astype("float32")),
        save(maps=np.array([None])),
        only(maps=arrays["maps"]),
    ):
        damage()
        for use in (
            lambda: MapCache.open(cache.path).maps_of(images),
            lambda: compute_maps(model, images, cache.path),
        ):
            with pytest.raises(ValueError, match="00000004-00000008.npz, which is dam"):
                use()
    save(keys=arrays["keys"][::-1])()
    with pytest.raises(ValueError, match="files of one computation"):
        cache.read()
    file.unlink()
    del calls[:]
    compute_maps(model, images, cache.path)
    assert calls == [64] and len(cache.read()[0]) == EXAMPLES


def test_damaged_descriptions_and_other_folders(model, tmp_path):
    images = pictures()
    with pytest.raises(FileNotFoundError, match="keras-attn masks"):
        MapCache.open(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="which holds something else"):
        compute_maps(model, images, tmp_path)
    cache = compute_maps(model, images, tmp_path / "cache")
    good = json.loads((cache.path / "maps.json").read_text())
    for wrong in (
        "{",
        "[]",
        {**good, "format": "other"},
        {**good, "shard": 0},
        {**good, "maker": {**good["maker"], "storage": "object"}},
        {**good, "maker": {**good["maker"], "examples": "11"}},
        {**good, "maker": {}},
    ):
        text = wrong if isinstance(wrong, str) else json.dumps(wrong)
        (cache.path / "maps.json").write_text(text)
        with pytest.raises(
            ValueError, match="maps.json, which is damaged or not of this pro"
        ):
            compute_maps(model, images, cache.path)


def test_maps_of_an_earlier_version_are_refused_in_one_line(tmp_path, model):
    """As commit a8c9ace wrote them."""
    maker = {
        "model": "225dc5552cbaf4b7cb859db46f2049674558e73b6bdafc4790a9ee746b94b83b",
        "images": "bfd805440667bae613bec651229f0de97055b1f846c72c78389ed8b02709d5f7",
        "examples": EXAMPLES,
        "map_shape": [2, 3, 1],
        "image_size": [HEIGHT, WIDTH],
        "storage": "uint8",
        "settings": {},
        "version": "0.1.0",
    }
    described = {"format": "keras-attn maps", "version": 1, "maker": maker}
    (tmp_path / "maps.json").write_text(
        json.dumps({**described, "shard": 512, "notes": {}})
    )
    maps, keys = np.zeros((EXAMPLES, 2, 3, 1), "uint8"), np.zeros((EXAMPLES, 16))
    np.savez(tmp_path / "00000000-00000011.npz", maps=maps, keys=keys.astype("uint8"))
    for use in (MapCache.open, lambda path: compute_maps(model, pictures(), path)):
        with pytest.raises(
            ValueError, match="of version 1; .*`keras-attn masks` makes"
        ):
            use(tmp_path)


def test_streamed_images(tmp_path, model, calls):
    images = pictures()
    for number, image in enumerate(images):
        (tmp_path / "photos" / f"{number:02}").mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "photos" / f"{number:02}" / "0.png")
    source = load_source("folder", tmp_path / "photos")
    streamed = StreamedImages(source, ImageSpec(HEIGHT, WIDTH))
    cache = compute_maps(model, streamed, tmp_path / "cache")
    found = cache.maps_of(streamed[[5, 1]])
    np.testing.assert_allclose(as_floats(found), means(images[[5, 1]]), atol=0.51 / 255)
    Image.fromarray(images[0]).save(tmp_path / "photos" / "05" / "0.png")
    with pytest.raises(ValueError, match="files have changed since"):
        cache.maps_of(streamed[[5, 1]])


def test_images_are_resized_for_the_model(tmp_path):
    flat = np.full((2, 4, 5, 3), 51, "uint8")
    cache = compute_maps(grey_model(8, 10), flat, tmp_path, image_size=(8, 10))
    assert cache.maker["map_shape"] == [8, 10, 1]
    np.testing.assert_array_equal(cache.maps_of(flat), np.full((2, 8, 10, 1), 51))


def test_maps_that_cannot_be_stored(tmp_path):
    images = pictures()
    bright = grey_model(HEIGHT, WIDTH, 3, scale=1.0)
    with pytest.raises(ValueError, match=r"maps in \[0, 1\], to be stored as uint8"):
        compute_maps(bright, images, tmp_path / "a")
    found, _ = compute_maps(bright, images, tmp_path / "b", storage="float16").read()
    np.testing.assert_allclose(found, 255 * means(images), rtol=1e-3)
    # Where nothing was computed yet, other settings are no mistake.
    found, _ = compute_maps(bright, images, tmp_path / "a", storage="float16").read()
    assert found.max() > 100
    nan = grey_model(HEIGHT, WIDTH, 3, scale=float("nan"))
    with pytest.raises(ValueError, match="values from nan to nan"):
        compute_maps(nan, images, tmp_path / "c", storage="float16")
    with pytest.raises(ValueError, match="storage='float64'"):
        compute_maps(bright, images, tmp_path / "d", storage="float64")
    with pytest.raises(ValueError, match="at least one image"):
        compute_maps(bright, images[:0], tmp_path / "d")
    with pytest.raises(ValueError, match="of the size .4, 4. to maps"):
        compute_maps(bright, images, tmp_path / "d", image_size=(4, 4))
    assert not (tmp_path / "d").exists()
