"""One tiny model of each method, exported once in all formats."""

import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_attn.explain import grad_cam
from keras_attn.layers import MPNCOVPooling, VolumetricTransformer
from keras_attn.models.patch_classifier import patch_classifier
from keras_attn.models.vit import attention_map_model, vit
from keras_attn.ops import heat_map_box
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.adoption import ModelSource
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.outputs import outputs_of, softmax
from keras_attn.training.runs.run import Run
from keras_attn.training.serving.export import export_formats
from keras_attn.training.trained import Trained, load_trained
from tests.harness import simplified_once
from tests.training import tiny_models as tiny
from tests.training.explain.test_localize import colour_classifier

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels need TensorFlow"
)

SIZE = (16, 24)
SPEC = ImageSpec(*SIZE, class_names=tiny.COLOURS)
# LiteRT of those with operations that the others do not have; it is slow to convert.
FORMATS = {
    "class_embedding": ("saved_model", "onnx"),
    "anchornet": ("saved_model", "onnx", "litert"),
    "warped": ("saved_model", "onnx", "litert"),
    "masked": ("saved_model", "onnx"),
    "dino": ("saved_model", "onnx"),
    "labels": ("saved_model",),
}


def images_and_pixels():
    images = keras.Input((*SIZE, 3), name="images")
    return images, ImagePreprocessing(SPEC, name="preprocessing")(images)


def transformer():
    images, pixels = images_and_pixels()
    model = vit((8, 2, 2), 4, input_tensor=pixels)
    assert model.inputs[0] is images
    return model


def warped():
    images, x = images_and_pixels()
    # Eight rows: an integer clip to 0..6 inside.
    x = layers.Conv2D(8, 2, 2, activation="relu")(x)
    layer = VolumetricTransformer(groups=2, window=3, name="deformation")
    warped = layer(x)
    pooled = layers.GlobalAveragePooling2D()(warped["features"])
    outputs = {"logits": layers.Dense(3)(pooled), "fields": warped["fields"]}
    return keras.Model(images, outputs)


def masked():
    """From images of any size, as attention-masked residuals are served."""
    images = keras.Input((None, None, 3), name="images")
    fitted = layers.Resizing(*SIZE, antialias=True, dtype="uint8", name="fitted")
    images_of_size = fitted(images, training=False)
    attention_map = attention_map_model(transformer(), "mean", "minmax")(images_of_size)
    pixels = ImagePreprocessing(SPEC, name="preprocessing")(images_of_size)
    x = layers.Conv2D(5, 4, 4, activation="sigmoid")(pixels)
    mask = keras.ops.multiply(x, attention_map)
    outputs = {
        "logits": layers.Dense(3)(layers.GlobalAveragePooling2D()(mask)),
        "mask_1": x,
        "mask_2": mask,
        "attention_map": attention_map,
    }
    return keras.Model(images, outputs)


def labels_of_others():
    """A model of others whose three labels do not exclude each other."""
    images = keras.Input((*SIZE, 3))
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(images))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(3, "sigmoid")(x))


