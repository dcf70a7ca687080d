import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.layers.localize_patches import LocalizePatches
from keras_attn.models import anchornet
from keras_attn.models.localizer import as_localizer, branches_of
from tests.harness import change, randomize, to_numpy

TENSORFLOW = keras.backend.backend() == "tensorflow"


def classifier(activation="softmax", dropout=0.5, size=(37, 29), padding="same"):
    """A small padded network with two layers of as many channels at the end."""
    images = keras.Input((*size, 3))
    x = layers.Conv2D(4, 3, strides=2, padding=padding, name="stem")(images)
    x = layers.Conv2D(6, 3, padding=padding, activation="relu", name="early")(x)
    x = layers.Conv2D(6, 5, padding=padding, activation="relu", name="late")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(5, activation=activation, name="dense")(x)
    model = keras.Model(images, x, name="small")
    randomize(model)
    return model


def pictures(size=(37, 29), count=3):
    generator = np.random.default_rng(5)
    return generator.normal(size=(count, *size, 3)).astype("float32")


def outputs_of(model, images):
    return {name: to_numpy(value) for name, value in model(images).items()}


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_evidence_sums_to_the_logits_of_the_classifier():
    model = classifier(activation=None)
    outputs = outputs_of(as_localizer(model), pictures())
    logits = to_numpy(model(pictures()))
    assert logits.std() > 0.1
    np.testing.assert_allclose(outputs["logits"], logits, rtol=1e-4)
    np.testing.assert_allclose(outputs["logits_15"], logits, rtol=1e-4)
    total = outputs["evidence_15"].sum((1, 2)) + to_numpy(model.layers[-1].bias)
    np.testing.assert_allclose(total, logits, rtol=1e-4)


@pytest.mark.parametrize("last", ["inside", "layer"])
def test_probabilities_are_the_classifiers(last):
    model = classifier("softmax" if last == "inside" else None, dropout=0.0)
    if last == "layer":
        model = keras.Model(model.input, layers.Softmax()(model.output))
    outputs = outputs_of(as_localizer(model), pictures())
    wanted = to_numpy(model(pictures()))
    np.testing.assert_allclose(softmax(outputs["logits"]), wanted, atol=1e-5)


