"""Images and their maps: always in the same place, whatever was drawn."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_attn.pipelines.attention_maps import batches
from keras_attn.pipelines.attention_maps.compute import fitted
from keras_attn.pipelines.augment.operation import IMAGENET, Normalization
from keras_attn.pipelines.augment.operations import Augmentation, Translate
from keras_attn.pipelines.batches.build import training_batches
from keras_attn.pipelines.images.streaming import StreamedImages
from keras_attn.pipelines.sources import load_source
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from tests.pipelines.map_models import grey_model

HEIGHT, WIDTH, EXAMPLES = 12, 20, 22
EXACT = ["translate_flip", "flip", "none"]
RESAMPLED = ["random_resized_crop_flip", "mild_resized_crop_flip", "rotate_crop_flip"]


def pictures(seed=0):
    """Grey images, no pixel zero; the labels are their numbers."""
    shape = (EXAMPLES, HEIGHT, WIDTH, 1)
    grey = np.random.default_rng(seed).integers(1, 256, shape).astype("uint8")
    return np.repeat(grey, 3, axis=-1), np.arange(EXAMPLES, dtype="int32")


def own_maps(images):
    return images[..., :1]


def batches_of(images, maps, labels, function=batches.masked_batches, **options):
    options = {"batch_size": 10, "seed": 3, "epochs": 2, **options}
    return arrays_of(function(images, maps, labels, **options))


def arrays_of(dataset):
    return [
        (pair["images"].numpy(), pair["attention_map"].numpy(), numbers.numpy())
        for pair, numbers in dataset
    ]


@pytest.mark.parametrize("name", EXACT)
def test_an_image_that_is_its_own_map_stays_so(name):
    images, labels = pictures()
    found = batches_of(images, own_maps(images), labels, augmentation=name)
    assert len(found) == 2 * 2
    for batch, maps, numbers in found:
        assert batch.dtype == np.uint8 and maps.dtype == np.float32
        assert maps.shape == (10, HEIGHT, WIDTH, 1)
        np.testing.assert_array_equal(np.round(255 * maps), batch[..., :1])
        moved = (batch != images[numbers]).any((1, 2, 3))
        assert moved.any() == (name != "none")
    if name != "none":
        # The check fails where the maps are those of other images.
        other = batches_of(
            images,
            batches.shuffled_maps(own_maps(images), 0),
            labels,
            augmentation=name,
        )
        assert (np.round(255 * other[0][1]) != other[0][0][..., :1]).mean() > 0.5


def smooth_pictures():
    """Slopes in all directions."""
    angles = np.linspace(0, 2 * np.pi, EXAMPLES, endpoint=False)[:, None, None]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] - np.reshape([5.5, 9.5], (2, 1, 1))
    grey = 130 + 8 * (np.sin(angles) * rows + np.cos(angles) * columns)
    return np.repeat(grey[..., None], 3, axis=-1).astype("uint8")


@pytest.mark.parametrize("name", RESAMPLED)
def test_crops_and_turns_move_maps_as_images(name):
    images, (_, labels) = smooth_pictures(), pictures()
    options = {"augmentation": name, "interpolation": "bilinear", "epochs": 1}
    found = batches_of(images, own_maps(images), labels, **options)
    for batch, maps, _ in found:
        seen = (maps[..., 0] > 0) & (batch[..., 0] > 0)
        difference = np.abs(255 * maps - batch[..., :1])[seen]
        assert seen.mean() > 0.8 and np.median(difference) < 1.5
        assert np.quantile(difference, 0.95) < 12
        wrong = np.abs(255 * np.roll(maps, 1, axis=0) - batch[..., :1])[seen]
        assert np.median(wrong) > 12


def test_a_grid_mask_moves_nothing():
    seed = tf.constant([3, 1], tf.int32)
    transforms = [
        Augmentation(name).transforms(seed, 20, (HEIGHT, WIDTH))
        for name in ("translate_flip", "translate_flip_grid_mask")
    ]
    np.testing.assert_array_equal(*transforms)


def test_erased_images_keep_the_map_of_the_whole():
    images, labels = pictures()
    name, options = "translate_flip_erase", {"epochs": 10, "batch_size": 22}
    erased = 0
    for batch, maps, _ in batches_of(
        images, own_maps(images), labels, augmentation=name, **options
    ):
        assert batch.dtype == np.float32
        changed = np.abs(255 * maps - batch).max(-1) > 1e-2
        shares = changed.mean((1, 2))
        erased += (shares > 0).sum()
        assert shares.max() <= 0.34
        # A box: rows and columns that have changed, and all between them.
        for image in changed[shares > 0]:
            rows, columns = image.any(1), image.any(0)
            assert image.sum() == rows.sum() * columns.sum()
    assert 20 <= erased <= 70


def test_maps_move_seven_pixels_of_224_for_each_of_32():
    images = np.random.default_rng(1).integers(1, 256, (9, 32, 32, 3)).astype("uint8")
    maps = np.random.default_rng(2).integers(1, 256, (9, 28, 28, 1)).astype("uint8")
    options = {"augmentation": "translate_flip", "batch_size": 9, "epochs": 1}
    ((batch, moved, numbers),) = batches_of(
        images, maps, np.arange(9, dtype="int32"), image_size=(224, 224), **options
    )
    assert batch.shape == (9, 224, 224, 3) and moved.shape == (9, 224, 224, 1)
    plain = batches_of(images, maps, np.arange(9, dtype="int32"), **options)[0][0]
    large = maps.repeat(8, axis=1).repeat(8, axis=2)
    offsets = set()
    for picture, number, result in zip(plain, numbers, moved, strict=True):
        row, column, mirrored = place_of(picture, images[number])
        offsets |= {abs(row), abs(column)}
        wanted = shifted(large[number], 7 * row, 7 * column)
        wanted = wanted[:, ::-1] if mirrored else wanted
        np.testing.assert_array_equal(np.round(255 * result), wanted)
    assert len(offsets) >= 4
    enlarged = tf.image.resize(plain, (224, 224), "bicubic", antialias=True)
    np.testing.assert_allclose(batch, enlarged, atol=1e-3)


def shifted(image, row, column):
    """Shows the image from `(row, column)` on; zero outside."""
    height, width = image.shape[:2]
    edges = [(abs(row),) * 2, (abs(column),) * 2, (0, 0)]
    padded = np.pad(image, edges)
    return padded[abs(row) + row :, abs(column) + column :][:height, :width]


def place_of(picture, image):
    for row in range(-4, 5):
        for column in range(-4, 5):
            moved = shifted(image, row, column)
            for mirrored, shown in enumerate((moved, moved[:, ::-1])):
                if np.array_equal(picture, shown):
                    return row, column, mirrored
    raise AssertionError("not a translation of its image")


def test_enlarging_commutes_with_shifts_in_the_interior_and_with_flips():
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    images = tf.constant(images, "float32")

    def enlarge(batch):
        return tf.image.resize(batch, (224, 224), "bicubic", antialias=True)

    first = enlarge(
        Translate().apply(images, tf.constant([[3, -2], [-4, 1]]), IMAGENET)
    ).numpy()
    large = enlarge(images).numpy()
    for shown, whole, (row, column) in zip(
        first, large, ((3, -2), (-4, 1)), strict=True
    ):
        wanted = shifted(whole, 7 * row, 7 * column)
        inner = slice(7 * (4 + 2), -7 * (4 + 2))
        np.testing.assert_allclose(shown[inner, inner], wanted[inner, inner], atol=2e-3)
        assert np.abs(shown - wanted).max() > 5
    flipped = enlarge(images[:, :, ::-1]).numpy()
    np.testing.assert_allclose(flipped, large[:, :, ::-1], atol=2e-3)


def test_seed_epoch_and_step_decide():
    images, labels = pictures()
    options = {"augmentation": "translate_flip", "epochs": 3}
    whole = batches_of(images, own_maps(images), labels, **options)
    rest = batches_of(images, own_maps(images), labels, initial_epoch=1, **options)
    assert_same(whole[2:], rest)
    assert (whole[0][2] != whole[2][2]).any()
    for seed, same in ((3, True), (4, False)):
        plain = training_batches(images, labels, 10, seed, 3)
        equal = [
            np.array_equal(batch, one[0]) and np.array_equal(numbers, one[2])
            for (batch, numbers), one in zip(plain, whole, strict=True)
        ]
        assert all(equal) if same else not any(equal)


def assert_same(found, wanted):
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        for array, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, same)


def test_streamed_images_give_the_same_batches(tmp_path):
    images, labels = pictures()
    for image, label in zip(images, labels, strict=True):
        (tmp_path / f"{label:02}").mkdir()
        Image.fromarray(image).save(tmp_path / f"{label:02}" / "0.png")
    spec = ImageSpec(HEIGHT, WIDTH)
    streamed = StreamedImages(load_source("folder", tmp_path), spec)
    black = Normalization((0.0,) * 3, (1.0,) * 3)
    options = {"augmentation": "translate_flip_erase", "epochs": 1}
    found = batches_of(streamed, own_maps(images), labels, **options)
    wanted = batches_of(
        images, own_maps(images), labels, normalization=black, **options
    )
    assert_same(found, wanted)
    found, wanted = (
        clean_batches(each, own_maps(images), labels) for each in (streamed, images)
    )
    assert_same(found, wanted)


def clean_batches(images, maps, labels):
    return arrays_of(
        batches.masked_evaluation_batches(images, maps, labels, 8, (24, 40))
    )


def test_on_clean_images_the_cache_gives_what_the_model_gives():
    images, labels = pictures()
    model = grey_model(24, 40, cell=4)
    large = fitted(images, (24, 40)).numpy()
    exact = keras.ops.convert_to_numpy(model(large))
    cached = np.round(255 * exact).astype("uint8")
    found = clean_batches(images, cached, labels)
    wanted = clean_batches(images, model, labels)
    assert [len(batch) for batch, _, _ in found] == [8, 8, 6]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[2], other[2])
        np.testing.assert_allclose(one[1], other[1], atol=0.51 / 255)
    np.testing.assert_array_equal(np.concatenate([f[2] for f in found]), labels)
    np.testing.assert_array_equal(np.concatenate([f[0] for f in found]), large)
    enlarged = exact.repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_allclose(
        np.concatenate([f[1] for f in wanted]), enlarged, atol=1e-6
    )


def test_online_maps_are_those_of_the_augmented_images():
    images, labels = pictures()
    options = {"augmentation": "translate_flip", "epochs": 1}
    model = grey_model(HEIGHT, WIDTH)
    found = batches_of(images, model, labels, batches.online_masked_batches, **options)
    wanted = batches_of(images, own_maps(images), labels, **options)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_allclose(one[1], other[1], atol=1e-6)
        np.testing.assert_array_equal(one[2], other[2])
    # Unlike a cache, the model sees what is erased, and images of another size.
    model = grey_model(24, 40, cell=8)
    options = {"image_size": (24, 40), "epochs": 1}
    for batch, maps, _ in batches_of(
        images, model, labels, batches.online_masked_batches, **options
    ):
        wanted = keras.ops.convert_to_numpy(model(batch))
        enlarged = wanted.repeat(8, axis=1).repeat(8, axis=2)
        np.testing.assert_allclose(maps, enlarged, atol=1e-5)


def test_enlarged_clean_images_are_what_a_served_model_sees():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("another backend resizes with rounding of its own")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("uint8")
    spec = ImageSpec(224, 224, interpolation="bicubic")
    wanted = ImagePreprocessing(spec).fit_size(images)
    np.testing.assert_array_equal(fitted(images, (224, 224)), np.asarray(wanted))


def test_controls():
    images, labels = pictures()
    maps = own_maps(images)
    constant = batches.constant_maps(maps)
    for _, found, _ in batches_of(images, constant, labels, fill=1.0, epochs=1):
        assert (found == 1).all()
    for seed in range(5):
        shuffled = batches.shuffled_maps(maps, seed)
        assert shuffled.shape == maps.shape and shuffled.dtype == maps.dtype
        assert not (shuffled == maps).all((1, 2, 3)).any()
        every = {one.tobytes() for one in maps}
        assert {one.tobytes() for one in shuffled} == every
    assert (shuffled != batches.shuffled_maps(maps, 0)).any()
    np.testing.assert_array_equal(shuffled, batches.shuffled_maps(maps, 4))
    with pytest.raises(ValueError, match="at least 2 images"):
        batches.shuffled_maps(maps[:1], 0)


def test_mistakes():
    images, labels = pictures()
    maps = own_maps(images)
    for wrong in ((maps[1:], labels), (maps, labels[1:]), (maps[..., 0], labels)):
        with pytest.raises(ValueError, match="as many images, labels and maps"):
            batches.masked_batches(images, *wrong, 10, 0, 1)
    with pytest.raises(ValueError, match="floats or uint8. Received: int64"):
        batches.masked_batches(images, maps.astype("int64"), labels, 10, 0, 1)
    with pytest.raises(ValueError, match="Did you mean 'translate_flip_erase'"):
        batches_of(images, maps, labels, augmentation="translate_flip_erased")
    with pytest.raises(ValueError, match="interpolation='cubic'"):
        batches_of(images, maps, labels, interpolation="cubic")
    flat = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="to maps .batch, rows, columns, channels"):
        batches.online_masked_batches(images, flat, labels, 10, 0, 1)
    with pytest.raises(ValueError, match="of the size .12, 20. to maps"):
        batches.online_masked_batches(images, grey_model(24, 24), labels, 10, 0, 1)
