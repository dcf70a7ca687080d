"""GridMask: its squares, and that the rest of the image stays."""

import numpy as np
import tensorflow as tf
from scipy import ndimage

from keras_attn.pipelines.augment.grid_mask import GridMask


def seed_of(number):
    return tf.constant([number, 1], tf.int32)


def slow_mask(draws, height, width):
    """The definition: squares on a canvas as large as the diagonal, then turned."""
    ratio, period, column, row, angle = draws.astype("float64")
    low, high = sorted((0.5 * height, 0.3 * width))
    period = low + period * (high + 1 - low)
    square = 0.5 * ratio * period
    side = int(np.ceil(np.hypot(height, width)))
    place = np.arange(side)
    inside = [
        ((place + offset * period) % period >= period - square)
        for offset in (row, column)
    ]
    grid = (inside[0][:, None] & inside[1]).astype(float)
    angle = 2 * np.pi * 0.15 * (2 * angle - 1)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = np.full(2, (side - 1) / 2)
    turned = ndimage.affine_transform(grid, turn, middle - turn @ middle, order=1)
    top, left = (side - height) // 2, (side - width) // 2
    return turned[top : top + height, left : left + width]


def test_masks_equal_their_definition():
    for size in ((24, 24), (33, 18)):
        draws = GridMask().draw(seed_of(1), 30)
        found = GridMask().masks(draws, size).numpy()
        wanted = np.array([slow_mask(each, *size) for each in draws.numpy()])
        # Within rounding of a square's edge either is right.
        sure = (wanted < 1e-12) | (wanted > 1e-3)
        assert (found == (wanted > 1e-3))[sure].mean() > 0.98
        assert sure.mean() > 0.95 and found.any((1, 2)).mean() > 0.8


def test_the_grid_mask_blackens_part_of_each_image_and_leaves_the_rest():
    images = np.random.default_rng(0).integers(1, 256, (40, 24, 24, 3)).astype("uint8")
    found = GridMask()(tf.constant(images), seed_of(0)).numpy()
    masked = (found == 0).all(-1)
    np.testing.assert_array_equal(found[~masked], images[~masked])
    shares = masked.mean((1, 2))
    # Squares of ratio r in 0..0.5 cover about r**2: a twelfth on average.
    assert 0.03 < shares.mean() < 0.16 and shares.max() < 0.45
    assert len({mask.tobytes() for mask in masked if mask.any()}) > 25
