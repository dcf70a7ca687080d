"""A sample of malformed images through five commands; others by the script."""

import pytest
import tensorflow as tf

from tests.training import malformed_images

FINE = {"answered", "refused", "refused, read by Pillow"}
# Kinds that are all answered, and all refused.
ANSWERED = {"animated", "cmyk", "rotated", "sixteen_bit", "transparent", "two_files"}
REFUSED = {"truncated", "zeros", "text", "huge_header"}


@pytest.mark.skipif(
    not hasattr(tf.io, "decode_webp"), reason="TensorFlow decodes no WebP"
)
def test_every_image_is_answered_or_named(tmp_path):
    pytest.importorskip("flask", reason="The viewer needs Flask (extra: view)")
    for _, counts, _ in malformed_images.outcomes(26, 0, tmp_path):
        assert {outcome for _, outcome in counts} <= FINE
        kinds = {kind for kind, outcome in counts if outcome == "answered"}
        assert kinds >= ANSWERED and not kinds & REFUSED
        assert counts.total() == 26
