import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.layers.classify_patches import ClassifyPatches
from keras_attn.ops.rows import can_gather
from tests.harness import assert_same_output, check_layer, gradients, to_numpy
from tests.keras_attn.counting import counted, small_classifier
from tests.reference import classify_patches as reference

SIZES = [(7, 7), (11, 13), (17, 17)]
SLOTS = 5
CLASSES = 5
# Patches collected, as far as the backend can, and all slots computed.
FORMS = [None, False] if can_gather() else [None]


def inputs(branches=(2, 0, 1, 0, 2, 0), seed=0):
    """Images, boxes of which some leave the image, counts of 0 to 5, branches."""
    random = np.random.default_rng(seed)
    batch = len(branches)
    images = random.uniform(0, 255, (batch, 23, 29, 3)).astype("float32")
    counts = random.integers(0, SLOTS + 1, batch)
    counts[:2] = (0, SLOTS)[:batch]
    valid = np.arange(SLOTS) < counts[:, None]
    corners = random.integers(-6, 20, (batch, SLOTS, 2))
    sizes = np.array(SIZES)[list(branches)][:, None]
    boxes = np.concatenate([corners, corners + sizes], -1)
    boxes = np.where(valid[..., None], boxes, -1).astype("int32")
    return [images, boxes, valid, np.array(branches, "int32")]


def run(layer, arrays):
    if keras.backend.backend() == "jax":
        import jax

        layer = jax.jit(layer)
    outputs = layer([ops.convert_to_tensor(array) for array in arrays])
    return keras.tree.map_structure(to_numpy, outputs)


def expected(classifier, arrays, from_logits=True):
    def probabilities_of(patch):
        found = classifier(patch[None], training=False)
        found = found["logits"] if isinstance(found, dict) else found
        found = to_numpy(found)[0]
        return reference.softmax(found) if from_logits else found

    return reference.classify_patches(probabilities_of, *arrays, SIZES)


@pytest.mark.parametrize("gather", FORMS)
@pytest.mark.parametrize("kind", ["logits", "plain logits", "probabilities"])
def test_equals_one_patch_at_a_time(kind, gather):
    classifier = small_classifier(
        probabilities=kind == "probabilities", plain=kind != "logits"
    )
    from_logits = kind != "probabilities"
    layer = ClassifyPatches(classifier, SIZES, from_logits=from_logits, gather=gather)
    arrays = inputs()
    outputs = run(layer, arrays)
    patches, mean = expected(classifier, arrays, from_logits)
    np.testing.assert_allclose(outputs["patch_probabilities"], patches, atol=1e-5)
    found = arrays[2].any(axis=1)
    assert not found.all() and mean.std() > 0.05
    probabilities = np.exp(outputs["logits"][found])
    np.testing.assert_allclose(probabilities, mean[found], atol=1e-5)
    # Without any patch nothing speaks for one class or another.
    assert np.ptp(outputs["logits"][~found]) == 0.0


@pytest.mark.parametrize("branches", [(1, 1, 1, 1), (2,), (0, 0, 2, 2)])
def test_collected_equals_all_slots_whatever_the_branches(branches):
    classifier = small_classifier()
    arrays = inputs(branches, seed=len(branches))
    first = run(ClassifyPatches(classifier, SIZES), arrays)
    second = run(ClassifyPatches(classifier, SIZES, gather=False), arrays)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), first, second
    )


@pytest.mark.parametrize("gather", FORMS)
def test_max_patches_leaves_only_empty_slots_out(gather):
    classifier = small_classifier()
    arrays = inputs()
    limits = (5, 2, 3)
    arrays[2] &= np.arange(SLOTS) < np.array(limits)[arrays[3]][:, None]
    wanted = run(ClassifyPatches(classifier, SIZES), arrays)
    layer = ClassifyPatches(classifier, SIZES, max_patches=limits, gather=gather)
    assert_same_output(run(layer, arrays), wanted)


@pytest.mark.parametrize("graph", [False, True])
def test_the_classifier_sees_each_valid_patch_once_and_no_other(graph):
    if not can_gather():
        pytest.skip("JAX computes all slots")
    classifier = small_classifier()
    layer = ClassifyPatches(classifier, SIZES)
    call = layer
    if graph:
        if keras.backend.backend() != "tensorflow":
            pytest.skip("a graph of TensorFlow")
        import tensorflow as tf

        call = tf.function(layer)
    for branches, calls in [((2, 0, 1, 0, 2, 0), 3), ((1, 1, 1), 1), ((0, 0, 2), 2)]:
        arrays = inputs(branches)
        arrays[2][:, 0] = True  # every image has a patch, as localisers promise
        run(call, arrays)  # also traces
        counted(classifier)
        run(call, arrays)
        assert counted(classifier) == (calls, arrays[2].sum())