def dino_run(folder):
    recipe = Recipe(name="tiny_dino", method="dino", patch_size=4, image_size=16)
    run = Run.create(folder, recipe)
    for which in ("best", "last"):
        transformer().save(run.checkpoints / f"{which}.keras")
    return run.workdir


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """For each method an `Exported`."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("exported")
    paths = {
        "class_embedding": tiny.save_colour_model(folder),
        "anchornet": tiny.localizer_run(folder / "run").workdir,
        "dino": dino_run(folder / "dino"),
    }
    for name, make in (("warped", warped), ("masked", masked)):
        paths[name] = folder / f"{name}.keras"
        make().save(paths[name])
    labels_of_others().save(folder / "labels.keras")
    paths["labels"] = ModelSource(
        folder / "labels.keras", tiny.COLOURS, thresholds=(0.0, 1.0, 0.5)
    )
    with simplified_once():
        return {
            name: Exported(
                path,
                load_trained(path, classifies=False),
                export_formats(
                    path, name, output=folder / "saved", formats=FORMATS[name]
                ),
            )
            for name, path in paths.items()
        }


@dataclasses.dataclass(eq=False)
class Exported:
    path: pathlib.Path
    trained: Trained
    folders: dict

    @functools.cached_property
    def images(self):
        spec = self.trained.spec
        size = (3, spec.height, spec.width, 3)
        return np.random.default_rng(0).integers(0, 256, size, "uint8")

    @functools.cached_property
    def expected(self):
        """Answers of the Keras model."""
        return outputs_of(self.trained.model, self.images)

    @functools.cached_property
    def loaded(self):
        return tf.saved_model.load(str(self.folders["saved_model"]))

    @functools.cache  # noqa: B019
    def answer(self, signature, labels=None):
        if signature == "image":
            given = {"images": tf.cast(self.images, tf.float32)}
        else:
            files = [tf.io.encode_png(each) for each in self.images]
            given = {"image_bytes": tf.stack(files)}
        if labels is not None:
            given["label"] = tf.constant(labels, tf.int32)
        received = self.loaded.signatures[signature](**given)
        return {key: value.numpy() for key, value in received.items()}

    def facts(self, format="saved_model"):
        folder = self.folders[format]
        folder = folder / "assets.extra" if format == "saved_model" else folder
        return json.loads((folder / "image_spec.json").read_text())


def answered(exported, name, signature):
    """The model, what it answers in Keras, and what the signature answers."""
    one = exported[name]
    return one.trained, one.expected, one.answer(signature)


DECISION = {"logits", "probabilities", "class"}
PATCHES = {"boxes", "scores", "valid", "branch"}
LIGHT = {
    "class_embedding": DECISION,
    "anchornet": DECISION | PATCHES,
    "warped": DECISION,
    "masked": DECISION,
    "dino": {"embedding"},
    "labels": DECISION | {"labels"},
}
BRANCHES = {f"{kind}_{size}" for kind in ("evidence", "attention") for size in (16, 24)}
BRANCHES |= {"logits_16", "logits_24"}
SHOWN = {
    "class_embedding": {"patch_logits", "class_maps"},
    "anchornet": BRANCHES,
    "warped": {"fields"},
    "masked": {"attention_map", "mask_1", "mask_2"},
    "dino": {"attention_map", "attention_heads"},
    "labels": set(),
}


@pytest.mark.parametrize("name", LIGHT)
def test_each_method_has_its_signatures(exported, name):
    trained, expected, received = answered(exported, name, "image")
    assert set(received) == LIGHT[name]
    _, _, seen = answered(exported, name, "explain")
    grad_cam = set() if name == "dino" else {"map", "box"}
    assert set(seen) == SHOWN[name] | grad_cam | (LIGHT[name] - {"embedding"})
    for key, value in received.items():
        if key in expected:
            np.testing.assert_allclose(value, expected[key], atol=1e-4, err_msg=key)
        if key in seen:
            np.testing.assert_array_equal(value.shape, seen[key].shape)
    if "class" in received:
        labels = expected["logits"].argmax(-1)
        names = np.array(trained.class_names)[labels]
        assert [each.decode() for each in received["class"]] == names.tolist()
    if "labels" in received:
        blue = received["probabilities"][:, 2] >= 0.5
        wanted = ["red;blue" if each else "red" for each in blue]
        assert [each.decode() for each in received["labels"]] == wanted


def test_maps_are_what_keras_computes(exported):
    _, expected, seen = answered(exported, "class_embedding", "explain")
    maps = softmax(expected["patch_logits"])
    np.testing.assert_allclose(seen["class_maps"], maps, atol=1e-5)
    _, expected, seen = answered(exported, "warped", "explain")
    assert np.abs(expected["fields"]).max() > 0
    np.testing.assert_allclose(seen["fields"], expected["fields"], atol=1e-4)
    _, expected, seen = answered(exported, "masked", "explain")
    mean = expected["mask_2"].mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(seen["mask_2"], mean, atol=1e-4)
    np.testing.assert_allclose(
        seen["attention_map"], expected["attention_map"], atol=1e-4
    )
    _, expected, seen = answered(exported, "anchornet", "explain")
    for name in BRANCHES:
        np.testing.assert_allclose(seen[name], expected[name], atol=1e-4)


def test_a_transformer_shows_what_its_class_token_attends_to(exported):
    trained, _, seen = answered(exported, "dino", "explain")
    heads = seen["attention_heads"]
    assert heads.shape == (3, 4, 6, 2) and (heads > 0).all()
    # The rest is the attention to the class token itself.
    assert (heads.sum(axis=(1, 2)) < 1).all()
    mean = heads.mean(axis=-1, keepdims=True)
    low, high = mean.min(axis=(1, 2, 3)), mean.max(axis=(1, 2, 3))
    expected = (mean.T - low) / (high - low)
    np.testing.assert_allclose(seen["attention_map"], expected.T, atol=1e-3)
    assert trained.class_names == ()


@pytest.mark.parametrize("name", ["class_embedding", "anchornet", "warped"])
def test_grad_cam_is_in_the_graph(exported, name):
    trained, expected, seen = answered(exported, name, "explain")
    images = exported[name].images.astype("float32")
    with warnings.catch_warnings(action="ignore"):  # A map may be constant.
        wanted = keras.ops.convert_to_numpy(grad_cam(trained.model, images))
        other = (expected["logits"].argmax(-1) + 1) % 3
        of_other = keras.ops.convert_to_numpy(
            grad_cam(trained.model, images, labels=other)
        )
    np.testing.assert_allclose(seen["map"], wanted, atol=1e-3)
    found = exported[name].answer("explain_class", (-1, other[1], other[2]))
    assert set(found) == {"map", "box", "class", "score"}
    np.testing.assert_allclose(found["map"][0], wanted[0], atol=1e-3)
    if name != "anchornet":  # Which explains the branch that decides on its own class.
        np.testing.assert_allclose(found["map"][1:], of_other[1:], atol=1e-3)
        scores = expected["logits"][1, other[1]]
        np.testing.assert_allclose(found["score"][1], scores, atol=1e-4)
    names = np.array(trained.class_names)[other[1:]]
    assert [each.decode() for each in found["class"][1:]] == names.tolist()
    boxes = heat_map_box(found["map"])
    np.testing.assert_array_equal(found["box"], boxes)


@pytest.mark.parametrize("name", LIGHT)
def test_descriptors_have_length_one(exported, name):
    _, expected, received = answered(exported, name, "embed")
    descriptor = received["descriptor"]
    np.testing.assert_allclose(np.linalg.norm(descriptor, axis=1), 1, atol=1e-5)
    if name == "dino":
        embedding = expected["embedding"]
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        np.testing.assert_allclose(descriptor, embedding / length, atol=1e-5)


# ---- as TensorFlow Serving loads them ----------------------------------------------

SERVE = """
import sys
import numpy as np
import tensorflow as tf

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "keras_attn"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
answers = {}
for name, folder in zip(sys.argv[2::2], sys.argv[3::2]):
    # TensorFlow rewrites the graphs of two models: it takes longer than all the rest.
    config = tf.compat.v1.ConfigProto()
    rewrites = config.graph_options.rewrite_options
    rewrites.disable_meta_optimizer = name not in ("class_embedding", "dino")
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], folder)
        given = np.load(sys.argv[1], allow_pickle=False)
        for key, signature in graph.signature_def.items():
            if key.startswith("__"):
                continue
            fetched = {k: each.name for k, each in signature.outputs.items()}
            for batch in 1, 3, 7:
                fed = {}
                for k, each in signature.inputs.items():
                    rows = given[f"{name} {k}"]
                    fed[each.name] = np.resize(rows, (batch, *rows.shape[1:]))
                for k, value in session.run(fetched, fed).items():
                    answers[f"{name} {key} {batch} {k}"] = np.asarray(value)
