import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.ops.rows import apply_to_rows, can_gather

ROWS = 5
OUTPUTS = {
    "sum": keras.KerasTensor((), "float32"),
    "twice": keras.KerasTensor((3,), "float32"),
    "positive": keras.KerasTensor((3,), "bool"),
    "count": keras.KerasTensor((3,), "int32"),
}
SELECTIONS = {
    "some": [True, False, False, True, True],
    "one": [False, True, False, False, False],
    "none": [False] * ROWS,
    "all": [True] * ROWS,
}


def forms():
    return [False, True] if can_gather() else [False]


def features(numbers, offset):
    return {
        "sum": ops.sum(numbers, axis=-1) + offset,
        "twice": 2.0 * numbers,
        "positive": numbers > 0,
        "count": ops.cast(numbers, "int32"),
    }


def arrays():
    random = np.random.default_rng(0)
    numbers = random.uniform(-9, 9, (ROWS, 3)).astype("float32")
    return numbers, random.uniform(size=ROWS).astype("float32")


def expected(selected):
    numbers, offset = arrays()
    kept = np.array(selected)
    return {
        "sum": np.where(kept, numbers.sum(-1) + offset, 0),
        "twice": np.where(kept[:, None], 2 * numbers, 0),
        "positive": kept[:, None] & (numbers > 0),
        "count": np.where(kept[:, None], np.trunc(numbers), 0),
    }


def check(results, selected):
    for name, wanted in expected(selected).items():
        got = ops.convert_to_numpy(results[name])
        assert keras.backend.standardize_dtype(got.dtype) == OUTPUTS[name].dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("gather", forms())
@pytest.mark.parametrize("selection", SELECTIONS)
def test_selected_rows_and_zeros(selection, gather):
    selected = SELECTIONS[selection]
    tensors = [ops.convert_to_tensor(array) for array in arrays()]
    results = apply_to_rows(
        features, ops.convert_to_tensor(selected), tensors, OUTPUTS, gather
    )
    check(results, selected)


@pytest.mark.parametrize("gather", forms())
@pytest.mark.parametrize("compiled", [False, True])
def test_one_tensorflow_graph_for_every_selection(compiled, gather):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("graphs of TensorFlow")
    import tensorflow as tf

    shapes = [tf.TensorSpec((None, 3)), tf.TensorSpec((None,))]
    function = tf.function(
        lambda selected, *tensors: apply_to_rows(
            features, selected, list(tensors), OUTPUTS, gather
        ),
        input_signature=[tf.TensorSpec((None,), tf.bool), *shapes],
        jit_compile=compiled,
    )
    for selected in SELECTIONS.values():
        check(function(tf.constant(selected), *arrays()), selected)


def test_compiled_by_jax():
    if keras.backend.backend() != "jax":
        pytest.skip("compiled by JAX")
    import jax

    function = jax.jit(
        lambda selected, *tensors: apply_to_rows(features, selected, tensors, OUTPUTS)
    )
    for selected in SELECTIONS.values():
        check(function(np.array(selected), *arrays()), selected)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_only_the_selected_rows_reach_the_function(selection):
    if not can_gather():
        pytest.skip("JAX computes all rows")
    seen = []

    def function(numbers):
        seen.append(len(numbers))
        return numbers

    selected = ops.convert_to_tensor(SELECTIONS[selection])
    numbers = ops.convert_to_tensor(arrays()[0])
    apply_to_rows(function, selected, [numbers], keras.KerasTensor((3,)))
    count = sum(SELECTIONS[selection])
    assert seen == ([count] if count else [])
