"""The model in `saved_models/` answers as it is cloned."""

import pathlib
import subprocess

import keras
import numpy as np
import pytest

from keras_attn import spec_of
from keras_attn.models import from_preset
from keras_attn.pipelines.images.files import read_images
from keras_attn.training import demo

pytest.importorskip("aiohttp")
ROOT = pathlib.Path(demo.__file__).parent.parent
FOLDER = ROOT / "saved_models" / demo.SERVED


def test_a_server_answers_as_the_preset_does(tmp_path):
    # Beside it may lie exports of whoever runs the tests.
    (tmp_path / demo.SERVED).symlink_to(FOLDER)
    photo = demo.PHOTOS / "cat.jpg"
    answer = demo.served(tmp_path, demo.SERVED, photo, "serving_default")
    model = from_preset(demo.SERVED)
    images, _, _ = read_images([photo], spec_of(model), "error")
    expected = keras.ops.convert_to_numpy(model(images)["embedding"])[0]
    # The preset is rounded to half precision.
    limit = 0.02 * np.abs(expected).max()
    np.testing.assert_allclose(answer["output"], expected, rtol=0, atol=limit)


def test_all_of_it_is_in_the_repository():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    found = subprocess.run(
        ["git", "ls-files", FOLDER], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    names = {pathlib.Path(name).name for name in found}
    assert {"saved_model.pb", "variables.index", "card.md"} <= names
    assert sum((ROOT / name).stat().st_size for name in found) < 4e6
