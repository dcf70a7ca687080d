import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_attn.explain.grad_cam import grad_cam
from keras_attn.explain.gradients import gradient
from keras_attn.layers.class_activation_map import ClassActivationMap
from tests.harness import to_numpy

SIZE, CELLS = (12, 20), (3, 5)
SLOW_ON_JAX = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="every operation and shape compiles"
)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return random.integers(0, 256, (3, *SIZE, 3)).astype("uint8")


@pytest.fixture(scope="module")
def network():
    """Pixels -> map -> hidden map -> logits, with a way around the first map."""
    inputs = keras.Input((*SIZE, 3), dtype="uint8")
    pixels = layers.Rescaling(1 / 255)(inputs)
    x = plain_conv(7, 4, 4, activation="relu", name="features")(pixels)
    hidden = plain_conv(6, 1, name="hidden")(x)
    beside = plain_conv(6, 4, 4, name="beside")(pixels)
    x = layers.ReLU(name="sum")(layers.Add()([hidden, beside]))
    x = layers.BatchNormalization(name="normalization")(x)
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    classifier = layers.Dense(5, name="classifier", kernel_initializer="zeros")
    model = keras.Model(inputs, {"other": x, "logits": classifier(x)})
    random = np.random.default_rng(1)
    for name in ("features", "hidden", "beside", "classifier"):
        layer = model.get_layer(name)
        shapes = [weight.shape for weight in layer.get_weights()]
        layer.set_weights([0.3 * random.standard_normal(shape) for shape in shapes])
    return model


def plain_conv(*arguments, **options):
    """With zeros in it, since random weights take JAX long to compile."""
    return layers.Conv2D(*arguments, kernel_initializer="zeros", **options)


def inner(model, *names):
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


def upsampled(maps, size):
    """Bilinear, each cell at the centre of its region; the border is repeated."""
    for axis, length in zip((-2, -1), size, strict=True):
        cells = maps.shape[axis]
        places = (np.arange(length) + 0.5) * cells / length - 0.5
        maps = np.apply_along_axis(
            lambda row, at=places: np.interp(at, np.arange(len(row)), row), axis, maps
        )
    return maps


def scaled(maps):
    low, high = (f(maps, axis=(-2, -1), keepdims=True) for f in (np.min, np.max))
    return (maps - low) / np.where(high > low, high - low, 1)


def written_out(network, images, labels):
    """The raw map from the derivative of the network, worked out by hand."""
    tensors = inner(network, "features", "sum")(images)
    features, active = (to_numpy(tensor).astype("float64") for tensor in tensors)
    kernel = network.get_layer("classifier").kernel.numpy()[:, labels].T
    normalization = network.get_layer("normalization")
    kernel = kernel / np.sqrt(1 + normalization.epsilon)
    slope = np.where(active > 0, kernel[:, None, None, :], 0) / np.prod(CELLS)
    slope = slope @ network.get_layer("hidden").kernel.numpy()[0, 0].T
    weights = slope.mean(axis=(1, 2))
    return np.maximum(np.einsum("bhwk,bk->bhw", features, weights), 0)


def test_equals_the_derivative_by_hand(network, images):
    labels = np.array([4, 0, 2])
    wanted = written_out(network, images, labels)
    assert wanted.max() > 1e-3
    raw = to_numpy(grad_cam(network, images, "features", labels, raw=True))
    assert raw.dtype == "float32" and raw.shape == (3, *CELLS)
    np.testing.assert_allclose(raw, wanted, atol=1e-6)
    found = to_numpy(grad_cam(network, images, "features", labels))
    np.testing.assert_allclose(found, scaled(upsampled(wanted, SIZE)), atol=1e-5)


def test_several_classes_of_an_image_and_the_most_probable_one(network, images):
    labels = np.array([[4, 1], [0, 0], [2, 3]])
    both = to_numpy(grad_cam(network, images, "features", labels, raw=True))
    assert both.shape == (3, 2, *CELLS)
    for column in (0, 1):
        wanted = written_out(network, images, labels[:, column])
        np.testing.assert_allclose(both[:, column], wanted, atol=1e-6)
    first = np.argmax(to_numpy(network(images)["logits"]), axis=-1)
    found = to_numpy(grad_cam(network, images, "features"))
    wanted = to_numpy(grad_cam(network, images, "features", first[:, None]))
    np.testing.assert_array_equal(found, wanted[:, 0])


def test_of_a_pooled_linear_classifier_is_its_class_activation_map():
    """Evidence is the class activation map divided by the number of cells."""
    inputs = keras.Input((3, 5, 7))
    features = layers.Identity(name="features")(inputs)
    classifier = layers.Dense(4)
    outputs = ClassActivationMap(classifier)(features)
    model = keras.Model(inputs, outputs["logits"])
    images = np.random.default_rng(2).standard_normal((2, 3, 5, 7)).astype("float32")
    found = to_numpy(grad_cam(model, images, "features", np.array([3, 1]), raw=True))
    cam = images @ classifier.kernel.numpy()[:, [3, 1]]
    cam = np.stack([cam[0, ..., 0], cam[1, ..., 1]])
    np.testing.assert_allclose(found, np.maximum(cam, 0) / 15, atol=1e-6)
    evidence = to_numpy(ClassActivationMap(classifier)(images)["evidence"])
    np.testing.assert_allclose(found[0], np.maximum(evidence[0, ..., 3], 0), atol=1e-6)