def test_nothing_valid_runs_nothing():
    classifier = small_classifier()
    layer = ClassifyPatches(classifier, SIZES)
    arrays = inputs((0, 1, 2))
    arrays[2][:] = False
    outputs = run(layer, arrays)
    assert not outputs["patch_probabilities"].any()
    if can_gather():
        assert counted(classifier) == (0, 0)


def pooling_classifier():
    pixels = keras.Input((None, None, 3))
    means = keras.layers.GlobalAveragePooling2D()(pixels)
    return keras.Model(pixels, keras.layers.Dense(5, "softmax")(means))


def test_harness():
    shapes = [(2, 19, 23, 3), (2, 3, 4), (2, 3), (2,)]
    check_layer(
        ClassifyPatches,
        {
            "classifier": pooling_classifier(),
            "patch_sizes": [5, (7, 11)],
            "max_patches": [3, 2],
            "from_logits": False,
            "gather": False,
        },
        shapes,
        differentiable=False,  # boxes and branches are integers
        float32_outputs=("logits", "patch_probabilities"),
        expected_output_shape={"logits": (2, 5), "patch_probabilities": (2, 3, 5)},
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_tensorflow_graph_of_any_batch_size(compiled):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a graph of TensorFlow")
    import tensorflow as tf

    layer = ClassifyPatches(small_classifier(), SIZES)
    signature = [
        tf.TensorSpec((None, 23, 29, 3)),
        tf.TensorSpec((None, SLOTS, 4), tf.int32),
        tf.TensorSpec((None, SLOTS), tf.bool),
        tf.TensorSpec((None,), tf.int32),
    ]
    call = tf.function(layer, input_signature=[signature], jit_compile=compiled)
    for branches in [(2, 0, 1, 0), (1,)]:
        arrays = inputs(branches)
        wanted = run(layer, arrays)
        outputs = call([tf.constant(array) for array in arrays])
        keras.tree.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), outputs, wanted
        )


@pytest.mark.parametrize("gather", FORMS)
def test_gradients_reach_the_pixels_of_valid_patches_only(gather):
    layer = ClassifyPatches(small_classifier(), SIZES, gather=gather)
    arrays = inputs((0,))
    arrays[1][0] = [[2, 3, 9, 10], [8, 9, 15, 16], *[[-1] * 4] * 3]
    arrays[2][0] = [True, False, False, False, False]
    run(layer, arrays)

    def loss(images):
        return ops.sum(layer([images, *arrays[1:]])["logits"][:, 0])

    (gradient,) = gradients(loss, arrays[0])
    seen = np.abs(gradient[0]).sum(axis=-1) > 0
    assert seen[2:9, 3:10].any() and not np.delete(seen, range(2, 9), axis=0).any()
    assert not np.delete(seen, range(3, 10), axis=1).any()


def test_keras_leaves_xla_out_where_patches_are_collected():
    collected = ClassifyPatches(small_classifier(), SIZES)
    assert collected.supports_jit == (not can_gather())
    assert ClassifyPatches(small_classifier(), SIZES, gather=False).supports_jit


def test_cost_is_that_of_the_most_expensive_branch():
    from keras_attn.graph.costs import multiply_adds

    classifier = small_classifier()
    layer = ClassifyPatches(classifier, SIZES, max_patches=[5, 4, 2])
    run(layer, inputs())
    costs = [multiply_adds(classifier, (*size, 3)) for size in SIZES]
    wanted = max(count * cost for count, cost in zip((5, 4, 2), costs, strict=True))
    assert layer.multiply_adds((None, 23, 29, 3)) == wanted


def test_refusals():
    arrays = inputs()
    fixed = small_classifier(input_shape=(7, 7, 3))
    with pytest.raises(ValueError, match=r"takes \(7, 7, 3\), for patches .*11, 13"):
        run(ClassifyPatches(fixed, SIZES), arrays)
    ClassifyPatches(fixed, [7]).build([(None, 23, 29, 3), (None, 5, 4)])
    with pytest.raises(ValueError, match=r"patches \(7, 7, 1\)"):
        ClassifyPatches(small_classifier(), SIZES).build(
            [(None, 23, 29, 1), (None, 5, 4)]
        )
    with pytest.raises(ValueError, match="at least 17 x 17 pixels.*Received: 23 x 16"):
        ClassifyPatches(small_classifier(), SIZES).build(
            [(None, 23, 16, 3), (None, 5, 4)]
        )
    with pytest.raises(ValueError, match="to be a Keras model"):
        ClassifyPatches(lambda x: x, SIZES)
    with pytest.raises(ValueError, match="at least one patch size"):
        ClassifyPatches(small_classifier(), [])
    with pytest.raises(ValueError, match="one entry for each"):
        ClassifyPatches(small_classifier(), SIZES, max_patches=[1, 2])
    pixels = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="entry 'logits'"):
        same = keras.layers.Identity()(pixels)
        run(ClassifyPatches(keras.Model(pixels, same), SIZES), arrays)
