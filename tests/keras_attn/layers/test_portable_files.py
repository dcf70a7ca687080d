"""Every layer in a LiteRT and in an ONNX file."""

import keras
import numpy as np
import pytest

from keras_attn import ExitThresholds
from keras_attn import layers as every_layer
from keras_attn.models import as_localizer, early_exit_classifier, patch_classifier
from tests.harness import simplified_once, to_numpy, traced_once

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="written by TensorFlow"
)

SIZE, CHANNELS = (8, 6), 4
REFUSED = {
    "MPNCOVPooling": "decomposes matrices",
    "PerturbedArgmax": "draws random numbers",
}
# Arguments of layers that take a map; all other layers that do need none.
ARGUMENTS = {
    "AttentionMaskedResidual": [0.5],
    "ClassActivationMap": [keras.layers.Dense(3)],
    "ClassEmbedding": [3],
    "ClassEvidence": [3],
    "CompactBilinearPooling": [24],
    "DeformableConv2D": [5],
    # Neither a square nor a power of two.
    "KernelPooling": [3, 24],
    "PatchEmbedding": [4, 2],
    "PatchLogits": [3],
    "PositionEmbedding": [SIZE],
    "SqueezeExcitation": [2],
    "ValidBottleneck": [4, 6, 3, 1],
    "VolumetricTransformer": [2, 3],
}
TOKENS = {
    "ClassPrompts": [2],
    "DinoHead": [5, 7, 3],
    "SelfAttention": [2],
    "TransformerBlock": [2],
}


def classifier(size):
    pixels = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(pixels)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(3)(x))


def network():
    """A model that returns what every layer returns, by its name."""
    images = keras.Input((32, 32, 3), name="images")
    features = keras.Input((*SIZE, CHANNELS), name="features")
    tokens = keras.layers.Reshape((-1, CHANNELS))(features)
    logits = keras.layers.GlobalAveragePooling2D()(features)
    localizer = as_localizer(classifier(32), patch_size=12)
    found = patch_classifier(localizer, classifier(None), 2)(images)
    outputs = {
        "ClassifyPatches": found,
        "EarlyExit": early_exit_classifier(
            localizer, classifier(16), classifier(12), 1, 16, policy=ExitThresholds(0.4)
        )(images),
        "CropPatches": every_layer.CropPatches(12)([images, found["boxes"]]),
        "BranchDecision": every_layer.BranchDecision()([logits, logits[:, ::-1]]),
    }
    scores = every_layer.SelfAttention(2)(tokens, output="class_attention")
    rows = keras.layers.Cropping2D(((0, 7), (0, 0)))(features)
    outputs["AttentionMap"] = every_layer.AttentionMap("mean")(
        [scores[:, :, : 1 + SIZE[1]], rows]
    )
    mask = keras.ops.sigmoid(features)
    classes = {name for name in every_layer.__all__ if name[0].isupper()}
    for name in classes - set(outputs) - set(REFUSED):
        if name == "LocalizePatches":  # Inside of `ClassifyPatches`.
            continue
        arguments = {**ARGUMENTS, **TOKENS}.get(name, [])
        given = {
            "AttentionMaskedResidual": [features, features, mask],
            "IdentityStart": [features, mask],
            "Whitening": logits,
            **dict.fromkeys(TOKENS, tokens),
        }.get(name, features)
        outputs[name] = getattr(every_layer, name)(*arguments)(given)
    flat = {}
    for name, output in outputs.items():
        for key, value in output.items() if isinstance(output, dict) else [(0, output)]:
            # LiteRT has no output that is an input, and sorts them by name.
            flat[f"{name}_{key}"] = value
    return keras.Model([images, features], flat)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = network()
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(weight + 0.1 * rng.random(weight.shape))
    return model


def examples(batch):
    rng = np.random.default_rng(1)
    shapes = {"images": (32, 32, 3), "features": (*SIZE, CHANNELS)}
    return {
        name: rng.random((batch, *shape), "float32") for name, shape in shapes.items()
    }


def run_onnx(path, inputs):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def run_litert(path, inputs):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(path)
    for entry in interpreter.get_input_details():
        (given,) = (each for name, each in inputs.items() if name in entry["name"])
        interpreter.resize_tensor_input(entry["index"], given.shape)
    return interpreter.get_signature_runner()(**inputs)


def needs_format(format):
    if format == "litert" and keras.version().startswith(("3.10.", "3.11.", "3.12.")):
        pytest.skip("Keras writes LiteRT from 3.13 on")


@pytest.mark.parametrize(
    "format, ending, run",
    [("onnx", "onnx", run_onnx), ("litert", "tflite", run_litert)],
)
def test_files_answer_as_keras_does(model, tmp_path, format, ending, run):
    needs_format(format)
    path = str(tmp_path / f"model.{ending}")
    model(list(examples(1).values()))
    with traced_once(), simplified_once():
        model.export(path, format=format, verbose=False)
    for batch in 1, 3:
        inputs = examples(batch)
        wanted = model(list(inputs.values()))
        received = run(path, inputs)
        assert set(received) == set(wanted)
        for name, value in wanted.items():
            # The root of numbers near 0 enlarges rounding.
            atol = 1e-3 if name.startswith("KernelPooling") else 1e-4
            np.testing.assert_allclose(
                received[name], to_numpy(value), 1e-4, atol, err_msg=name
            )


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_such_file_can_hold_is_refused(tmp_path, name):
    features = keras.Input((*SIZE, CHANNELS))
    model = keras.Model(features, getattr(every_layer, name)()(features))
    model(np.ones((1, *SIZE, CHANNELS)))
    for format, ending in ("onnx", "onnx"), ("litert", "tflite"):
        needs_format(format)
        path = tmp_path / f"model.{ending}"
        with pytest.raises(ValueError, match=f"cannot express {name}.*{REFUSED[name]}"):
            model.export(path, format=format, verbose=False)
        assert not path.exists()
