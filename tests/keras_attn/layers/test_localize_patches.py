import keras
import numpy as np
import pytest
from keras import ops, tree

from keras_attn.layers.localize_patches import SLACK, TIGHT, LocalizePatches
from keras_attn.ops.patches import localize_patches
from tests.harness import check_layer, example, run, to_numpy
from tests.reference import patches as reference

BRANCHES = [
    {"name": "small", "patch_size": (11, 13), "stride": (4, 6), "offset": (-1, 2)},
    {"name": "wide", "patch_size": 17},
]
SHAPES = {
    "logits_small": (2, 5),
    "evidence_small": (2, 7, 3, 5),
    "logits_wide": (2, 5),
    "evidence_wide": (2, 3, 5, 5),
}
DTYPES = {
    "float32_outputs": ("scores",),
    "integer_outputs": ("label", "branch", "boxes", "valid"),
}


def test_keeps_the_promises_of_a_layer():
    check_layer(
        LocalizePatches,
        {
            "branches": BRANCHES,
            "max_patches": (2, 1),
            "iou_threshold": 0.4,
            "coverage": 0.7,
        },
        SHAPES,
        other_shapes=[{name: (3, *shape[1:]) for name, shape in SHAPES.items()}],
        keeps_default={"compat"},
        differentiable=False,  # a choice
        **DTYPES,
    )


def test_compat_with_one_branch_keeps_them_too():
    shapes = {name: SHAPES[name] for name in ("logits_wide", "evidence_wide")}
    check_layer(
        LocalizePatches,
        {
            "branches": BRANCHES[1:],
            "max_patches": 3,
            "iou_threshold": (0.2, 0.4, 0.1),
            "coverage": 0.9,
            "compat": True,
        },
        shapes,
        differentiable=False,
        **DTYPES,
    )


def found_by(layer, inputs):
    """NumPy outputs; compiled on JAX, where single operations take long."""
    if keras.backend.backend() != "jax":
        return run(layer, inputs)
    import jax

    return tree.map_structure(to_numpy, jax.jit(lambda inputs: layer(inputs))(inputs))


def maps_of(seed, batch, sizes, classes=4):
    """Inputs for branches with these sizes of maps."""
    random = np.random.default_rng(seed)
    inputs = {}
    for name, size in sizes.items():
        for kind, shape in (("logits", ()), ("evidence", size)):
            values = random.standard_normal((batch, *shape, classes))
            inputs[f"{kind}_{name}"] = values.astype("float32")
    return inputs