def test_evidence_of_a_cell_depends_on_its_box_alone():
    """Outside the box the image is free; a pixel at each of its corners matters."""
    model = as_localizer(classifier())
    (branch,) = branches_of(model)
    image = pictures(count=1)
    rows, columns = model.output["evidence_15"].shape[1:3]
    cell = np.array([rows // 2, columns // 2])
    top, left = branch["stride"] * cell + branch["offset"]
    bottom, right = top + branch["patch_size"], left + branch["patch_size"]
    assert top >= 0 and left >= 0 and bottom <= 37 and right <= 29

    def evidence(image):
        return outputs_of(model, image)["evidence_15"][0, *cell]

    other = pictures(count=2)[1:] * 9
    other[:, top:bottom, left:right] = image[:, top:bottom, left:right]
    np.testing.assert_array_equal(evidence(other), evidence(image))
    for row, column in [(top, left), (bottom - 1, right - 1)]:
        touched = image.copy()
        touched[0, row, column] += 50.0
        assert np.abs(evidence(touched) - evidence(image)).max() > 1e-6


def test_weights_are_shared():
    model = classifier()
    localizer = as_localizer(model)
    variables = {id(variable) for variable in model.trainable_variables}
    assert {id(variable) for variable in localizer.trainable_variables} == variables
    model.get_layer("dense").kernel.assign(np.zeros((6, 5)))
    assert not outputs_of(localizer, pictures())["evidence_15"].any()


def test_dropout_drops_channels_of_the_map_in_training():
    """With the identity for a kernel, evidence shows the channels themselves."""
    model = classifier(dropout=0.75)
    model.get_layer("dense").kernel.assign(np.eye(6, 5))
    localizer = as_localizer(model)
    images = np.abs(pictures(count=7))
    kept = outputs_of(localizer, images)["evidence_15"].mean((1, 2))
    trained = to_numpy(localizer(images, training=True)["evidence_15"])
    scales = trained.mean((1, 2)) / kept
    # One dice for each image and channel, and the mean stays what it is.
    np.testing.assert_allclose(scales[scales > 0], 4.0, rtol=1e-4)
    assert 0 < (scales > 0).mean() < 0.6


def test_an_earlier_layer_sees_smaller_windows():
    model = classifier()
    localizer = as_localizer(model, layer="early")
    assert branches_of(localizer) == [
        # Rows: 3x3 at stride 2 pads 37 by one on both sides, the next one by one cell.
        {"name": "7", "patch_size": 7, "stride": 2, "offset": -3}
    ]
    features = keras.Model(model.input, model.get_layer("early").output)
    pooled = to_numpy(features(pictures())).mean((1, 2))
    kernel, bias = (to_numpy(w) for w in model.get_layer("dense").weights)
    outputs = outputs_of(localizer, pictures())
    np.testing.assert_allclose(outputs["logits"], pooled @ kernel + bias, rtol=1e-4)


@pytest.mark.parametrize(
    "patch_size, name, wanted",
    [
        (None, "15", (15, -7)),
        (9, "9", (9, -4)),
        # Half a pixel towards the top left.
        (8, "8", (8, -4)),
        ((9, 21), "9x21", ((9, 21), (-4, -10))),
    ],
)
def test_geometry_survives_saving(tmp_path, patch_size, name, wanted):
    localizer = as_localizer(classifier(), patch_size=patch_size)
    localizer.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for model in (localizer, loaded):
        (branch,) = branches_of(model)
        assert branch == {
            "name": name,
            "patch_size": wanted[0],
            "stride": 2,
            "offset": wanted[1],
        }
    before, after = outputs_of(localizer, pictures()), outputs_of(loaded, pictures())
    assert sorted(before) == [f"evidence_{name}", "logits", f"logits_{name}"]
    for key, value in before.items():
        np.testing.assert_allclose(after[key], value, atol=1e-6)


@pytest.mark.skipif(not TENSORFLOW, reason="the SavedModel is written by TensorFlow")
def test_exports(tmp_path):
    import tensorflow as tf

    localizer = as_localizer(classifier())
    localizer.export(tmp_path, verbose=False)
    served = tf.saved_model.load(tmp_path)
    for batch in (1, 4):
        images = pictures(count=batch)
        wanted = outputs_of(localizer, images)
        for key, value in served.serve(images).items():
            np.testing.assert_allclose(value, wanted[key], atol=1e-5)


def test_patch_tools_work_on_it():
    localizer = as_localizer(classifier(), patch_size=9)
    outputs = localizer(pictures())
    patches = LocalizePatches(branches_of(localizer), max_patches=2)(outputs)
    evidence = to_numpy(outputs["evidence_9"])
    for number, label in enumerate(to_numpy(outputs["logits"]).argmax(-1)):
        best = evidence[number, ..., label]
        i, j = np.unravel_index(best.argmax(), best.shape)
        y, x = 2 * i - 4, 2 * j - 4
        box = to_numpy(patches["boxes"])[number, 0]
        np.testing.assert_array_equal(box, [y, x, y + 9, x + 9])


def test_sequential_with_a_nested_backbone():
    images = keras.Input((None, None, 3))
    backbone = keras.Model(images, layers.Conv2D(6, 3, strides=2)(images))
    model = keras.Sequential(
        [
            keras.Input((17, 19, 3)),
            layers.Rescaling(2.0),
            backbone,
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    localizer = as_localizer(model)
    assert branches_of(localizer) == [
        {"name": "3", "patch_size": 3, "stride": 2, "offset": 0}
    ]
    found = outputs_of(localizer, pictures((17, 19)))["logits"]
    np.testing.assert_allclose(found, to_numpy(model(pictures((17, 19)))), atol=1e-5)


@pytest.mark.skipif(not TENSORFLOW, reason="the graph is the same")
def test_mobilenet_of_keras_applications():
    model = keras.applications.MobileNetV2(
        (128, 160, 3), alpha=0.35, weights=None, classes=7
    )
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.beta.assign(generator.normal(size=layer.beta.shape))
    with pytest.raises(ValueError, match="receptive field .*128 x 160.*491 x 491"):
        as_localizer(model)
    localizer = as_localizer(model, patch_size=64)
    assert branches_of(localizer) == [
        # Windows of 491 from -214 have their centres at 31.5 + 32 i.
        {"name": "64", "patch_size": 64, "stride": 32, "offset": -1}
    ]
    outputs = outputs_of(localizer, pictures((128, 160)))
    assert outputs["evidence_64"].shape == (3, 4, 5, 7)
    probabilities = to_numpy(model(pictures((128, 160))))
    assert probabilities.std(1).min() > 0.05
    np.testing.assert_allclose(softmax(outputs["logits"]), probabilities, atol=1e-5)


# ---- branches_of -----------------------------------------------------------------


@pytest.mark.skipif(not TENSORFLOW, reason="the graph is the same, slow to build")
def test_branches_of_anchornet():
    """AnchorNet paper, section 3.2: cell (i, j) sees rows 8i to 8i + theta - 1."""
    model = anchornet((128, 160, 3), num_classes=3, branches=(111, 63, 95))
    assert branches_of(model) == [
        {"name": str(size), "patch_size": size, "stride": 8, "offset": 0}
        for size in (63, 95, 111)
    ]


def test_branches_of_other_models_are_refused():
    with pytest.raises(ValueError, match="outputs named 'evidence_"):
        branches_of(classifier())
    sequential = keras.Sequential([keras.Input((4, 4, 3)), layers.Dense(2)])
    with pytest.raises(ValueError, match="outputs named 'evidence_"):
        branches_of(sequential)


def test_padded_networks_of_open_size_need_the_size_of_the_image():
    model = classifier(size=(None, None))
    with pytest.raises(ValueError, match="'stem'.*'same' padding with stride 2"):
        as_localizer(model)
    model = as_localizer(classifier(size=(None, None), padding="valid"))
    assert branches_of(model)[0]["patch_size"] == 15


# ---- errors ----------------------------------------------------------------------


def headed(head):
    images = keras.Input((12, 14, 3))
    x = layers.Conv2D(6, 3, name="features")(images)
    for layer in head:
        x = layer(x)
    return keras.Model(images, x, name="headed")


@pytest.mark.parametrize(
    "head, culprit",
    [
        # VGG
        ([layers.Flatten(name="flat"), layers.Dense(5)], "'flat' .Flatten"),
        ([layers.GlobalMaxPooling2D(), layers.Dense(5)], "GlobalMaxPooling2D"),
        (
            [layers.GlobalAveragePooling2D(), layers.Dense(5), layers.Dense(5)],
            "Dense",
        ),
        # MobileNetV3
        (
            [layers.GlobalAveragePooling2D(keepdims=True), layers.Conv2D(5, 1)],
            "Conv2D",
        ),
        ([layers.Conv2D(5, 1), layers.GlobalAveragePooling2D()], "GlobalAverage"),
    ],
)
def test_refuses_other_heads_and_names_the_layer(head, culprit):
    with pytest.raises(ValueError, match=f"ends in GlobalAverage.*'headed'.*{culprit}"):
        as_localizer(headed(head))


def test_refuses_wrong_arguments():
    model = classifier()
    for options, message in [
        ({"layer": "lat"}, "layer='lat'. Nearest: late"),
        ({"layer": "stem"}, "6 channels.*layer='stem'"),
        ({"layer": "pool"}, "6 channels.*layer='pool'"),
        ({"patch_size": 30}, "`patch_size` no larger than the image, 37 x 29"),
        ({"patch_size": 0}, "`patch_size` to be a positive integer"),
    ]:
        with pytest.raises(ValueError, match=message):
            as_localizer(model, **options)
    with pytest.raises(ValueError, match="built functional or sequential"):
        as_localizer(layers.Dense(3))
    two = keras.Model(model.input, [model.output, model.layers[1].output])
    with pytest.raises(ValueError, match="one output, or one named 'logits'"):
        as_localizer(two)
    named = keras.Model(model.input, {"logits": model.output, "x": model.output})
    assert "evidence_15" in as_localizer(named).output


# ---- wrapped and changed classifiers ---------------------------------------------


def pooled_inside(top):
    """A backbone that pools, and a classifier on top."""
    inside = keras.Input((37, 29, 3))
    x = layers.Conv2D(6, 5, activation="relu", name="features")(inside)
    pooled = layers.GlobalAveragePooling2D()(x)
    backbone = keras.Model(inside, pooled, name="backbone")
    inputs = keras.Input((37, 29, 3))
    model = keras.Model(inputs, top(backbone(inputs)))
    randomize(model)
    return model


def top_inside(activation):
    return keras.Sequential(
        [keras.Input((6,)), layers.Dropout(0.5), layers.Dense(5, activation)]
    )


def behind(first, whole):
    inputs = keras.Input(whole.input.shape[1:])
    return keras.Model(inputs, whole(first(inputs)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: pooled_inside(layers.Dense(5)),
        lambda: pooled_inside(top_inside(None)),
        lambda: behind(layers.Rescaling(0.5), classifier(None)),
        lambda: behind(
            layers.Rescaling(2.0), behind(layers.Identity(), classifier(None))
        ),
    ],
    ids=["pooling inside", "both inside", "rescaled", "twice"],
)
def test_enters_models_inside_the_classifier(make, tmp_path):
    model = make()
    wanted = to_numpy(model(pictures()))
    localizer = as_localizer(model, patch_size=8)
    outputs = outputs_of(localizer, pictures())
    np.testing.assert_allclose(outputs["logits"], wanted, rtol=1e-4, atol=1e-5)
    kept = {id(each) for each in model.trainable_variables}
    assert {id(each) for each in localizer.trainable_variables} == kept
    assert branches_of(localizer)[0]["patch_size"] == 8
    localizer.save(tmp_path / "localizer.keras")
    again = keras.saving.load_model(tmp_path / "localizer.keras")
    for name, value in outputs_of(again, pictures()).items():
        np.testing.assert_allclose(value, outputs[name], atol=1e-5)


def changed(kind):
    if kind == "spectral":
        images = keras.Input((37, 29, 3))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 5)(images))
        dense = layers.SpectralNormalization(layers.Dense(5, "softmax"))
        model = keras.Model(images, dense(x))
        if dense.input_spec.shape:
            pytest.skip("this Keras lets the wrapper take one shape only")
        randomize(model)
        return model
    model = classifier("softmax")
    change(model.get_layer("dense"), kind)
    return model


@pytest.mark.parametrize("kind", ["int8", "int4", "float8", "lora", "spectral"])
def test_the_dense_layer_is_called_as_it_is(kind, tmp_path):
    model = changed(kind)
    wanted = to_numpy(model(pictures()))
    localizer = as_localizer(model, patch_size=8)
    outputs = outputs_of(localizer, pictures())
    np.testing.assert_allclose(softmax(outputs["logits"]), wanted, atol=1e-5)
    # Cells are rounded one by one; in float8 to four bits.
    rounding = (0.06 if kind == "float8" else 0.02) * np.ptp(outputs["logits"])
    total = outputs["evidence_8"].sum((1, 2))
    difference = total - total.mean(1, keepdims=True)
    logits = outputs["logits"] - outputs["logits"].mean(1, keepdims=True)
    bias = getattr(model.layers[-1], "layer", model.layers[-1]).bias
    bias = to_numpy(bias) - to_numpy(bias).mean()
    np.testing.assert_allclose(difference + bias, logits, atol=rounding)
    localizer.save(tmp_path / "localizer.keras")
    again = keras.saving.load_model(tmp_path / "localizer.keras")
    found = outputs_of(again, pictures())["logits"]
    np.testing.assert_allclose(found, outputs["logits"], atol=1e-4)


def test_of_several_inputs_one_is_the_image():
    model = classifier(None)
    site = keras.Input((4,))
    other = {"logits": model.output, "site": layers.Dense(2)(site)}
    localizer = as_localizer(keras.Model([site, model.input], other), patch_size=8)
    wanted = to_numpy(model(pictures()))
    outputs = outputs_of(localizer, pictures())
    np.testing.assert_allclose(outputs["logits"], wanted, atol=1e-5)

    image = keras.Input((12, 14, 3), name="image")
    x = layers.Conv2D(4, 3)(image)
    x = layers.Multiply()([x, layers.Reshape((1, 1, 4))(site)])
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ValueError, match="map is of the inputs"):
        as_localizer(keras.Model([image, site], x))


def test_channels_first_is_refused_with_the_reason():
    image = keras.Input((3, 12, 14))
    pool = layers.GlobalAveragePooling2D(data_format="channels_first")
    with pytest.raises(ValueError, match="channels_last.*GlobalAveragePooling2D"):
        as_localizer(keras.Model(image, layers.Dense(3)(pool(image))))
