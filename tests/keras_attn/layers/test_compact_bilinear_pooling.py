import numpy as np
import pytest

from keras_attn.layers.compact_bilinear_pooling import CompactBilinearPooling
from keras_attn.ops.second_moments import hash_tables
from tests.harness import check_layer, example, run, to_numpy
from tests.keras_attn.layers.difficult_maps import (
    check_difficult_maps,
    check_half_precision,
)
from tests.reference import second_moments as reference

MAP = (2, 7, 3, 5)
# As long as what `BilinearPooling` gives, so that JAX compiles fewer operations.
ARGUMENTS = {"dimension": 25, "seed": 3}
HASHES = [table.astype("int32").tolist() for table in hash_tables(2, 5, 25, 9)]


def test_keeps_the_promises_of_a_layer():
    check_layer(CompactBilinearPooling, {**ARGUMENTS, "hashes": HASHES}, MAP)
    layer = CompactBilinearPooling()
    assert layer.compute_output_shape((2, 28, 28, 256)) == (2, 8192)


@pytest.mark.parametrize("hashes", [None, HASHES])
def test_equals_the_sketches_of_single_cells(hashes):
    maps = example(MAP)
    bins, signs = hash_tables(2, 5, 25, 9 if hashes else 3)
    found = run(CompactBilinearPooling(**ARGUMENTS, hashes=hashes), maps)
    # By FFT, empty bins hold rounding noise, which the root blows up.
    reached = np.isin(np.arange(25), (bins[0][:, None] + bins[1]) % 25)
    assert 10 < reached.sum() < 25 and np.all(found[:, ~reached] == 0)
    wanted = [
        reference.compact_bilinear(image, bins, signs, 25)[reached]
        for image in to_numpy(maps)
    ]
    np.testing.assert_allclose(found[:, reached], wanted, atol=1e-5)


def test_another_seed_is_another_sketch():
    maps = example(MAP)
    found = [run(CompactBilinearPooling(25, seed), maps) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 0.1


def test_difficult_maps_and_half_precision():
    check_difficult_maps(CompactBilinearPooling, ARGUMENTS, 1e4)
    check_half_precision(CompactBilinearPooling, ARGUMENTS)


def test_cost_does_not_depend_on_the_dimension():
    costs = [
        CompactBilinearPooling(dimension).multiply_adds((None, 7, 3, 5))
        for dimension in (8, 8192)
    ]
    assert costs == [22 * 25, 22 * 25]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dimension": 0}, "Expected `dimension`.*dimension=0"),
        ({"dimension": 2.5}, "Expected `dimension`.*dimension=2.5"),
        ({"seed": None}, "Expected `seed`.*seed=None"),
        ({"seed": -1}, "Expected `seed`.*seed=-1"),
        ({"hashes": ([[0, 9]] * 2, [[1, 1]] * 2), "dimension": 9}, "bins 0 to 8.*to 9"),
        ({"hashes": ([[0, 1]] * 2, [[1, 0]] * 2)}, "signs -1 or 1.*from 0 to 1"),
        ({"hashes": ([[0, 1]], [[1, 1]])}, r"\(2, channels\).*shape \(1, 2\)"),
        ({"hashes": ([[0]] * 2, [[1]] * 2)}, "the 5 channels.*for 1 channels"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CompactBilinearPooling(**arguments).build((None, 2, 2, 5))


def test_configs_without_hashes_load():
    config = CompactBilinearPooling(**ARGUMENTS).get_config()
    del config["hashes"]
    assert CompactBilinearPooling.from_config(config).hashes is None
