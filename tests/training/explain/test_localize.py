import dataclasses
import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_attn.models.early_exit import early_exit_classifier
from keras_attn.models.localizer import as_localizer
from keras_attn.models.patch_classifier import patch_classifier
from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.pipelines.images.files import read_images
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.explain.localize import (
    Localized,
    boxes_in_file,
    describe,
    localize,
    localize_images,
)
from keras_attn.training.explain.localizers import (
    localizer_of,
    localizing,
    patch_settings,
)
from keras_attn.training.explain.patches import picture, sheet
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.trained import Trained, load_trained
from tests.reference import patches as reference
from tests.training import tiny_models as tiny

SIZE = tiny.LOCALIZER_SIZE


def noise(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), "uint8")


def noise_files(folder, count=4):
    return [tiny.save_image(folder / f"{i}.png", noise(i)) for i in range(count)]


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of the data alone: drawing takes longest."""
    for name in ("explain.localize.picture", "explain.localize.sheet", "drawing.save"):
        monkeypatch.setattr(f"keras_attn.training.{name}", lambda *given: None)


def looped(outputs, index, settings):
    """Class, window, boxes and scores of one image by plain loops."""
    logits = np.stack([outputs[f"logits_{window}"][index] for window in tiny.WINDOWS])
    exponents = np.exp(logits.astype("float64"))
    label, branch = reference.decide(exponents / exponents.sum(-1, keepdims=True))
    window = tiny.WINDOWS[branch]
    evidence = outputs[f"evidence_{window}"][index, ..., label]
    most, threshold, coverage = (
        value[branch] if isinstance(value, tuple) else value for value in settings
    )
    visits = max(1, int(evidence.size * coverage))
    cells, boxes = reference.localize(
        evidence, (window, window), most, threshold, visits, (tiny.STRIDE,) * 2
    )
    return label, window, boxes, [float(evidence[cell]) for cell in cells]


@pytest.mark.parametrize("given", [{}, {"max_patches": [2], "iou_threshold": 0.8}])
def test_patches_are_those_of_the_recipe_or_the_arguments(tmp_path, undrawn, given):
    run = tiny.localizer_run(
        tmp_path / "run", max_patches=(4, 3), iou_threshold=0.5, coverage=(0.5, 0.75)
    )
    files = noise_files(tmp_path / "in")
    result, written, problems = localize(
        run.workdir, [tmp_path / "in"], tmp_path / "out", **given
    )
    settings = ((4, 3), 0.5, (0.5, 0.75)) if not given else (2, 0.8, (0.5, 0.75))
    assert tuple(result["settings"].values()) == settings
    outputs = outputs_of(
        load_trained(run.workdir).model, np.stack([noise(i) for i in range(4)])
    )
    for index, (entry, file) in enumerate(zip(result["images"], files, strict=True)):
        label, window, boxes, scores = looped(outputs, index, settings)
        assert entry["image"] == str(file)
        assert entry["class"] == tiny.COLOURS[label]
        assert entry["patch_size"] == [window, window]
        assert [patch["box"] for patch in entry["patches"]] == [list(b) for b in boxes]
        # The file is of the model's size.
        assert [patch["box_in_file"] for patch in entry["patches"]] == [
            list(box) for box in boxes
        ]
        found = [patch["score"] for patch in entry["patches"]]
        np.testing.assert_allclose(found, scores, rtol=1e-5)
        for branch, size in zip(entry["branches"], tiny.WINDOWS, strict=True):
            logits = outputs[f"logits_{size}"][index]
            assert branch["patch_size"] == [size, size]
            assert branch["class"] == tiny.COLOURS[logits.argmax()]
            assert branch["logit"] == pytest.approx(logits.max(), rel=1e-5)
        chosen = entry["branches"][tiny.WINDOWS.index(window)]
        assert chosen["probability"] == pytest.approx(entry["probability"])
    names = ["0.png", "1.png", "2.png", "3.png", "overview.png", "localized.json"]
    assert [path.name for path in written] == names and problems == ()
    assert json.loads(written[-1].read_text()) == json.loads(json.dumps(result))


def test_pictures_are_written(tmp_path):
    path = tiny.save_localizer(tmp_path)
    noise_files(tmp_path / "in", 1)
    _, written, _ = localize(path, [tmp_path / "in"], tmp_path / "out")
    assert [file.name for file in written[:2]] == ["0.png", "overview.png"]
    for file in written[:2]:
        with Image.open(file) as drawn:
            assert drawn.format == "PNG" and len(np.unique(np.asarray(drawn))) > 50


def test_settings_of_models_without_a_recipe_of_as_many_branches(tmp_path):
    file = load_trained(tiny.save_localizer(tmp_path))
    assert patch_settings(file) == {
        "max_patches": 5,
        "iou_threshold": 0.3,
        "coverage": 1.0,
    }
    assert patch_settings(file, [7, 2], coverage=[0.5])["max_patches"] == [7, 2]
    assert patch_settings(file, coverage=[0.5])["coverage"] == 0.5
    three = load_trained(tiny.save_localizer(tmp_path, windows=(8, 16, 24)))
    assert patch_settings(three) == {
        "max_patches": (5, 3, 2),
        "iou_threshold": 0.3,
        "coverage": (0.05, 0.04, 0.03),
    }
    # A recipe that says otherwise than the defaults is followed.
    run = tiny.localizer_run(tmp_path / "run", coverage=(0.1, 0.2))
    assert patch_settings(load_trained(run.workdir)) == {
        "max_patches": 5,
        "iou_threshold": 0.3,
        "coverage": (0.1, 0.2),
    }


# ---- pixels of the file ------------------------------------------------------------


@pytest.mark.parametrize("fraction", [1.0, 0.8, 0.875])
@pytest.mark.parametrize(
    "size", [(40, 56), (41, 56), (91, 61), (61, 201), (23, 40), (199, 255)]
)
def test_boxes_in_the_file_are_where_its_pixels_went(size, fraction):
    """The file's pixels say where they are, so the fitted image says where from."""
    spec = ImageSpec(*SIZE, crop_fraction=fraction)
    rows, columns = np.indices(size)
    image = np.stack([rows, columns, 0 * rows], axis=-1).astype("uint8")
    fitted = np.asarray(ImagePreprocessing(spec).fit_size(image)).astype("float64")
    i, j = np.indices(SIZE)
    boxes = np.stack([i, j, i + 1, j + 1], axis=-1)
    middle = boxes_in_file(boxes, spec, size).astype("float64")
    middle = (middle[..., :2] + middle[..., 2:]) / 2
    # The border is blurred by its end.
    inner = (slice(3, -3), slice(3, -3))
    difference = middle[inner] - 0.5 - fitted[inner][..., :2]
    assert abs(difference).max() <= 1.01
    assert abs(difference.mean(axis=(0, 1))).max() < 0.3


