import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_attn
from keras_attn.graph.keras_graph import private_name, producer
from keras_attn.graph.receptive_field import ReceptiveField, receptive_field
from keras_attn.graph.window_steps import PRIVATE_RULES, Windowed, WindowStep
from tests.harness import gradients, to_numpy

TENSORFLOW = keras.backend.backend() == "tensorflow"
POSITIVE = keras.initializers.RandomUniform(0.1, 1.0, seed=0)


def conv(x, kernel, name=None, **options):
    options.setdefault("kernel_initializer", POSITIVE)
    return layers.Conv2D(2, kernel, name=name, **options)(x)


def geometry(field):
    return field.size, field.stride, field.offset


def extent(mask):
    """(first, last + 1) of the true entries."""
    (places,) = np.nonzero(mask)
    return int(places[0]), int(places[-1]) + 1


def watcher(model):
    """A function from a cell to the mask of the pixels with a gradient.

    No terms cancel each other, as images and weights are positive.
    """
    image = np.random.default_rng(0).uniform(1, 2, (1, *model.inputs[0].shape[1:]))

    def value(images, mask):
        return ops.sum(model(images) * mask)

    if keras.backend.backend() == "jax":
        import jax

        value = jax.jit(value)  # one compilation instead of one for every operation

    def touched(i, j):
        mask = np.zeros((1, *model.outputs[0].shape[1:3], 1), "float32")
        mask[:, i, j] = 1.0
        gradient, _ = gradients(value, image.astype("float32"), mask)
        return np.abs(gradient).max((0, 3)) > 0

    return touched


def box_around(mask):
    (top, bottom), (left, right) = extent(mask.any(1)), extent(mask.any(0))
    return top, left, bottom, right


