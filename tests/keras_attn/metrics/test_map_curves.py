import numpy as np
import pytest
from keras import ops

from keras_attn.metrics import deletion_curve, insertion_curve
from keras_attn.metrics.map_curves import blurred

SIZE = (5, 7)
PIXELS = 35


@pytest.fixture(scope="module")
def weights():
    """Positive, and for the second class in another order."""
    return np.random.default_rng(0).uniform(0.1, 1, (*SIZE, 2))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0.1, 1, (3, *SIZE, 1))


def linear(weights):
    def predict(images):
        return np.einsum("nijc,ijk->nk", images, weights)

    return predict


def test_removes_pixels_by_their_rank(weights, images):
    """Against a loop that removes one pixel after another."""
    random = np.random.default_rng(2)
    maps = np.stack([random.permutation(PIXELS).reshape(SIZE) for _ in images])
    labels = np.array([1, 0, 1])
    options = {"labels": labels, "steps": PIXELS, "baseline": 0.0, "batch_size": 8}
    deleted = deletion_curve(linear(weights), images, maps, **options)
    inserted = insertion_curve(linear(weights), images, maps, **options)
    for n, image in enumerate(images):
        left, there = image.copy(), np.zeros_like(image)
        for step in range(PIXELS + 1):
            for curve, state in ((deleted, left), (inserted, there)):
                wanted = (state * weights[..., labels[n], None]).sum()
                assert curve["scores"][n, step] == pytest.approx(wanted)
            if step < PIXELS:
                place = np.unravel_index(maps[n].argmax(), SIZE)
                left[place], there[place] = 0, image[place]
                maps[n][place] = -1
    np.testing.assert_allclose(deleted["shares"], np.arange(PIXELS + 1) / PIXELS)
    for curve in (deleted, inserted):
        means = (curve["scores"][:, 1:] + curve["scores"][:, :-1]) / 2
        wanted = (means * np.diff(curve["shares"])).sum(axis=1)
        np.testing.assert_allclose(curve["areas"], wanted)


def test_the_true_contributions_are_the_best_map_of_a_linear_model(weights, images):
    predict = linear(weights)
    labels = np.zeros(3, int)
    options = {"labels": labels, "steps": 12, "baseline": 0.0}
    best = images[..., 0] * weights[..., 0]

    def areas(maps):
        curves = (deletion_curve, insertion_curve)
        return [f(predict, images, maps, **options)["areas"] for f in curves]

    deleted, inserted = areas(best)
    random = np.random.default_rng(3)
    others = [-best, np.zeros_like(best)]
    others += [random.uniform(size=best.shape) for _ in range(5)]
    for other in others:
        worse_deleted, worse_inserted = areas(other)
        assert (deleted < worse_deleted).all() and (inserted > worse_inserted).all()
    # What is taken away is not there: the curves of a linear model mirror each other.
    np.testing.assert_allclose(deleted + inserted, best.sum(axis=(1, 2)))


def test_colours_that_take_the_place(images):
    seen = []

    def predict(batch):
        seen.append(batch)
        return ops.ones((len(batch), 2))

    pixels = np.rint(255 * np.repeat(images, 2, axis=-1)).astype("uint8")
    maps = np.zeros((3, *SIZE))
    options = {"labels": [0, 0, 0], "steps": 1, "batch_size": 6}
    for baseline, wanted in (
        ("mean", np.rint(pixels.mean(axis=(1, 2), keepdims=True))),
        ((7, 9), np.array([7, 9])),
    ):
        deletion_curve(predict, pixels, maps, baseline=baseline, **options)
        batch = seen.pop()
        assert batch.dtype == "uint8"
        np.testing.assert_array_equal(batch[::2], pixels)
        np.testing.assert_array_equal(
            batch[1::2], np.broadcast_to(wanted, pixels.shape)
        )
    insertion_curve(predict, pixels, maps, **options)
    first = seen.pop()[0]
    np.testing.assert_array_equal(first, np.rint(blurred(pixels[:1], 1.0))[0])
    assert first.std() < 0.6 * pixels[0].std()


def test_blur_is_a_gaussian():
    ndimage = pytest.importorskip("scipy.ndimage")
    images = np.random.default_rng(0).uniform(size=(2, 9, 13, 3))
    wanted = ndimage.gaussian_filter(images, (0, 2, 2, 0), mode="nearest", radius=6)
    np.testing.assert_allclose(blurred(images, 2.0), wanted, atol=1e-12)
    np.testing.assert_allclose(blurred(np.full((1, 4, 5, 1), 3.0), 1.0), 3.0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"maps": np.zeros((3, 7, 5))}, r"\(3, 7, 5\)"),
        ({"maps": np.full((3, *SIZE), np.nan)}, "finite"),
        ({"steps": 36}, "1..35"),
        ({"labels": [0, 1]}, r"shape \(3,\)"),
        ({"baseline": "grey"}, "'grey'"),
        ({"predict": lambda images: images}, "classes"),
    ],
)
def test_refuses_wrong_arguments(weights, images, change, message):
    options = {
        "predict": linear(weights),
        "images": images,
        "maps": np.zeros((3, *SIZE)),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        deletion_curve(**options)