def test_boxes_beyond_the_image_end_at_the_file_s_border():
    spec = ImageSpec(*SIZE)
    boxes = [[-8, 16, 32, 60], [-1, -1, -1, -1]]
    found = boxes_in_file(boxes, spec, (80, 112))
    assert found.tolist() == [[0, 32, 64, 112], [0, 0, 0, 0]]
    assert boxes_in_file(np.zeros((0, 4), int), spec, (80, 112)).shape == (0, 4)


def test_a_marked_square_is_found_in_a_file_of_another_shape(tmp_path, undrawn):
    path = tiny.save_localizer(tmp_path, crop_fraction=0.8)
    pixels = tiny.plain_image(green=60, blue=60, height=171, width=130)
    pixels[77:117, 50:90] = (255, 0, 0)
    file = tiny.save_image(tmp_path / "square.png", pixels)
    result, _, _ = localize(path, [file], tmp_path / "out", max_patches=[1])
    (entry,) = result["images"]
    assert entry["file_size"] == [171, 130] and entry["image_size"] == list(SIZE)
    assert entry["class"] == "red"
    (patch,) = entry["patches"]
    assert reference.overlap(patch["box_in_file"], (77, 50, 117, 90)) > 0.5
    # The same pixels in both frames.
    y0, x0, y1, x1 = patch["box"]
    images, _, _ = read_images([file], load_trained(path).spec)
    inside = images[0, y0:y1, x0:x1].mean(axis=(0, 1))
    y0, x0, y1, x1 = patch["box_in_file"]
    np.testing.assert_allclose(pixels[y0:y1, x0:x1].mean(axis=(0, 1)), inside, atol=12)


# ---- models ------------------------------------------------------------------------


def colour_classifier():
    """Of patches of any size: the mean colour."""
    images = keras.Input((None, None, 3))
    x = ImagePreprocessing(ImageSpec(*SIZE), resize=False)(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, {"logits": keras.layers.Rescaling(5.0)(x)})