@SLOW_ON_JAX
def test_equals_torch():
    torch = pytest.importorskip("torch")
    inputs = keras.Input((9, 7, 2))
    x = layers.Conv2D(4, 3, activation="tanh", name="features")(inputs)
    x = layers.Conv2D(6, 3, activation="relu", name="next")(x)
    model = keras.Model(inputs, layers.Dense(3, name="top")(layers.Flatten()(x)))
    images = np.random.default_rng(3).standard_normal((2, 9, 7, 2)).astype("float32")
    found = to_numpy(grad_cam(model, images, "features", np.array([2, 0])))
    features = keras.Model(model.input, model.get_layer("features").output)(images)
    features = to_numpy(features).transpose(0, 3, 1, 2)
    features = torch.tensor(features, requires_grad=True)
    kernel, bias = (torch.tensor(w) for w in model.get_layer("next").get_weights())
    x = torch.nn.functional.conv2d(features, kernel.permute(3, 2, 0, 1), bias)
    x = torch.relu(x).permute(0, 2, 3, 1).flatten(1)
    kernel, bias = (torch.tensor(w) for w in model.get_layer("top").get_weights())
    logits = x @ kernel + bias
    (slope,) = torch.autograd.grad(logits[0, 2] + logits[1, 0], features)
    maps = torch.relu((slope.mean((2, 3), keepdim=True) * features).sum(1))
    maps = torch.nn.functional.interpolate(maps[:, None], (9, 7), mode="bilinear")
    wanted = scaled(maps[:, 0].detach().numpy())
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_constant_maps_are_zero(network, images):
    plain = np.full_like(images, 100)
    labels = np.array([[0, 3]] * 3)
    raw = to_numpy(grad_cam(network, plain, "features", labels, raw=True))
    assert raw.max() > 0
    found = to_numpy(grad_cam(network, plain, "features", labels))
    np.testing.assert_array_equal(found, 0.0)


def test_features_that_do_not_matter_give_zero():
    inputs = keras.Input((3, 5, 7))
    features = layers.Identity(name="features")(inputs)
    aside = layers.Identity(name="aside")(inputs)
    x = layers.GlobalAveragePooling2D()(features)
    logits = layers.Dense(4, kernel_initializer="zeros")(x)
    model = keras.Model(inputs, {"logits": logits, "aside": aside})
    example = np.ones((2, 3, 5, 7), "float32")
    for name in ("features", "aside"):
        np.testing.assert_array_equal(to_numpy(grad_cam(model, example, name)), 0.0)


def test_the_model_stays_as_it_is(network, images):
    before = network.get_weights()
    grad_cam(network, images, "features")
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@SLOW_ON_JAX
def test_half_precision_gives_finite_float32_maps():
    inputs = keras.Input((6, 10, 3))
    options = {"dtype": "mixed_bfloat16"}
    x = layers.Conv2D(4, 3, activation="relu", name="features", **options)(inputs)
    x = layers.GlobalAveragePooling2D(**options)(x)
    model = keras.Model(inputs, {"logits": layers.Dense(3, **options)(x)})
    found = grad_cam(model, np.ones((2, 6, 10, 3), "float32"), "features", raw=True)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert np.isfinite(to_numpy(found)).all()


def test_layers_in_float8_are_refused(network, images):
    model = keras.models.clone_model(network)
    model.get_layer("classifier").quantize("float8")
    with pytest.raises(ValueError, match="exact gradients.*float8, classifier; .*occl"):
        grad_cam(model, images)


def test_gradient_of_functions():
    x = ops.convert_to_tensor(np.array([1.0, -2.0], "float32"))
    found = gradient(lambda x: ops.sum(x**3), x)
    np.testing.assert_allclose(to_numpy(found), [3.0, 12.0])
    found = gradient(lambda x: ops.sum(ops.ones(3)), x)
    np.testing.assert_array_equal(to_numpy(found), [0.0, 0.0])


@pytest.mark.parametrize(
    "layer, labels, message",
    [
        ("featuers", None, "`layer`.*'featuers'.*nearest is 'features'"),
        ("classifier", None, r"\(batch, rows, columns, channels\).*'classifier'"),
        ("features", [0, 1], r"`labels`.*\(3,\).*shape \(2,\)"),
        ("features", [0.0, 1.0, 2.0], "integers.*float64"),
        ("features", [0, 1, 5], r"0\.\.4.*0\.\.5"),
        ("features", [0, -1, 4], r"0\.\.4.*-1\.\.4"),
    ],
)
def test_refuses_wrong_arguments(network, images, layer, labels, message):
    with pytest.raises(ValueError, match=f"Expected.*{message}"):
        grad_cam(network, images, layer, labels)