def assert_agrees_with_gradient(model, layer, exact_corners=True):
    """At a middle cell, whose window is inside the image, and at two corners.

    A corner's window is cut by the image, and may see less than the rest: where a
    padded map does not begin and end with the image, or dilation leaves pixels out.
    """
    field = receptive_field(model, layer)
    height, width = model.inputs[0].shape[1:3]
    rows, columns = model.outputs[0].shape[1:3]
    middle = (rows // 2, columns // 2)
    box = field.box(*middle)
    assert min(box) >= 0 and box[2] <= height and box[3] <= width, "image too small"
    touched = watcher(model)
    assert box_around(touched(*middle)) == box
    for cell in [(0, 0), (rows - 1, columns - 1)]:
        top, left, bottom, right = field.box(*cell)
        window = (max(top, 0), max(left, 0), min(bottom, height), min(right, width))
        seen = touched(*cell)
        if exact_corners:
            assert box_around(seen) == window
        seen[window[0] : window[2], window[1] : window[3]] = False
        assert not seen.any()


def random_layer(generator, x, strided):
    kernel = tuple(int(size) for size in generator.integers(1, 5, 2))
    padding = str(generator.choice(["same", "valid"]))
    stride = 1
    if strided:
        # Not beyond the kernel, which would leave pixels unseen.
        stride = tuple(int(generator.integers(1, size + 1)) for size in kernel)
    kind = generator.choice(["conv", "depthwise", "separable", "pool", "pad", "crop"])
    if kind == "conv":
        return conv(x, kernel, strides=stride, padding=padding)
    if kind == "depthwise":
        return layers.DepthwiseConv2D(
            max(kernel),
            strides=max(1, max(kernel) - 1) if strided else 1,
            padding=padding,
            depthwise_initializer=POSITIVE,
        )(x)
    if kind == "separable":
        return layers.SeparableConv2D(
            2,
            kernel,
            padding=padding,
            depthwise_initializer=POSITIVE,
            pointwise_initializer=POSITIVE,
        )(x)
    if kind == "pool":
        return layers.AveragePooling2D(kernel, stride, padding)(x)
    if kind == "pad":
        return layers.ZeroPadding2D(((0, 2), (1, 0)))(x)
    return layers.Cropping2D(((1, 0), (0, 2)))(x)


# Compiling takes JAX seconds for each.
@pytest.mark.parametrize("seed", range(8) if TENSORFLOW else range(2))
def test_agrees_with_the_gradient_of_random_chains(seed):
    generator = np.random.default_rng(seed)
    images = keras.Input((53, 47, 2))
    x = images
    for place in range(5):
        x = random_layer(generator, x, strided=place in (1, 3))
        x = layers.BatchNormalization()(layers.ReLU()(x))
    x = layers.Dropout(0.5, name="last")(x)
    assert_agrees_with_gradient(keras.Model(images, x), "last", False)


@pytest.mark.parametrize("join", [layers.Add, layers.Concatenate, layers.Average, None])
@pytest.mark.parametrize("size", [(41, 38), (38, 41)])
def test_joined_paths_see_the_box_around_both_windows(join, size):
    images = keras.Input((*size, 2))
    x = conv(images, 3, strides=2, padding="same")
    one = conv(x, (5, 1), padding="same")
    other = conv(layers.ZeroPadding2D(((0, 2), (0, 6)))(x), (3, 7))
    joined = one + other if join is None else join()([one, other])
    model = keras.Model(images, layers.Identity(name="last")(joined))
    # In cells of the strided map, rows -2..2 and 0..2, columns 0 and 0..6.
    assert receptive_field(model, "last").size == (3 + 2 * 4, 3 + 2 * 6)
    assert_agrees_with_gradient(model, "last", exact_corners=False)


def test_agrees_with_the_gradient_under_dilation():
    images = keras.Input((31, 37, 2))
    x = conv(images, (2, 3), strides=(2, 1), padding="same")
    x = conv(x, 3, dilation_rate=(2, 3), padding="same")
    x = conv(x, (2, 3), dilation_rate=(3, 1), name="last")
    model = keras.Model(images, x)
    assert_agrees_with_gradient(model, "last", exact_corners=False)
    assert receptive_field(model, "last").size == (2 + 2 * 4 + 2 * 3, 3 + 6 + 2)


def test_agrees_with_who_notices_a_bright_row_or_column():
    """Max pooling passes the gradient of one pixel only, brightness of every one."""
    images = keras.Input((29, 23, 2))
    x = conv(images, (3, 2), strides=2, padding="same")
    x = layers.MaxPooling2D((3, 2), (2, 1), padding="same")(x)
    x = layers.MaxPooling2D((2, 3), 1, name="last")(x)
    model = keras.Model(images, x)
    field = receptive_field(model, "last")
    dark = np.ones((1, 29, 23, 2), "float32")
    quiet = to_numpy(model(dark)).max(-1)
    for axis, length in enumerate((29, 23)):
        bright = np.repeat(dark, length, axis=0)
        for place in range(length):
            np.moveaxis(bright[place], axis, 0)[place] = 100.0
        noticed = (to_numpy(model(bright)).max(-1) > quiet + 1).any(2 - axis)
        for cell in range(noticed.shape[1]):
            start = field.offset[axis] + field.stride[axis] * cell
            wanted = max(start, 0), min(start + field.size[axis], length)
            assert extent(noticed[:, cell]) == wanted


# ---- numbers known otherwise -----------------------------------------------------


def test_head_of_anchornet_by_hand():
    """AnchorNet paper, table 1: 3, 7, 15 and then by 16 for each 3x3 at stride 8."""
    x = images = keras.Input((224, 224, 3))
    for number, stride in enumerate([2, 2, 2, 1, 1, 1]):
        x = conv(x, 3, strides=stride, name=f"conv_{number}")
    model = keras.Model(images, x)
    fields = [receptive_field(model, f"conv_{number}") for number in range(6)]
    assert [field.size[0] for field in fields] == [3, 7, 15, 31, 47, 63]
    assert [field.stride[0] for field in fields] == [2, 4, 8, 8, 8, 8]
    assert geometry(fields[5]) == ((63, 63), (8, 8), (0, 0))
    assert fields[5].box(2, 20) == (16, 160, 79, 223)


def test_same_padding_of_a_strided_convolution_follows_the_size_of_the_image():
    """A kernel of 3 at stride 2 pads an even side behind only, an odd one both."""
    images = keras.Input((None, None, 1))
    model = keras.Model(images, conv(images, 3, "c", strides=2, padding="same"))
    assert receptive_field(model, "c", image_size=(8, 9)).offset == (0, -1)
    with pytest.raises(ValueError, match="'c' .*'same' padding with stride 2.*size"):
        receptive_field(model, "c")


@pytest.mark.skipif(not TENSORFLOW, reason="the graphs are the same")
@pytest.mark.parametrize(
    "name, layer, size, stride",
    [
        # Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks":
        ("VGG16", "block5_conv3", 196, 16),
        ("VGG16", "block5_pool", 212, 32),
        ("MobileNet", "conv_pw_13_relu", 315, 32),
        # 483 as in the table, as Keras strides in the first 1x1 convolution of a stage:
        # 11 + 3 * 8 + 4 * 16 + 6 * 32 + 3 * 64. (With the stride in the 3x3
        # convolution, as torchvision has it, 427.)
        ("ResNet50", "conv5_block3_out", 483, 32),
        ("MobileNetV2", "out_relu", 491, 32),
    ],
)
def test_published_networks(name, layer, size, stride):
    build = getattr(keras.applications, name)
    model = build(weights=None, include_top=False, input_shape=(64, 96, 3))
    field = receptive_field(model, layer)
    assert (field.size, field.stride) == ((size, size), (stride, stride))
    assert field.ignored == ()


# ---- global gates ----------------------------------------------------------------


def gated(gate_of):
    images = keras.Input((33, 31, 2))
    x = conv(images, 3, strides=2)
    gate = gate_of(x)
    x = conv(layers.Multiply()([x, gate]), 3, name="last")
    return keras.Model(images, x)


def squeeze(x):
    gate = layers.GlobalAveragePooling2D(name="squeeze")(x)
    gate = layers.Dense(2, activation="sigmoid")(layers.Dense(3)(gate))
    return layers.Reshape((1, 1, 2))(gate)


def kept_squeeze(x):
    gate = layers.GlobalMaxPooling2D(keepdims=True, name="squeeze")(x)
    return layers.Conv2D(2, 1, activation="hard_sigmoid")(gate)


def operations(x):
    return ops.sigmoid(ops.mean(x, axis=(1, 2), keepdims=True) * 2.0 - 1.0)


@pytest.mark.parametrize("gate", [squeeze, kept_squeeze, operations])
def test_gates_that_see_the_whole_map_are_left_out_and_named(gate):
    field = receptive_field(gated(gate), "last")
    assert geometry(field) == ((7, 7), (2, 2), (0, 0))
    assert len(field.ignored) == 1
    assert gate is operations or field.ignored == ("squeeze",)


def test_normalisation_over_cells_is_a_gate_and_over_channels_is_not():
    images = keras.Input((9, 9, 4))
    x = layers.GroupNormalization(2, name="group")(images)
    x = layers.LayerNormalization(axis=-1, name="channels")(x)
    x = layers.Softmax(axis=(1, 2), name="space")(x)
    x = layers.Softmax(name="last")(x)
    field = receptive_field(keras.Model(images, x), "last")
    assert field == ReceptiveField((1, 1), (1, 1), (0, 0), ("group", "space"))


def test_attention_from_each_cell_widens_the_window_by_its_own_kernel():
    """CBAM's spatial gate is local: reductions over channels, then a convolution."""
    images = keras.Input((21, 23, 3))
    pooled = [reduce(images, axis=-1, keepdims=True) for reduce in (ops.max, ops.mean)]
    gate = layers.Conv2D(1, 5, padding="same")(layers.Concatenate()(pooled))
    x = layers.Multiply(name="last")([images, ops.sigmoid(gate)])
    field = receptive_field(keras.Model(images, x), "last")
    assert field == ReceptiveField((5, 5), (1, 1), (-2, -2))


# ---- layers of one's own ---------------------------------------------------------


class Odd(layers.Layer):
    def call(self, inputs):
        return inputs


class Composite(layers.Layer):
    """Two convolutions, with a gate between them, and a summary."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(2, (3, 2), strides=(2, 1), dtype="float32")
        self.second = layers.Conv2D(2, 2, padding="same")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((None, None, None, 2))

    def call(self, inputs):
        x = self.first(inputs)
        x = self.second(x * ops.mean(x, axis=(1, 2), keepdims=True))
        return {"map": x, "summary": ops.mean(x, axis=(1, 2))}

    def window_steps(self):
        return [
            WindowStep(kernel=(3, 2), stride=(2, 1)),
            None,
            WindowStep(kernel=2, padding="same"),
        ]


class Attention(Odd):
    def window_steps(self):
        return None


def test_layers_tell_their_steps():
    images = keras.Input((17, 19, 2))
    outputs = Composite(name="composite")(images)
    x = Attention(name="attention")(outputs["map"])
    x = layers.Multiply(name="last")([x, layers.Reshape((1, 1, 2))(outputs["summary"])])
    model = keras.Model(images, [x, outputs["summary"]])
    field = receptive_field(model, "last")
    assert geometry(field) == ((5, 3), (2, 1), (0, 0))
    assert field.ignored == ("composite", "attention")
    assert receptive_field(model, "composite").ignored == ("composite",)
    with pytest.raises(ValueError, match="sees all of it at once, through composite"):
        receptive_field(model, outputs["summary"])


def test_a_layer_that_makes_one_cell_of_the_map_leaves_no_windows():
    class Context(Odd):
        def call(self, inputs):
            return ops.mean(inputs, axis=(1, 2), keepdims=True)

        def window_steps(self):
            return None

    images = keras.Input((9, 11, 2))
    context = Context(name="context")(images)
    scaled = layers.Multiply(name="scaled")([images, context])
    moved = layers.Add(name="moved")([images, context])
    model = keras.Model(images, [scaled, moved])
    assert receptive_field(model, "scaled").ignored == ("context",)
    with pytest.raises(ValueError, match="adds what depends on the whole image"):
        receptive_field(model, "moved")


def test_a_layer_that_resizes_starts_the_image_anew():
    class Resize(layers.Layer):
        def call(self, inputs):
            return ops.image.resize(inputs, (16, 17))

        def window_steps(self):
            return []

    images = keras.Input((None, None, 2))
    x = conv(Resize()(images), 3, "c", strides=2, padding="same")
    assert receptive_field(keras.Model(images, x), "c").offset == (0, -1)


def test_unknown_layers_matter_only_on_the_way():
    images = keras.Input((9, 9, 2))
    x = conv(images, 3, name="before")
    x = conv(Odd(name="odd")(x), 3, name="after")
    model = keras.Model(images, x)
    assert receptive_field(model, "before").size == (3, 3)
    with pytest.raises(ValueError, match=r"'after'.*'odd' \(Odd\).*window_steps"):
        receptive_field(model, "after")
    model.get_layer("odd").window_steps = lambda: [WindowStep(3)]
    assert receptive_field(model, "after").size == (7, 7)


# ---- kinds of models -------------------------------------------------------------


def backbone():
    images = keras.Input((None, None, 3))
    x = conv(images, 3, strides=2, padding="same", name="inner")
    return keras.Model(images, conv(x, 3, padding="same"), name="backbone")


def test_sequential_and_nested_models():
    """Layers of a nested model are found too, with windows in the outer image."""
    model = keras.Sequential(
        [
            keras.Input((20, 21, 3)),
            layers.Rescaling(1 / 255),
            layers.ZeroPadding2D(1),
            backbone(),
            layers.Conv2D(2, 3, name="last"),
        ]
    )
    inner = receptive_field(model, "inner")
    # The padded sides are 22 and 23: the kernel starts at the border, and before it.
    assert geometry(inner) == ((3, 3), (2, 2), (-1, -2))
    assert geometry(receptive_field(model, "backbone")) == ((7, 7), (2, 2), (-3, -4))
    assert geometry(receptive_field(model, "last")) == ((11, 11), (2, 2), (-3, -4))
    assert receptive_field(model, model.layers[-1]) == receptive_field(model, "last")
    assert_agrees_with_gradient(model, "last")


def test_a_layer_that_is_called_twice_is_asked_for_by_its_tensor():
    images = keras.Input((9, 11, 2))
    shared = layers.Conv2D(2, 3, name="shared")
    first = shared(images)
    model = keras.Model(images, shared(first))
    assert receptive_field(model, first).size == (3, 3)
    assert receptive_field(model, model.output).size == (5, 5)
    with pytest.raises(ValueError, match="'shared' to be called once.*the tensor"):
        receptive_field(model, "shared")


@pytest.mark.skipif(TENSORFLOW, reason="no such convolutions on the CPU")
def test_channels_first():
    images = keras.Input((2, 20, 23))
    keras.config.set_image_data_format("channels_first")
    try:
        x = conv(images, 3, strides=2, padding="same")
        x = layers.Concatenate(axis=1, name="last")([x, x])
        field = receptive_field(keras.Model(images, x), "last")
    finally:
        keras.config.set_image_data_format("channels_last")
    assert geometry(field) == ((3, 3), (2, 2), (0, -1))


def test_boxes_of_a_map_and_patches_around_their_centres():
    field = ReceptiveField((7, 5), (4, 2), (-1, 0))
    boxes = field.boxes(2, 3)
    assert boxes.shape == (2, 3, 4) and boxes.dtype == "int32"
    for i in range(2):
        for j in range(3):
            assert tuple(boxes[i, j]) == field.box(i, j)
    assert field.box(1, 2) == (3, 4, 10, 9)
    same = field.centred((3, 9))
    assert same.box(1, 2) == (5, 2, 8, 11)
    # An odd difference: half a pixel towards the top left.
    assert field.centred(4).box(0, 0) == (0, 0, 4, 4)


# ---- errors ----------------------------------------------------------------------


def refused_model(kind):
    images = keras.Input((12, 12, 2))
    if kind == "up":
        x = layers.UpSampling2D(name="last")(images)
    elif kind == "transposed":
        x = layers.Conv2DTranspose(2, 3, name="last")(images)
    elif kind == "strides":
        pair = [conv(images, 3, padding="same"), layers.MaxPooling2D(1, 1)(images)]
        pair[1] = layers.ZeroPadding2D(3)(conv(pair[1], 1, strides=2))
        x = layers.Add(name="last")(pair)
    elif kind == "sum":
        pooled = layers.GlobalAveragePooling2D(keepdims=True)(images)
        x = layers.Add(name="last")([images, pooled])
    elif kind == "side by side":
        x = layers.Concatenate(axis=1, name="last")([images, images])
    else:
        x = layers.GlobalAveragePooling2D(name="last")(images)
    return keras.Model(images, x)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("up", "'last' .UpSampling2D."),
        ("transposed", "'last' .Conv2DTranspose."),
        ("strides", "different strides, 1 and 2"),
        ("sum", "adds what depends on the whole image"),
        ("side by side", "along axis 1"),
        ("global", "'last' to have cells.*through last"),
    ],
)
def test_refuses_what_has_no_windows(kind, message):
    with pytest.raises(ValueError, match=message):
        receptive_field(refused_model(kind), "last")


def test_refuses_wrong_arguments():
    images = keras.Input((12, None, 2))
    model = keras.Model(images, conv(images, 3, name="c"), name="small")
    with pytest.raises(ValueError, match="of 'small'. Received: layer='d'"):
        receptive_field(model, "d")
    with pytest.raises(ValueError, match="image_size=.13, 12."):
        receptive_field(model, "c", image_size=(13, 12))
    with pytest.raises(ValueError, match="functional or built sequential"):
        receptive_field(keras.Sequential([layers.Conv2D(2, 3)]), "conv2d")
    for options in ({"kernel": 0}, {"stride": (1, 2, 3)}, {"padding": "causal"}):
        with pytest.raises(ValueError, match=f"Expected `{next(iter(options))}`"):
            WindowStep(**options)


def test_private_classes_have_names_and_others_have_none():
    class Add(layers.Layer):
        pass

    x = keras.Input((5, 7, 3))
    found = [private_name(producer(y)) for y in (x + x, ops.relu(x), ops.mean(x, 1))]
    assert found == ["ops.Add", "ops.Relu", "ops.Mean"]
    assert private_name(Add()) is private_name(layers.Add()) is None


@pytest.mark.parametrize("name", sorted(PRIVATE_RULES))
def test_private_classes_of_the_rules_exist(name):
    package, name = name.split(".")
    modules = [
        module
        for path, module in sys.modules.items()
        if path.startswith(f"keras.src.{package}.")
    ]
    assert any(hasattr(module, name) for module in modules)


def test_layers_with_windows_are_recognised():
    layer = layers.Layer()
    assert not isinstance(layer, Windowed)
    layer.window_steps = lambda: []
    assert isinstance(layer, Windowed)
    assert issubclass(keras_attn.layers.ValidBottleneck, Windowed)