def test_patches_of_a_patch_classifier_have_their_own_classes(tmp_path, undrawn):
    settings = {"max_patches": (3, 2), "iou_threshold": 0.4, "coverage": 0.8}
    localizer = tiny.localizer(auxiliary=False)
    model = patch_classifier(localizer, colour_classifier(), **settings)
    model.save(tmp_path / "patches.keras")
    files = noise_files(tmp_path / "in")
    result, _, _ = localize(tmp_path / "patches.keras", files, tmp_path / "out")
    assert result["settings"] is None
    images = np.stack([noise(i) for i in range(4)])
    outputs = outputs_of(localizer, images)
    for index, entry in enumerate(result["images"]):
        _, window, boxes, _ = looped(outputs, index, tuple(settings.values()))
        assert entry["patch_size"] == [window, window]
        mean = np.zeros(3)
        for patch, box in zip(entry["patches"], boxes, strict=True):
            assert patch["box"] == list(box)
            crop = images[index, box[0] : box[2], box[1] : box[3]]
            exponents = np.exp(5 * crop.mean(axis=(0, 1)) / 255)
            expected = exponents / exponents.sum()
            found = np.array(list(patch["probabilities"].values()))
            np.testing.assert_allclose(found, expected, rtol=1e-4)
            assert patch["class"] == tiny.COLOURS[expected.argmax()]
            mean += expected / len(boxes)
        assert entry["class"] == tiny.COLOURS[mean.argmax()]
        assert entry["probability"] == pytest.approx(mean.max(), rel=1e-4)
    with pytest.raises(ValueError, match=r"built in, and {'coverage': \[0.5\]}"):
        localize(tmp_path / "patches.keras", files, tmp_path / "x", coverage=[0.5])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("thresholds, patches", [([0.0] * 3, 0), (None, 3)])
def test_images_that_exit_early_have_no_patches(tmp_path, undrawn, thresholds, patches):
    model = early_exit_classifier(
        tiny.localizer(auxiliary=False),
        colour_classifier(),
        colour_classifier(),
        max_patches=3,
        resized_size=16,
        thresholds=thresholds,
    )
    model.save(tmp_path / "early.keras")
    files = noise_files(tmp_path / "in", 1)
    result, _, _ = localize(tmp_path / "early.keras", files, tmp_path / "out")
    (entry,) = result["images"]
    assert len(entry["patches"]) == patches
    assert (entry["patch_size"] is None) == (patches == 0)
    assert len(entry["branches"]) == 2


