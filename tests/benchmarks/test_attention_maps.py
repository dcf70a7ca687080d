"""The PyTorch that attention maps are timed against, and the ratios to it.

That it computes the same is a test of `keras_attn.convert.vit`.
"""

import keras
import numpy as np
import pytest

from benchmarks import attention_maps
from benchmarks.attention_maps import AUTHORS, FULL, FUSED, MAP


def test_ratios_are_to_the_faster_pytorch():
    seconds = {
        (MAP, "on"): [1.0, 2.0, 9.0],
        (FULL, "on"): [2.0, 4.0, 8.0],
        (AUTHORS, ""): [6.0, 12.0, 30.0],
        (FUSED, ""): [2.0, 4.0, 6.0],
    }
    rows = attention_maps.measurements(seconds, 8, "ViT-S/8, float32")
    assert [row.ratio for row in rows] == [2.0, 1.0, 1 / 3, 1.0]
    assert rows[0].case == "ViT-S/8, float32, map"
    assert (rows[0].value, rows[0].unit, rows[0].xla) == (4.0, "maps/s", "on")


def test_without_torch_the_full_pass_is_the_measure():
    seconds = {(MAP, "off"): [1.0], (FULL, "off"): [1.5]}
    rows = attention_maps.measurements(seconds, 2, "ViT-B/8, bfloat16")
    assert rows[0].case == "ViT-B/8, bfloat16, map, no torch"
    assert [row.ratio for row in rows] == [1.5, 1.0]


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="whole networks compile for minutes, operation by operation",
)
def test_every_case_runs_in_half_precision(monkeypatch):
    monkeypatch.setattr(attention_maps, "IMAGE_SIZE", 16)
    monkeypatch.setitem(attention_maps.VIT_SIZES, "small", (12, 1, 3))
    images = np.ones((1, 16, 16, 3), "float32")
    before = keras.config.dtype_policy()
    cases = attention_maps.ours("small", "bfloat16", images)
    assert {case for case, _ in cases} == {MAP, FULL}
    for function in cases.values():
        function()
    assert keras.config.dtype_policy() == before
    pytest.importorskip("torch")
    for function in attention_maps.plain_pytorch("small", "bfloat16", images).values():
        assert function().shape == (1, 3, 4)
