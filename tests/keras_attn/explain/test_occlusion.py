import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain import occlusion
from tests.harness import to_numpy

SIZE = (7, 11)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return random.uniform(0, 255, (3, *SIZE, 2)).astype("float32")


@pytest.fixture(scope="module")
def kernel():
    return np.random.default_rng(1).standard_normal((*SIZE, 2, 4)).astype("float32")


def scores(images, kernel):
    return np.tanh(np.einsum("bijc,ijck->bk", images / 255, kernel) / 10)


def slow(images, kernel, label, window, stride, colours):
    """One window after another."""
    maps = np.zeros((len(images), *SIZE))
    for n, image in enumerate(images):
        counts = np.zeros(SIZE)
        rows, columns = (
            sorted({*range(0, length - width + 1, step), length - width})
            for length, width, step in zip(SIZE, window, stride, strict=True)
        )
        for y in rows:
            for x in columns:
                place = np.s_[y : y + window[0], x : x + window[1]]
                covered = image.copy()
                covered[place] = colours[n]
                both = scores(np.stack([image, covered]), kernel)[:, label[n]]
                maps[n][place] += both[0] - both[1]
                counts[place] += 1
        maps[n] /= counts
    return maps


@pytest.mark.parametrize(
    "window, stride, value", [((2, 3), (1, 2), None), ((3, 3), (2, 2), (9, 99))]
)
def test_equals_a_slow_loop(images, kernel, window, stride, value):
    colours = images.mean(axis=(1, 2)) if value is None else [value] * 3
    labels = np.array([2, 0, 3])
    wanted = slow(images, kernel, labels, window, stride, colours)
    options = {"value": value, "batch_size": 16}

    def function(images):
        return {"other": images, "logits": scores(images, kernel)}

    found = occlusion(function, images, labels, window, stride, raw=True, **options)
    assert found.dtype == "float32" and wanted.min() < 0
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    positive = np.maximum(wanted, 0)
    low, high = (f(positive, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    found = occlusion(function, images, labels, window, stride, **options)
    np.testing.assert_allclose(found, (positive - low) / (high - low), atol=1e-5)


class Subclassed(keras.Model):
    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def call(self, inputs):
        image, numbers = inputs["image"], inputs["numbers"]
        pixels = ops.reshape(image / 255, (-1, 154))
        sums = ops.matmul(pixels, self.kernel.reshape(154, 4))
        return [numbers, ops.tanh(sums / 10) + 0 * numbers]


def test_of_a_subclassed_model_with_several_inputs(images, kernel):
    inputs = {"numbers": np.ones((3, 4), "float32"), "image": images}
    model = Subclassed(kernel)
    labels = np.array([[1, 2], [3, 0], [0, 0]])
    found = occlusion(model, inputs, labels, 4, 3, raw=True, output=1, batch_size=8)
    assert found.shape == (3, 2, *SIZE)
    for column in (0, 1):
        colours = images.mean(axis=(1, 2))
        wanted = slow(images, kernel, labels[:, column], (4, 4), (3, 3), colours)
        np.testing.assert_allclose(found[:, column], wanted, atol=1e-5)
    with pytest.raises(ValueError, match=r"`output`.*\[0, 1\].*output=None"):
        occlusion(model, inputs, labels)


def test_finds_the_pixels_that_count():
    inputs = keras.Input((8, 12, 1), dtype="uint8")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Cropping2D(((2, 4), (6, 4)))(x)
    model = keras.Model(inputs, layers.Flatten()(layers.AveragePooling2D(2)(x)))
    image = np.zeros((1, 8, 12, 1), "uint8")
    image[0, 2:4, 6:8] = 200
    found = occlusion(model, image, [1], window=2, stride=2, value=0)
    wanted = np.zeros((8, 12))
    wanted[2:4, 6:8] = 1
    np.testing.assert_array_equal(to_numpy(found)[0], wanted)


def test_has_a_window_for_every_cell_of_the_last_map():
    inputs = keras.Input((24, 40, 1))
    x = layers.Conv2D(2, 3, 3, padding="same", activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    images = np.random.default_rng(2).uniform(size=(3, 24, 40, 1)).astype("float32")
    sums, counts = np.zeros((24, 40)), np.zeros((24, 40))
    clear = to_numpy(model(images))[1, 1]
    # 8 x 14 cells; along a side 13 windows at most.
    for y in np.rint(np.arange(8) * 18 / 7).astype(int):
        for x in np.rint(np.arange(13) * 30 / 12).astype(int):
            place, covered = np.s_[y : y + 6, x : x + 10], images[1:2].copy()
            covered[0][place] = images[1].mean()
            sums[place] += clear - to_numpy(model(covered))[0, 1]
            counts[place] += 1
    calls = []
    found = occlusion(
        model, images, [1] * 3, raw=True, progress=lambda *call: calls.append(call)
    )
    np.testing.assert_allclose(found[1], sums / counts, atol=1e-5)
    assert calls[0][0] <= 32 and calls[-1] == (315, 315)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"window": 20}, "no larger than the images"),
        ({"window": 2, "stride": 3}, "no larger than the window"),
        ({"value": (1, 2, 3)}, "2 channels"),
        ({"labels": [0]}, "`labels`"),
        ({"labels": [0, 1, 4]}, r"0\.\.3"),
    ],
)
def test_refuses_wrong_arguments(images, kernel, options, message):
    with pytest.raises(ValueError, match=message):
        occlusion(lambda images: scores(images, kernel), images, **options)
