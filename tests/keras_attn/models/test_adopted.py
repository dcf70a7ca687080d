"""Models of every kind of head, against themselves on prepared pixels."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import keras_attn
from keras_attn.graph.head import has_labels
from keras_attn.layers import ClassEmbedding
from keras_attn.layers._classifiers import kind_of
from keras_attn.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from tests.harness import to_numpy

SIZE = (12, 16)
NAMES = ("a", "b", "c")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3)).astype("float32")


def network(activation, units=3, size=SIZE, channels=3, dtype=None, **options):
    inputs = keras.Input((*size, channels), **options)
    x = layers.Rescaling(1 / 255, dtype=dtype)(inputs)
    x = layers.Conv2D(4, 3, name="conv", dtype=dtype)(x)
    x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
    x = layers.Dense(units, activation, name="scores", dtype=dtype)(x)
    return keras.Model(inputs, x, name="theirs")


def ensemble():
    inputs = keras.Input((*SIZE, 3))
    first, second = network("softmax"), network("softmax")
    first.name, second.name = "first", "second"
    return keras.Model(inputs, layers.Average()([first(inputs), second(inputs)]))


def nested():
    inner = keras.Sequential([network("softmax"), layers.Dropout(0.5)])
    return keras.Sequential([keras.Input((*SIZE, 3)), layers.RandomFlip(), inner])


def custom_layer():
    model = network(None)
    return keras.Model(model.input, layers.Softmax(name="end")(model.output))


def reloaded(model, tmp_path):
    model.save(tmp_path / "adopted.keras")
    return keras.saving.load_model(tmp_path / "adopted.keras")


def outputs(model, images=IMAGES):
    found = model(images, training=False)
    return {name: to_numpy(each).astype("float32") for name, each in found.items()}


def answer(model, images=IMAGES):
    return keras.tree.map_structure(to_numpy, model(images, training=False))


def softmax(logits):
    return to_numpy(keras.ops.softmax(np.asarray(logits, "float32")))


@pytest.mark.parametrize(
    "make",
    [
        lambda: network("softmax"),
        lambda: network(keras.ops.softmax),
        lambda: network("softmax", size=(None, None)),
        lambda: network("softmax", dtype="float16"),
        custom_layer,
        nested,
        ensemble,
    ],
)
def test_probabilities_are_the_model_s_own(make, tmp_path):
    theirs = make()
    model = keras_attn.adopt(theirs, NAMES, size=SIZE)
    model = reloaded(model, tmp_path)
    found, expected = outputs(model), answer(theirs)
    np.testing.assert_array_equal(found["probabilities"], expected.astype("float32"))
    np.testing.assert_allclose(softmax(found["logits"]), expected, atol=2e-3)
    assert keras_attn.spec_of(model).class_names == NAMES
    assert model.input.shape == (None, *SIZE, 3)


@pytest.mark.parametrize(
    "pixels, prepare",
    [
        ("0..255", lambda x: x),
        ("0..1", lambda x: x / 255),
        ("-1..1", lambda x: x / np.float32(127.5) - 1),
        (
            "imagenet",
            lambda x: (x / 255 - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD),
        ),
        ("caffe", lambda x: x[..., ::-1] - np.float32([103.939, 116.779, 123.68])),
        ("0.5/0.25", lambda x: (x / 255 - 0.5) / 0.25),
        ("10,20,30/1", lambda x: x - np.float32([10, 20, 30])),
        (
            (0.5, (0.25, 0.5, 1.0)),
            lambda x: (x / 255 - 0.5) / np.float32([0.25, 0.5, 1]),
        ),
    ],
)
def test_pixels_are_prepared_exactly(pixels, prepare):
    model = keras_attn.adopt(network(None), pixels=pixels)
    found = keras.Model(model.input, model.get_layer("pixels").output)(IMAGES)
    # XLA multiplies by a reciprocal.
    tolerance = 0 if keras.backend.backend() == "tensorflow" else 1e-6
    np.testing.assert_allclose(found, prepare(IMAGES), tolerance, tolerance)


def test_images_of_other_sizes_are_fitted_as_in_training():
    model = keras_attn.adopt(network(None))
    large = np.random.default_rng(1).integers(0, 256, (1, 40, 32, 3)).astype("uint8")
    layer = model.get_layer("pixels")
    fitted = keras_attn.ImagePreprocessing(keras_attn.spec_of(model)).fit_size(large)
    np.testing.assert_array_equal(layer(large), fitted)


def test_grey_models_see_what_pillow_makes_grey():
    theirs = network("softmax", channels=1, dtype=None)
    model = keras_attn.adopt(theirs)
    grey = [Image.fromarray(each.astype("uint8")).convert("L") for each in IMAGES]
    grey = np.stack([np.asarray(each) for each in grey])[..., None]
    expected = answer(theirs, grey.astype("float32"))
    np.testing.assert_array_equal(outputs(model)["probabilities"], expected)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_a_single_score_is_of_the_second_of_two_classes(activation, tmp_path):
    theirs = network(activation, 1)
    model = reloaded(keras_attn.adopt(theirs, ["cat"]), tmp_path)
    logits = keras.Model(theirs.input, theirs.layers[-2].output)
    dense = theirs.layers[-1]
    z = to_numpy(logits(IMAGES) @ dense.kernel + dense.bias)[:, 0]
    found = outputs(model)
    np.testing.assert_allclose(
        found["logits"][:, 1] - found["logits"][:, 0], z, atol=1e-6
    )
    np.testing.assert_allclose(
        softmax(found["logits"])[:, 1], 1 / (1 + np.exp(-z)), atol=1e-6
    )
    if activation:
        expected = answer(theirs)[:, 0]
        np.testing.assert_array_equal(found["probabilities"][:, 1], expected)
    assert keras_attn.spec_of(model).class_names == ("not cat", "cat")
    maps = keras_attn.explain.grad_cam(model, IMAGES[:1], "conv", [[0, 1]], raw=True)
    no, yes = to_numpy(maps)[0]
    # Evidence for one class is against the other one.
    assert np.ptp(no - yes) > 0 and (np.minimum(no, yes) == 0).all()


@pytest.mark.parametrize(
    "make, several",
    [
        (lambda: network("sigmoid"), False),
        (lambda: network("log_sigmoid"), False),
        (lambda: network(None), True),
    ],
)
def test_labels_keep_their_sigmoids(make, several, tmp_path):
    theirs = make()
    model = reloaded(keras_attn.adopt(theirs, several_labels=several), tmp_path)
    assert has_labels(model) and not has_labels(theirs)
    assert kind_of(model, None).endswith("sigmoid")
    found = outputs(model)
    expected = 1 / (1 + np.exp(-found["logits"]))
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-5)


def test_one_of_several_outputs_is_named_and_a_block_s_outputs_stay():
    theirs = network(None)
    both = {"far": theirs.output, "near": layers.Dense(2)(theirs.layers[-2].output)}
    both = keras.Model(theirs.input, both)
    model = keras_attn.adopt(both, output="near")
    np.testing.assert_array_equal(outputs(model)["logits"], answer(both)["near"])
    with pytest.raises(ValueError, match="one of far, near"):
        keras_attn.adopt(both)
    model = keras_attn.insert(network("softmax"), "conv", ClassEmbedding(3))
    assert set(keras_attn.adopt(model).output) == {
        "logits",
        "patch_logits",
        "probabilities",
    }


def test_the_given_model_stays_and_an_adopted_one_is_renamed():
    theirs = network("softmax")
    before = answer(theirs)
    model = keras_attn.adopt(theirs, NAMES, "-1..1")
    np.testing.assert_array_equal(answer(theirs), before)
    assert keras_attn.adopt(model) is model
    again = keras_attn.adopt(model, ["x", "y", "z"])
    assert keras_attn.spec_of(again).class_names == ("x", "y", "z")
    assert keras_attn.spec_of(model).class_names == NAMES
    np.testing.assert_array_equal(outputs(again)["logits"], outputs(model)["logits"])


class Subclassed(keras.Model):
    def call(self, images):
        return keras.ops.mean(images, axis=(1, 2))


def detector():
    x = keras.Input((*SIZE, 3))
    return keras.Model(x, {"boxes": layers.Reshape((-1, 4))(x), "kinds": x})


def of_text():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(10, 4)(tokens))
    return keras.Model(tokens, layers.Dense(2)(x))


@pytest.mark.parametrize(
    "make, options, message",
    [
        (detector, {}, "Expected a classifier, with an output .batch, classes."),
        (of_text, {}, "one input .batch, height, width, 3.*None, None"),
        (Subclassed, {}, "`occlusion` works on any model"),
        (lambda: network(None), {"class_names": "ab" * 500}, "a list of names"),
        (lambda: network(None), {"class_names": NAMES * 9}, "each of 3 .*27 names"),
        (lambda: network(None), {"pixels": "0..2"}, "-1..1, imagenet.*'0..2'"),
        (lambda: network(None), {"size": (9, 9)}, "fits the model.*9, 9"),
        (lambda: network("softmax", 1), {}, "single score to be a logit"),
    ],
)
@pytest.mark.filterwarnings("ignore:You are using a softmax")
def test_what_is_no_such_classifier_is_an_error(make, options, message):
    with pytest.raises(ValueError, match=message):
        keras_attn.adopt(make(), **options)
