import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_attn.pipelines.augment.crops import RandomResizedCrop
from keras_attn.pipelines.batches import multi_crop
from keras_attn.pipelines.batches.multi_crop import Crop, MultiCrop, multi_crop_batches

SEED = tf.constant([3, 5])
SMALL = MultiCrop.for_size(16, 8, local_views=3)


def pictures(count=5, height=17, width=23, seed=0):
    """Smooth pictures, of which a wrong crop is seen."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 5, 5, 3)).astype("uint8")
    return np.stack(
        [
            np.asarray(Image.fromarray(image).resize((width, height), Image.BICUBIC))
            for image in coarse
        ]
    )


def many(value, count=4000):
    return np.full((count, 1, 1, 3), value, "float32")


def share(changed):
    return np.mean(np.asarray(changed).reshape(len(changed), -1).any(axis=1))


def test_views_have_their_shapes_and_depend_on_the_seed_alone():
    images = pictures()
    views = SMALL(images, SEED)
    assert {name: tuple(view.shape) for name, view in views.items()} == {
        "global_views": (5, 2, 16, 16, 3),
        "local_views": (5, 3, 8, 8, 3),
    }
    assert all(view.dtype == tf.uint8 for view in views.values())
    dataset = tf.data.Dataset.from_tensors(images).map(lambda x: SMALL(x, SEED))
    (mapped,) = dataset
    other = SMALL(images, SEED + 1)
    for name, view in views.items():
        # In graphs, sums of float32 are in another order: now and then a rounding.
        difference = np.abs(view.numpy().astype(int) - mapped[name].numpy())
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01
        assert (other[name].numpy() != view.numpy()).mean() > 0.5
    first, second = np.moveaxis(views["global_views"].numpy(), 1, 0)
    assert (first != second).mean() > 0.5
    assert "local_views" not in MultiCrop.for_size(8, 8, local_views=0)(images, SEED)


def test_the_published_views():
    views = MultiCrop().views()
    assert views[:2] == (
        Crop(224, (0.4, 1.0), blur=1.0),
        Crop(224, (0.4, 1.0), blur=0.1, solarize=0.2),
    )
    assert views[2:] == (Crop(96, (0.05, 0.4), blur=0.5),) * 8
    assert SMALL.blur_sigma == pytest.approx((0.1 / 14, 2 / 14))


@pytest.mark.parametrize("size", [(29, 31), (6, 5)])
def test_a_box_is_resized_as_pillow_does(size):
    (image,) = pictures(1)
    y0, x0, y1, x1 = box = (2, 3, 15, 21)
    found = multi_crop.resize_boxes(image[None], [box], size)[0]
    crop = Image.fromarray(image).crop((x0, y0, x1, y1))
    wanted = np.asarray(crop.resize(size[::-1], Image.BICUBIC)).astype("float32")
    # Pillow rounds between the two axes.
    np.testing.assert_allclose(found, wanted, atol=1.6)


def test_boxes_cover_the_shares_asked_for():
    crop = RandomResizedCrop(0.05, 0.4)
    boxes = crop.boxes(crop.draw(SEED, 2000), (170, 230)).numpy()
    y0, x0, y1, x1 = boxes.T
    assert (y0 >= 0).all() and (x0 >= 0).all()
    assert (y1 <= 170).all() and (x1 <= 230).all()
    shares = (y1 - y0) * (x1 - x0) / (170 * 230)
    assert 0.045 < shares.min() < 0.06 and 0.37 < shares.max() < 0.41
    assert shares.mean() == pytest.approx(0.225, abs=0.01)
    aspects = np.log((x1 - x0) / (y1 - y0))
    assert np.abs(aspects).max() < np.log(4 / 3) + 0.05
    assert aspects.mean() == pytest.approx(0, abs=0.02)
    assert y0.min() == 0 and (x1 == 230).any()


def test_operations_are_applied_at_their_rates():
    def shifted(images, seed, part):
        return images + 1

    for probability in (0.0, 0.2, 0.8, 1.0):
        found = multi_crop.sometimes(shifted, probability, many(7), SEED)
        assert share(found != 7) == pytest.approx(probability, abs=0.02)
    # The whole of a view: one pixel of colour tells what was done to it.
    color = np.tile(np.float32([200, 100, 40]), (4000, 1, 1, 1))
    plain = MultiCrop(jitter=0.0, blur_sigma=(0.1, 0.2))
    view = plain.view(color, SEED, Crop(1, (0.9, 1.0), blur=0.0)).numpy()
    grey = view[..., 0] == view[..., 2]
    assert share(grey) == pytest.approx(0.2, abs=0.02)
    view = plain.view(color, SEED, Crop(1, (0.9, 1.0), blur=0.0, solarize=0.2)).numpy()
    solarized = (view[..., 0] == 55) & ~grey
    assert share(solarized) == pytest.approx(0.2 * 0.8, abs=0.02)
    view = MultiCrop(grey=0.0).view(color, SEED, Crop(1, (0.9, 1.0), blur=0.0)).numpy()
    assert share(view != color) == pytest.approx(0.8, abs=0.02)


def test_solarisation_and_grey_as_in_pillow():
    (image,) = pictures(1)
    found = multi_crop.solarize(image[None].astype("float32"), None)[0]
    wanted = np.asarray(ImageOps.solarize(Image.fromarray(image)))
    np.testing.assert_array_equal(found, wanted)
    found = multi_crop.to_grey(image[None].astype("float32"), None)[0]
    wanted = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    np.testing.assert_allclose(found, np.broadcast_to(wanted, (17, 23, 3)), atol=1.01)


def test_the_jitter_stays_within_its_ranges():
    def factors(**only):
        values = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
        images = np.zeros((2000, 1, 2, 3), "float32")
        images[:, :, 0], images[:, :, 1] = (120, 80, 60), (60, 80, 120)
        found = multi_crop.color_jitter(images, SEED, **{**values, **only})
        return images, found.numpy()

    images, same = factors()
    np.testing.assert_allclose(same, images, atol=1e-3)
    images, found = factors(brightness=0.4)
    ratio = found / images
    np.testing.assert_allclose(ratio, ratio[:, :1, :1, :1] + 0 * ratio, atol=1e-4)
    assert 0.6 <= ratio.min() < 0.61 and 1.39 < ratio.max() <= 1.4
    images, found = factors(contrast=0.4)
    grey = multi_crop._luminance(images).numpy().mean(axis=(1, 2, 3))
    ratio = (found[:, 0, 0, 0] - grey) / (120 - grey)
    assert 0.599 <= ratio.min() < 0.61 and 1.39 < ratio.max() <= 1.401
    images, found = factors(saturation=0.2)
    np.testing.assert_allclose(
        multi_crop._luminance(found), multi_crop._luminance(images), atol=1e-3
    )
    ratio = (found[:, 0, 0, 0] - found[:, 0, 0, 2]) / 60
    assert 0.799 <= ratio.min() < 0.81 and 1.19 < ratio.max() <= 1.201
    images, found = factors(hue=0.1)
    np.testing.assert_allclose(found.max(axis=-1), 120, atol=1e-2)
    np.testing.assert_allclose(found.min(axis=-1), 60, atol=1e-2)
    hues = tf.image.rgb_to_hsv(found / 255)[:, 0, 0, 0].numpy()
    turned = (hues - 20 / 360 + 0.5) % 1 - 0.5
    assert -0.101 <= turned.min() < -0.095 and 0.095 < turned.max() <= 0.101


def test_the_blur_is_gaussian():
    images = np.zeros((1, 31, 31, 3), "float32")
    images[:, 15, 15] = 255
    found = multi_crop.GaussianBlur(1.5, 1.5001)(images, SEED)[0, :, :, 0].numpy()
    distance = (np.mgrid[-15:16, -15:16] ** 2).sum(axis=0)
    wanted = np.exp(-distance / (2 * 1.5**2))
    np.testing.assert_allclose(found, 255 * wanted / wanted.sum(), atol=0.05)
    # Smaller images than the kernel, and none changed by next to no deviation.
    small = pictures(2, 4, 3).astype("float32")
    blur = multi_crop.GaussianBlur(1.0, 5.0)(small, SEED)
    assert blur.shape == small.shape and np.isfinite(blur).all()
    same = multi_crop.GaussianBlur(0.05, 0.06)(small, SEED)
    np.testing.assert_allclose(same, small, atol=1e-3)


def test_a_resumed_training_sees_the_same_views():
    images = pictures(7)
    arguments = {"batch_size": 3, "seed": 1, "epochs": 3, "multi_crop": SMALL}
    whole = list(multi_crop_batches(images, **arguments))
    rest = list(multi_crop_batches(images, initial_epoch=1, **arguments))
    assert len(whole) == 6 and len(rest) == 4
    for one, two in zip(whole[2:], rest, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    assert (whole[0]["global_views"] != whole[2]["global_views"]).numpy().any()


def test_wrong_views():
    with pytest.raises(ValueError, match=r"area=\(0.4, 0.2\)"):
        Crop(8, (0.4, 0.2), blur=0.5)
