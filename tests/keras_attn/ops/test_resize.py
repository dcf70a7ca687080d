import numpy as np
import pytest
from keras import ops

from keras_attn.ops.resize import resize_bicubic


def resized(images, size):
    return ops.convert_to_numpy(resize_bicubic(ops.convert_to_tensor(images), size))


@pytest.mark.parametrize("size", [(5, 7), (13, 11), (31, 29), (1, 3)])
def test_equals_pytorch(size):
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).uniform(0, 255, (2, 13, 17, 3)).astype("float32")
    wanted = torch.nn.functional.interpolate(
        torch.tensor(images.transpose(0, 3, 1, 2)),
        size=size,
        mode="bicubic",
        align_corners=True,
    )
    wanted = wanted.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(resized(images, size), wanted, rtol=1e-4, atol=1e-3)


def test_keeps_a_plane_inside_and_corners_exactly():
    rows, columns = np.mgrid[:9, :13].astype("float32")
    plane = (3 * rows + 5 * columns)[None, :, :, None]
    larger = resized(plane, (17, 25))[0, :, :, 0]
    np.testing.assert_allclose(larger[::16, ::24], plane[0, ::8, ::12, 0], atol=1e-4)
    fine_rows, fine_columns = np.mgrid[:17, :25] / 2
    wanted = 3 * fine_rows + 5 * fine_columns
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(larger[inside], wanted[inside], atol=1e-4)


def test_the_same_size_changes_nothing_and_integers_become_float32():
    images = np.random.default_rng(1).integers(0, 256, (2, 5, 7, 3), dtype="uint8")
    result = resized(images, (5, 7))
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, images, atol=1e-4)
