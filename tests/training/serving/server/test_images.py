import pytest

from keras_attn.training.serving.server.errors import ServingError
from keras_attn.training.serving.server.images import TOGETHER, check_images
from tests.pipelines.images.test_headers import png_header

LIMIT = 10_000


@pytest.mark.parametrize("size", [(65000, 65000), (2**31 - 1, 2**31 - 1)])
def test_a_small_png_that_decodes_to_gigabytes(size):
    with pytest.raises(ServingError, match="Image 1: expected at most 10000") as caught:
        check_images([png_header(7, 5), png_header(*size)], LIMIT)
    assert caught.value.http_status == 400


def test_the_limit_is_of_pixels():
    assert check_images([png_header(100, 100)], LIMIT) == LIMIT
    with pytest.raises(ServingError):
        check_images([png_header(100, 101)], LIMIT)


def test_all_images_together_are_limited():
    image = png_header(100, 100)
    assert check_images([image] * TOGETHER, LIMIT) == TOGETHER * LIMIT
    with pytest.raises(ServingError, match="together"):
        check_images([image] * TOGETHER + [png_header(1, 1)], LIMIT)


def test_damaged_headers_are_refused_and_other_strings_pass():
    assert check_images([b"", b"text"], LIMIT) == 0
    with pytest.raises(ServingError, match="Image 1: truncated"):
        check_images([b"text", png_header(7, 5)[:18]], LIMIT)
