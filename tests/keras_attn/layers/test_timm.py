"""Blocks against those of timm, with the same weights. timm has no SimAM.

timm runs in a process of its own, since TensorFlow and torch do not always share one;
`TIMM_PYTHON` may name the interpreter of another environment.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_attn.layers import get_block
from tests.harness import example, randomize, to_numpy
from tests.test_architecture import ROOT

BLOCKS = ["squeeze_excitation", "eca", "cbam", "global_context", "coordinate_attention"]
SCRIPT = ROOT / "tests" / "reference" / "timm_blocks.py"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Maps of the layers and of timm, by block, and what went in."""
    python = os.environ.get("TIMM_PYTHON", sys.executable)
    imported = subprocess.run([python, "-c", "import timm"], capture_output=True)
    if imported.returncode:
        pytest.skip("timm is not installed")
    folder = tmp_path_factory.mktemp("timm")
    images = to_numpy(example((2, 7, 5, 32)))
    given, ours = {"images": images}, {}
    for block in BLOCKS:
        layer = get_block(block)
        layer(images)
        randomize(layer)
        ours[block] = keras.ops.convert_to_numpy(layer(images))
        for number, weight in enumerate(layer.weights):
            given[f"{block}/{number}"] = to_numpy(weight)
    np.savez(folder / "given.npz", **given)
    command = [python, SCRIPT, folder / "given.npz", folder / "timm.npz"]
    subprocess.run(command, check=True)
    return ours, np.load(folder / "timm.npz"), images


@pytest.mark.parametrize("block", BLOCKS)
def test_equals_timm_with_the_same_weights(both, block):
    ours, timms, images = both
    np.testing.assert_allclose(ours[block], timms[block], atol=2e-5)
    assert np.abs(ours[block] - images).max() > 0.01