assert "keras_attn" not in sys.modules
texts = {k: each.astype("S") for k, each in answers.items() if each.dtype == object}
np.savez(sys.argv[1], **{**answers, **texts})
"""


def test_a_graph_session_without_keras_answers_at_every_batch_size(exported, tmp_path):
    file, folders, given = tmp_path / "given.npz", [], {}
    for name, one in exported.items():
        folders += [name, one.folders["saved_model"]]
        given[f"{name} images"] = one.images.astype("float32")
        given[f"{name} image_bytes"] = np.array(
            [tf.io.encode_png(each).numpy() for each in one.images]
        )
        given[f"{name} label"] = np.array([-1], "int32")
    np.savez(file, **given)
    command = [sys.executable, "-c", SERVE, file, *folders]
    subprocess.run(list(map(str, command)), check=True)
    found = np.load(file)
    for name, one in exported.items():
        for key in one.loaded.signatures:
            labels = (-1,) * 3 if key == "explain_class" else None
            for output, wanted in one.answer(key, labels).items():
                if output == "box":  # Follows from the map.
                    continue
                for batch in 1, 3, 7:
                    rows = np.resize(wanted, (batch, *wanted.shape[1:]))
                    received = found[f"{name} {key} {batch} {output}"]
                    if rows.dtype == object:
                        assert received.tolist() == rows.tolist()
                        continue
                    where = f"{name} {key} {batch} {output}"
                    np.testing.assert_allclose(received, rows, atol=1e-3, err_msg=where)


# ---- other formats -----------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in FORMATS if "onnx" in FORMATS[n]])
def test_onnx_runtime_answers_alike(exported, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, _, expected = answered(exported, name, "image")
    file = exported[name].folders["onnx"] / "model.onnx"
    session = onnxruntime.InferenceSession(file)
    images = exported[name].images.astype("float32")
    names = [each.name for each in session.get_outputs()]
    assert set(names) == set(expected) - {"class"}
    received = dict(zip(names, session.run(None, {"images": images}), strict=True))
    for key, value in received.items():
        np.testing.assert_allclose(value, expected[key], atol=1e-4, err_msg=key)
    told = session.get_modelmeta().custom_metadata_map
    classes = () if name == "dino" else tiny.COLOURS
    assert json.loads(told["class_names"]) == list(classes)
    known = exported[name].facts("onnx")["image_spec"]
    assert known["height"] == images.shape[1]
    config = (file.parent.parent / "config.pbtxt").read_text()
    size = ", ".join(map(str, images.shape[1:]))
    assert f'input {{ name: "images" data_type: TYPE_FP32 dims: [{size}] }}' in config
    assert all(f'output {{ name: "{key}" ' in config for key in names)


@pytest.mark.parametrize("name", ["anchornet", "warped"])
def test_litert_answers_alike(exported, name):
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    _, _, expected = answered(exported, name, "image")
    file = exported[name].folders["litert"] / "model.tflite"
    interpreter = interpreters.Interpreter(str(file))
    run = interpreter.get_signature_runner()
    images = exported[name].images.astype("float32")
    for index in range(2):
        received = run(images=images[index : index + 1])
        assert set(received) == set(expected) - {"class"}
        for key, value in received.items():
            wanted = expected[key][index : index + 1]
            np.testing.assert_allclose(value, wanted, atol=1e-4, err_msg=key)


def test_patches_of_every_image_are_in_portable_files(tmp_path):
    """`check_outputs` compares them with the model before it writes them."""
    model = patch_classifier(tiny.localizer(), colour_classifier(), 1)
    model.save(tmp_path / "patches.keras")
    output = tmp_path / "saved"
    with simplified_once():
        export_formats(
            tmp_path / "patches.keras", output=output, formats=("onnx", "litert")
        )
    assert len([path for path in output.rglob("model.*")]) == 2


@pytest.mark.parametrize(
    "format, what, pool",
    [
        ("litert", "LiteRT cannot express model: .* Erfinv", keras.ops.erfinv),
        ("onnx", "ONNX cannot express MPNCOVPooling", MPNCOVPooling()),
    ],
)
def test_what_a_format_cannot_express_is_named(tmp_path, format, what, pool):
    images, pixels = images_and_pixels()
    x = layers.Flatten()(pool(layers.MaxPooling2D(8)(pixels)))
    keras.Model(images, {"logits": layers.Dense(3)(x)}).save(tmp_path / "model.keras")
    output = tmp_path / "saved"
    with pytest.raises(ValueError, match=what) as caught:
        export_formats(tmp_path / "model.keras", output=output, formats=(format,))
    assert "\n" not in str(caught.value)
    assert not output.exists()
    with pytest.raises(ValueError, match="formats among .*'tflite'"):
        export_formats(tmp_path, output=output, formats=("tflite",))


# ---- warm-up -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["anchornet", "dino"])
def test_recorded_requests_can_be_answered(exported, name):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    folder = exported[name].folders["saved_model"]
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    assert file.stat().st_size < 2000
    loaded = exported[name].loaded
    asked = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        request = logs.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == name
        asked.append(request.model_spec.signature_name)
        given = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        given = {key: tf.constant(value) for key, value in given.items()}
        answer = loaded.signatures[asked[-1]](**given)
        assert all(len(value) == 1 for value in answer.values())
    labelled = [] if name == "dino" else ["explain_class"]
    assert asked == ["serving_default", "image", "explain", *labelled, "embed"]
