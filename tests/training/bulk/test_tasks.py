import keras
import numpy as np
import pytest

from keras_attn.models import vit
from keras_attn.pipelines.images.files import image_files, read_images
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.adoption import ModelSource
from keras_attn.training.bulk.tasks import TASKS, cell_means, task_of
from keras_attn.training.explain.localize import boxes_in_file, localize_images
from keras_attn.training.explain.localizers import localizing
from keras_attn.training.explain.saliency import Saliency
from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny
from tests.training.bulk import jobs


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return jobs.photos(tmp_path_factory.mktemp("given") / "photos", 5)


def pixels(photos, trained):
    return read_images(image_files([photos]), trained.spec, "skip")[0]


def test_maps_are_those_of_explain(photos, tmp_path):
    model = tiny.save_colour_model(tmp_path, patch_logits=False)
    plan = jobs.make("explain", model, photos, tmp_path / "out", top=2, cell=5)
    rows = jobs.compute(plan).read_shards()
    good = rows["problem"] == ""
    assert plan.notes["method"] == "Grad-CAM" and rows["maps"].dtype == "float16"
    trained = load_trained(model)
    images = pixels(photos, trained)
    maps = Saliency("grad_cam").maps(trained, images, rows["labels"][good])
    expected = np.zeros((len(maps), 2, 4, 5))
    for i, j in np.ndindex(4, 5):
        cell = maps[..., 5 * i : 5 * i + 5, 5 * j : 5 * j + 5]
        expected[..., i, j] = cell.mean((-2, -1))
    np.testing.assert_allclose(rows["maps"][good], expected, atol=2e-3)
    assert not rows["maps"][~good].any()
    own = tiny.save_colour_model(tmp_path)
    assert jobs.make("explain", own, photos, tmp_path / "own").notes["method"] == (
        "its own maps"
    )


def test_patches_are_those_of_localize(photos, tmp_path):
    model = tiny.save_localizer(tmp_path)
    plan = jobs.make("localize", model, photos, tmp_path / "out", max_patches=[3])
    rows = jobs.compute(plan).read_shards()
    trained = load_trained(model)
    localizer, _ = localizing(trained, max_patches=[3])
    expected = localize_images(localizer, pixels(photos, trained))
    good = np.flatnonzero(rows["problem"] == "")
    for row, one in zip(good, expected, strict=True):
        valid = rows["valid"][row]
        assert rows["labels"][row, 0] == one.label
        np.testing.assert_array_equal(rows["boxes"][row][valid], one.boxes)
        np.testing.assert_allclose(rows["scores"][row][valid], one.scores, rtol=1e-5)
        in_file = boxes_in_file(one.boxes, trained.spec, (20, 30))
        np.testing.assert_array_equal(rows["boxes_in_file"][row][valid], in_file)
        assert not rows["boxes"][row][~valid].any()


def test_means_of_cells_that_are_cut_off():
    maps = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    means = cell_means(maps, 2)
    assert means.shape == (2, 2, 2)
    np.testing.assert_allclose(means[0], [[2.5, 4.5], [8.5, 10.5]])
    np.testing.assert_array_equal(cell_means(maps, 1), maps)


def test_heads_of_objects_are_chosen_once_for_all_workers(photos, tmp_path):
    images = keras.Input((16, 16, 3))
    normalized = ImagePreprocessing(ImageSpec(16, 16))(images)
    file = tmp_path / "vit.keras"
    vit((8, 1, 2), 4, input_tensor=normalized).save(file)
    plan = jobs.make("masks", file, photos, tmp_path / "job", heads="objects")
    assert plan.maker["heads"] in ([[0, 0]], [[0, 1]])
    settings = {name: plan.maker[name] for name in TASKS["masks"].settings}
    task = task_of("masks", ModelSource(file), "best", settings, jobs.BATCH)
    assert task.digest == plan.maker["model"]
    # A job of an earlier version, which had no heads to choose, is that of all.
    plan = jobs.make("masks", file, photos, tmp_path / "all", heads="all")
    assert plan.maker["heads"] is None
    with pytest.raises(ValueError, match="Did you mean 'all'"):
        jobs.make("masks", file, photos, tmp_path / "out", heads="al")


def test_another_setting_is_refused(photos, tmp_path):
    model = tiny.save_colour_model(tmp_path)
    with pytest.raises(ValueError, match="settings of predict: top. Received: cell"):
        jobs.make("predict", model, photos, tmp_path / "out", cell=3)
    with pytest.raises(ValueError, match="one of"):
        task_of("sort", ModelSource(model), "best", {}, 1)
    assert not (tmp_path / "out").exists() and len(TASKS) == 5
