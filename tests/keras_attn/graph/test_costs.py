import keras
import numpy as np
import pytest
from keras import layers

import keras_attn
from keras_attn.graph.costs import (
    Countable,
    PatchCost,
    multiply_adds,
    patch_cost,
    trainable_params,
)
from keras_attn.graph.keras_graph import call_count
from keras_attn.layers import ClassEmbedding
from keras_attn.models import build_model
from tests.harness import unweighted


def test_counts_every_kind_of_layer_by_hand():
    inputs = keras.Input((9, 7, 4))
    x = layers.Conv2D(6, (3, 5), padding="same", strides=2, groups=2)(inputs)  # 5 x 4
    x = layers.DepthwiseConv2D(3)(x)  # 3 x 2
    x = layers.Dense(11)(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    convolution = 5 * 4 * 3 * 5 * (4 // 2) * 6
    depthwise = 3 * 2 * 3 * 3 * 6
    assert multiply_adds(model) == convolution + depthwise + 3 * 2 * 6 * 11


def test_counts_shared_layers_once_an_application_and_nested_models():
    inputs = keras.Input((5,))
    dense = layers.Dense(5)
    nested = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    model = keras.Model(inputs, nested(dense(dense(inputs))))
    assert multiply_adds(model) == 2 * 25 + 15


def test_counts_the_block_by_hand():
    inputs = keras.Input((8, 6, 16))
    outputs = ClassEmbedding(10, filters=12)(inputs)
    per_cell = 16 * 10 + 10 * 12 + 16 * 12
    assert multiply_adds(keras.Model(inputs, outputs)) == 8 * 6 * per_cell


@unweighted()
def test_resnet50_is_the_published_size():
    """Published: 25.6 M parameters and 3.8 to 4.1 G multiply-adds at 224."""
    model = keras.applications.ResNet50(weights=None)
    assert trainable_params(model) == 25_583_592
    assert 3.8e9 < multiply_adds(model) < 4.1e9


@unweighted()
def test_rn26_equals_the_sum_of_its_convolutions():
    model = build_model("rn26")
    total = 2560  # the dense layer
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            cells = np.prod(layer.output.shape[1:3])
            total += cells * np.prod(layer.kernel.shape)
    assert multiply_adds(model) == total


@unweighted()
def test_leaves_the_model_as_it_was():
    model = build_model("resnet20")
    before = call_count(model.layers[1])
    multiply_adds(model)
    assert call_count(model.layers[1]) == before


def test_refuses_unknown_sizes():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    with pytest.raises(ValueError, match="fixed spatial sizes"):
        multiply_adds(model)


def small_classifier(input_shape=(None, None, 3)):
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(4, 3, strides=2)(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, {"logits": layers.Dense(7)(x)})


def small_cost(height, width):
    cells = ((height - 3) // 2 + 1) * ((width - 3) // 2 + 1)
    return cells * 3 * 3 * 3 * 4 + 4 * 7


@pytest.mark.parametrize("input_shape", [(None, None, 3), (17, 23, 3)])
def test_counts_at_the_size_that_is_asked_for(input_shape):
    model = small_classifier(input_shape)
    assert multiply_adds(model, (11, 5, 3)) == small_cost(11, 5)
    inputs = keras.Input((None, None, 3))
    outer = keras.Model(inputs, model(keras.layers.ZeroPadding2D(1)(inputs)))
    if input_shape[0] is None:
        assert multiply_adds(outer, (11, 5, 3)) == small_cost(13, 7)


def resnet50_with_stride_on_the_3x3():
    """The variant of PyTorch's model zoo; Keras strides the first 1x1 convolution."""
    original = keras.applications.ResNet50(weights=None)

    def clone(layer):
        config = layer.get_config()
        if config.get("strides") == (2, 2) and layer.name.endswith("_block1_1_conv"):
            config["strides"] = (1, 1)
        elif layer.name[:5] in ("conv3", "conv4", "conv5"):
            if layer.name.endswith("_block1_2_conv"):
                config["strides"] = (2, 2)
        return type(layer).from_config(config)

    return keras.models.clone_model(original, clone_function=clone)


@unweighted()
def test_resnet50_costs_what_the_anchornet_paper_says():
    """0.336, 0.753 and 1.078 G per patch: with the stride on the 3x3 convolution."""
    sizes = {63: 0.336, 95: 0.753, 111: 1.078}
    model = resnet50_with_stride_on_the_3x3()
    costs = {size: multiply_adds(model, (size, size, 3)) for size in sizes}
    for size, published in sizes.items():
        assert costs[size] / 1e9 == pytest.approx(published, abs=0.0006)
    # Table 3: mean numbers of patches, and of images that each branch localises.
    patches, images = (5.6, 2.9, 2.1), (15050, 18047, 16903)
    cost = PatchCost(0.49e9, tuple(costs.values()))
    branches = np.repeat([0, 1, 2], images)
    counts = np.repeat(patches, images)
    for branch, published in enumerate((1.88, 2.18, 2.26)):
        each = cost.per_image([branch], [patches[branch]], with_localizer=False)
        assert each[0] / 1e9 == pytest.approx(published, abs=0.006)
    without = cost.mean(branches, counts, with_localizer=False)
    assert without / 1e9 == pytest.approx(2.11, abs=0.01)
    assert cost.mean(branches, counts) == pytest.approx(without + 0.49e9)


def test_cost_of_patches_by_hand():
    localizer = small_classifier((29, 31, 3))
    cost = patch_cost(localizer, small_classifier(), (11, (5, 7)), (29, 31, 3))
    assert cost.localizer == small_cost(29, 31)
    assert cost.patch == (small_cost(11, 11), small_cost(5, 7))
    first = small_cost(29, 31) + 3 * small_cost(11, 11)
    second = small_cost(29, 31) + 2 * small_cost(5, 7)
    np.testing.assert_array_equal(cost.per_image([0, 1], [3, 2]), [first, second])
    assert cost.mean([0, 1], [3, 2]) == (first + second) / 2


def test_layers_count_themselves_or_refuse():
    class Known(layers.Identity):
        def multiply_adds(self, input_shape):
            return 5 * input_shape[1]

    class Unknown(layers.Identity):
        def multiply_adds(self, input_shape):
            return None

    assert isinstance(Known(), Countable) and not isinstance(layers.ReLU(), Countable)
    inputs = keras.Input((7, 3))
    assert multiply_adds(keras.Model(inputs, Known()(inputs))) == 35
    model = keras.Model(inputs, Unknown(name="odd")(inputs))
    with pytest.raises(ValueError, match=r"known cost.*'odd' \(Unknown\)"):
        multiply_adds(model)


def test_the_layers_of_this_package_count_themselves_or_are_made_of_such():
    """Others would count as free, by their sublayers, of which they have none."""
    free = {"BranchDecision", "CropPatches", "LocalizePatches"}
    free |= {"ClassPrompts", "MarginSoftmax", "PerturbedArgmax"}
    of_sublayers = {"ClassEmbedding", "ContextPooling", "PatchLogits"}
    found = {
        name: each
        for name, each in vars(keras_attn.layers).items()
        if name in keras_attn.layers.__all__ and isinstance(each, type)
    }
    counted = {name for name, each in found.items() if issubclass(each, Countable)}
    assert set(found) - counted == free | of_sublayers