def test_any_classifier_can_be_made_a_localiser(tmp_path, undrawn):
    images = keras.Input((*SIZE, 3))
    spec = ImageSpec(*SIZE, class_names=tiny.COLOURS)
    x = ImagePreprocessing(spec)(images)
    x = keras.layers.Conv2D(4, 5, 4, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    classifier = keras.Model(images, keras.layers.Dense(3)(x))
    as_localizer(classifier, patch_size=20).save(tmp_path / "any.keras")
    trained = load_trained(tmp_path / "any.keras")
    localizer, settings = localizing(trained, max_patches=[3])
    assert settings["max_patches"] == 3
    found = localize_images(localizer, noise(0)[None], ["x"])[0]
    assert found.chosen.patch_size == (20, 20) and found.chosen.attention is None
    # Windows of padded convolutions reach beyond the image.
    corner = dataclasses.replace(found, boxes=np.array([[-8, 50, 12, 70]]))
    (crop,) = corner.crops()
    assert crop.shape == (20, 20, 3)
    np.testing.assert_array_equal(crop[8:, :6], noise(0)[:12, 50:])
    assert not crop[:8].any() and not crop[:, 6:].any()
    result, _, _ = localize(
        trained.path, noise_files(tmp_path / "in", 1), tmp_path / "out"
    )
    assert 1 <= len(result["images"][0]["patches"]) <= 5


def test_the_localiser_is_found_inside_a_model():
    localizer = tiny.localizer(auxiliary=False)
    assert localizer_of(localizer) is localizer
    composite = patch_classifier(localizer, colour_classifier(), 2)
    assert localizer_of(composite) is localizer


def test_models_without_evidence_are_an_error(tmp_path):
    file = tiny.save_image(tmp_path / "x.png", noise(0, (16, 24)))
    path = tiny.save_colour_model(tmp_path)
    with pytest.raises(ValueError, match="Expected a localiser.*'colours' with outp"):
        localize(path, [file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"max_patches": [0]}, "max_patches"),
        ({"max_patches": [5, 3, 2]}, "max_patches"),
        ({"iou_threshold": 1.5}, "iou_threshold"),
        ({"coverage": [0.0]}, "coverage"),
    ],
)
def test_wrong_settings_are_errors(tmp_path, given, message):
    path = tiny.save_localizer(tmp_path)
    file = tiny.save_image(tmp_path / "x.png", noise(0))
    with pytest.raises(ValueError, match=message):
        localize(path, [file], tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_corrupt_images_are_an_error_or_skipped(tmp_path, undrawn):
    path = tiny.save_localizer(tmp_path)
    noise_files(tmp_path / "in", 1)
    bad = tmp_path / "in" / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(CorruptImageError, match=r"bad\.png"):
        localize(path, [tmp_path / "in"], tmp_path / "out")
    result, _, problems = localize(
        path, [tmp_path / "in"], tmp_path / "out", on_corrupt="skip"
    )
    assert len(result["images"]) == 1
    assert [problem.where for problem in problems] == [str(bad)]


# ---- pictures ----------------------------------------------------------------------


def localized(count=3):
    trained = Trained(tiny.localizer(auxiliary=False), None)
    localizer, _ = localizing(trained, max_patches=[count], iou_threshold=1.0)
    return localize_images(localizer, noise(0)[None], ["x.png"])[0]


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_picture_shows_boxes_branches_maps_and_crops():
    found = localized()
    figure = picture(found)
    answer = f"{tiny.COLOURS[found.label]} ({100 * found.probabilities.max():.1f} %)"
    assert figure.get_suptitle() == f"x.png: {answer}"
    panels = [axis for axis in figure.axes if axis.images]
    whole, *maps = panels[:5]
    assert "3 patches of" in whole.get_title()
    drawn = {
        (box.get_y(), box.get_x(), box.get_y() + box.get_height())
        for box in whole.patches
    }
    assert drawn == {tuple(box[:3]) for box in found.boxes}
    labels = {f"{k}: {score:.2f}" for k, score in enumerate(found.scores, 1)}
    assert set(texts(whole)) == labels
    titles = [axis.get_title() for axis in maps[:2]]
    assert [title.startswith("chosen: ") for title in titles] == [
        index == found.branch for index in range(2)
    ]
    # Only the chosen branch's map has the numbers, at the centres of the patches.
    marked = maps[found.branch]
    numbers = {
        text.get_text(): text.get_position()
        for text in marked.texts
        if text.get_text().isdigit()
    }
    for number, (top, left, bottom, right) in enumerate(found.boxes, 1):
        assert numbers[str(number)] == ((left + right) / 2, (top + bottom) / 2)
    assert not any(text.isdigit() for text in texts(maps[1 - found.branch]))
    crops = panels[5:]
    for axis, (top, left, bottom, right) in zip(crops, found.boxes, strict=True):
        expected = found.image[top:bottom, left:right]
        np.testing.assert_array_equal(axis.images[0].get_array(), expected)


def test_many_patches_are_all_shown():
    found = localized(count=13)
    assert len(found.boxes) == 13
    panels = [axis for axis in picture(found).axes if axis.images]
    assert len(panels) == 5 + 13
    # Without scores, which would hide each other.
    assert set(texts(panels[0])) == {str(number) for number in range(1, 14)}


def test_images_that_needed_no_patches_can_be_drawn(tmp_path):
    found = localized()
    sure = Localized(
        found.image,
        found.probabilities,
        tiny.COLOURS,
        "sure.png",
        found.branches,
        None,
        np.zeros((0, 4), int),
        np.zeros(0),
    )
    whole = picture(sure).axes[0]
    assert whole.get_title() == "sure without patches" and not whole.patches
    rows = sheet([sure, found])
    assert len([axis for axis in rows.axes if axis.images]) == 1 + 2 + 3
    file = tiny.save_image(tmp_path / "sure.png", found.image)
    entry = describe(sure, file, ImageSpec(*SIZE), "drawn.png")
    assert entry["patch_size"] is None and entry["patches"] == []
    assert entry["class"] == tiny.COLOURS[found.probabilities.argmax()]
