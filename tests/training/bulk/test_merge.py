import numpy as np
import pytest

from keras_attn.pipelines.attention_maps.cache import MapCache
from keras_attn.pipelines.attention_maps.compute import compute_maps
from keras_attn.pipelines.images.files import image_files, read_images
from keras_attn.preprocessing import ImageSpec
from keras_attn.training.bulk import merge
from keras_attn.training.retrieval import store as index_store
from keras_attn.training.retrieval.index import index_folder
from keras_attn.training.retrieval.nearest import descriptors_of
from keras_attn.training.retrieval.search import Searcher
from keras_attn.training.retrieval.store import IndexStore
from tests.pipelines.map_models import grey_model
from tests.training import tiny_models as tiny
from tests.training.bulk import jobs


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return jobs.photos(tmp_path_factory.mktemp("given") / "photos")


@pytest.fixture(scope="module")
def job(photos):
    model = tiny.save_colour_model(photos.parent)
    return jobs.compute(jobs.make("embed", model, photos, photos.parent / "job"))


def test_descriptors_become_the_index_of_the_folder(photos, job, monkeypatch):
    pytest.importorskip("faiss", exc_type=ImportError)
    model, folder = photos.parent / "colours.keras", photos.parent
    index_folder(model, photos, folder / "index", on_corrupt="skip")
    expected = IndexStore.open(folder / "index")
    for large in (100, 1):
        monkeypatch.setattr(index_store, "LARGE", large)
        summary = merge.merge(job.path)
        assert (summary["images"], summary["problems"]) == (14, 1)
        merged = IndexStore.open(summary["output"])
        assert dict(merged.files.items()) == dict(expected.files.items())
        assert (merged.listing is not None) == (large == 1)
        assert merged.maker == expected.maker and merged.images == expected.images
        np.testing.assert_allclose(
            descriptors_of(merged), descriptors_of(expected), atol=1e-6
        )
    searcher = Searcher.open(merged.path)
    images, _, _ = read_images([photos / list(merged.files)[3]], searcher.spec)
    # Held nowhere else.
    assert isinstance(searcher.nearest.index.descriptors, np.memmap)
    assert searcher.search(images, 3)[0][0][1] > 0.999
    # It is brought up to date like any other.
    summary, _ = index_folder(model, photos, merged.path, on_corrupt="skip")
    assert (summary["added"], summary["changed"], summary["removed"]) == (0, 0, 0)


def test_a_damaged_listing_is_refused(job, tmp_path, monkeypatch):
    monkeypatch.setattr(index_store, "LARGE", 1)
    store = IndexStore.open(merge.merge(job.path, tmp_path / "index")["output"])
    file = store.path / store.listing
    with np.load(file) as arrays:
        arrays = dict(arrays)
    np.savez(file, **{**arrays, "ends": arrays["ends"][:-1]})
    with pytest.raises(ValueError, match="index.json, which is damaged"):
        IndexStore.open(store.path)


def test_maps_become_the_cache_of_the_images(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(MapCache, "SHARD", 5)
    model = grey_model(16, 16, 4)
    model.save(tmp_path / "grey.keras")
    plan = jobs.make(
        "masks", tmp_path / "grey.keras", photos, tmp_path / "job", size=16
    )
    merge.merge(jobs.compute(plan).path)
    spec = ImageSpec(16, 16)
    images, _, _ = read_images(image_files([photos]), spec, "skip")
    cache = compute_maps(model, images, tmp_path / "maps", batch_size=jobs.BATCH)
    merged = MapCache.open(plan.path / "maps")
    assert merged.maker == cache.maker and len(merged) == 14
    for one, other in zip(merged.read(), cache.read(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert merge.merge(plan.path, table=True)["output"].endswith("merged.npz")