def test_equals_deciding_and_choosing_for_each_image():
    sizes = {"15": (9, 8), "23": (8, 7), "31": (7, 6)}
    inputs = maps_of(0, 60, sizes)
    branches = [{"name": name, "patch_size": int(name)} for name in sizes]
    most, coverage = (2, 5, 3), (0.5, 1.0, 0.25)
    visits = (36, 56, 10)
    found = found_by(LocalizePatches(branches, most, 0.3, coverage), inputs)
    logits = np.stack([inputs[f"logits_{name}"] for name in sizes], axis=1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for image in range(60):
        label, branch = reference.decide(probabilities[image])
        assert (found["label"][image], found["branch"][image]) == (label, branch)
        name = branches[branch]["name"]
        evidence = inputs[f"evidence_{name}"][image, :, :, label]
        cells, boxes = reference.localize(
            evidence, (int(name),) * 2, most[branch], 0.3, visits[branch], (8, 8)
        )
        count = len(boxes)
        np.testing.assert_array_equal(found["boxes"][image, :count], boxes)
        np.testing.assert_array_equal(
            found["scores"][image, :count], [evidence[cell] for cell in cells]
        )
        assert (found["boxes"][image, count:] == -1).all()
        assert (found["scores"][image, count:] == 0.0).all()
        assert found["valid"][image].sum() == count
    assert set(found["branch"]) == {0, 1, 2}


def test_a_single_branch_decides_alone():
    inputs = maps_of(1, 7, {"a": (4, 5)})
    layer = LocalizePatches([{"name": "a", "patch_size": 9}], 3, compat=True)
    found = run(layer, {**inputs, "attention_a": np.zeros((7, 4, 5, 1))})
    labels = inputs["logits_a"].argmax(axis=-1)
    np.testing.assert_array_equal(found["label"], labels)
    assert not found["branch"].any()
    evidence = inputs["evidence_a"][np.arange(7), :, :, labels]
    wanted = tree.map_structure(to_numpy, localize_patches(evidence, 9, 3, compat=True))
    for key, values in wanted.items():
        np.testing.assert_array_equal(found[key], values)


def test_settings_of_the_paper():
    """Section 4.1, with the maps that images of 224 pixels give."""
    sizes = {"63": (21, 21), "95": (17, 17), "111": (15, 15)}
    branches = [{"name": name, "patch_size": int(name)} for name in sizes]
    inputs = maps_of(2, 3, sizes)
    tight = found_by(LocalizePatches(branches, **TIGHT), inputs)
    assert tight["boxes"].shape == (3, 5, 4)
    # With the slack settings each branch fills its number.
    inputs["logits_63"][0] = inputs["logits_95"][1] = inputs["logits_111"][2] = 0.0
    for image, name in enumerate(sizes):
        for other in sizes:
            inputs[f"logits_{other}"][image] = [0.0, 0.1, 0.0, 0.0]
        inputs[f"logits_{name}"][image, 1] = 9.0
    slack = found_by(LocalizePatches(branches, **SLACK), inputs)
    np.testing.assert_array_equal(slack["branch"], [0, 1, 2])
    np.testing.assert_array_equal(slack["label"], 1)
    np.testing.assert_array_equal(slack["valid"].sum(axis=1), [24, 10, 8])
    assert slack["boxes"].max() <= 223  # the last row and column are never seen


def test_evidence_is_compared_in_float32_under_any_policy():
    evidence = np.array([1.0, 1.001, 1.002], "float32").reshape((1, 1, 3, 1))
    inputs = {"logits_a": np.ones((1, 1), "float32"), "evidence_a": evidence}
    layer = LocalizePatches([{"name": "a", "patch_size": 2}], 1, dtype="mixed_bfloat16")
    assert run(layer, inputs)["boxes"][0, 0].tolist() == [0, 16, 2, 18]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's XLA")
def test_compiled_for_any_batch_size():
    import tensorflow as tf

    layer = LocalizePatches(BRANCHES, (1, 2), coverage=0.7)
    signature = {
        name: tf.TensorSpec((None, *shape[1:])) for name, shape in SHAPES.items()
    }
    function = tf.function(layer, input_signature=[signature], jit_compile=True)
    for batch in (1, 4):
        shapes = {name: (batch, *shape[1:]) for name, shape in SHAPES.items()}
        inputs = example(shapes)
        for key, values in run(layer, inputs).items():
            np.testing.assert_array_equal(to_numpy(function(inputs)[key]), values)


def test_missing_inputs_are_named():
    layer = LocalizePatches(BRANCHES, 3)
    inputs = example(SHAPES)
    del inputs["evidence_wide"]
    with pytest.raises(ValueError, match="without evidence_wide"):
        layer(inputs)


def test_known_nan_is_an_error():
    inputs = tree.map_structure(to_numpy, example(SHAPES))
    inputs["evidence_small"][1] = np.nan
    with pytest.raises(ValueError, match=r"without NaN.*maps \[1\]"):
        LocalizePatches(BRANCHES, 3)(tree.map_structure(ops.convert_to_tensor, inputs))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"branches": []}, "at least one branch"),
        ({"branches": BRANCHES[::-1]}, "increasing order"),
        ({"branches": [{"name": "a"}]}, "`name`, `patch_size`"),
        ({"branches": [{**BRANCHES[0], "size": 3}]}, "Received: .*'size': 3"),
        ({"branches": [{**BRANCHES[0], "stride": 0}]}, "`stride`"),
        ({"max_patches": 0}, "`max_patches` to be a positive integer"),
        ({"max_patches": (3, 0)}, "`max_patches` to be a positive integer"),
        ({"max_patches": (3, 2, 1)}, "one for each of 2 branches"),
        ({"coverage": (0.5, 0.0)}, "`coverage`"),
        ({"iou_threshold": 1.5}, "`iou_threshold`"),
    ],
)
def test_refuses_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        LocalizePatches(**{"branches": BRANCHES, "max_patches": 3, **options})


def test_arrays_and_numbers_for_each_branch():
    names = {"63": (9, 8), "95": (8, 7)}
    branches = [{"name": name, "patch_size": int(name)} for name in names]
    inputs = maps_of(2, 3, names)
    given = {"max_patches": (4, 3), "iou_threshold": (0.2, 0.6), "coverage": (0.5, 1.0)}
    found = found_by(LocalizePatches(branches, **given), inputs)
    arrays = {name: np.array(value) for name, value in given.items()}
    layer = LocalizePatches(branches, **arrays)
    again = LocalizePatches.from_config(layer.get_config())
    for each in (found_by(layer, inputs), found_by(again, inputs)):
        for name, value in found.items():
            np.testing.assert_array_equal(each[name], value)
    for index, name in enumerate(names):
        alone = {key: value[index] for key, value in given.items()}
        single = found_by(LocalizePatches(branches[index : index + 1], **alone), inputs)
        mine = found["branch"] == index
        most = given["max_patches"][index]
        same = (single["label"] == found["label"]) & mine
        np.testing.assert_array_equal(
            found["boxes"][same, :most], single["boxes"][same], err_msg=name
        )
