import functools
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_attn.models.patch_classifier import patch_classifier
from keras_attn.pipelines.images.decoding import decode_image
from keras_attn.pipelines.images.files import read_images
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.serving import export as export_module
from keras_attn.training.serving import portable, signatures
from keras_attn.training.serving.export import export, export_formats
from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny
from tests.training.explain.test_localize import colour_classifier, looped

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels need TensorFlow"
)

# Runs with TensorFlow alone: no import of this project, and none of Keras beyond what
# TensorFlow itself imports.
CLIENT = """
import json
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "keras_attn", "pipelines", "training"):
            raise ImportError(name)

import numpy as np
import tensorflow as tf

sys.meta_path.insert(0, Refuse())

for folder, files, answers in json.loads(sys.argv[1]):
    model = tf.saved_model.load(folder)
    data = tf.constant([open(file, "rb").read() for file in files])
    results = {}
    for size in (1, 7):
        answer = model.signatures["serving_default"](image_bytes=data[:size])
        results |= {f"bytes_{size}_{key}": value for key, value in answer.items()}
        pixels = tf.stack([tf.io.decode_png(each) for each in data[:size]])
        answer = model.signatures["image"](images=tf.cast(pixels, tf.float32))
        results |= {f"images_{size}_{key}": value for key, value in answer.items()}
    arrays = {key: value.numpy() for key, value in results.items()}
    texts = {key: value for key, value in arrays.items() if value.dtype == object}
    # Texts as such: object arrays would need pickle.
    texts = {key: value.astype(str) for key, value in texts.items()}
    np.savez(answers, **{**arrays, **texts})
assert "keras_attn" not in sys.modules
"""


SIZE = (tiny.HEIGHT, tiny.WIDTH)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A model file, and its export."""
    folder = tmp_path_factory.mktemp("colours")
    path = tiny.save_colour_model(folder)
    return path, export(path, output=folder / "saved")


def noise(seed, height=tiny.HEIGHT, width=tiny.WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), "uint8")


def check_same(received, expected, what=""):
    """Equal, or close where the values are real numbers."""
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(received, expected, atol=1e-5, err_msg=what)
    else:
        np.testing.assert_array_equal(received, expected, err_msg=what)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Settings, the run of a localiser, and its export."""
    folder = tmp_path_factory.mktemp("patches")
    settings = {
        "max_patches": (4, 3),
        "iou_threshold": 0.5,
        "coverage": (0.5, 0.75),
    }
    run = tiny.localizer_run(folder / "run", **settings)
    return settings, run, export(run.workdir, output=folder / "saved")


@pytest.fixture(scope="module")
def alone(colours, patches, tmp_path_factory):
    """Answers of TensorFlow alone for seven images, by export."""
    folder = tmp_path_factory.mktemp("client")
    jobs = []
    for exported, size in ((colours[-1], SIZE), (patches[-1], tiny.LOCALIZER_SIZE)):
        files = [
            str(tiny.save_image(folder / f"{size}" / f"{i}.png", noise(i, *size)))
            for i in range(7)
        ]
        jobs.append((str(exported), files, str(folder / f"{size}.npz")))
    subprocess.run(
        [sys.executable, "-I", "-c", CLIENT, json.dumps(jobs)], cwd=folder, check=True
    )
    return {
        exported: dict(np.load(answers, allow_pickle=False))
        for exported, _, answers in jobs
    }


def served(folder, files, signature="serving_default"):
    """Outputs of a bytes signature, in this process."""
    data = tf.constant([file.read_bytes() for file in files])
    return loaded(folder).signatures[signature](image_bytes=data)


@functools.cache
def loaded(folder):
    return tf.saved_model.load(str(folder))


def test_tensorflow_alone_gives_the_numbers_of_keras(colours, alone):
    path, folder = colours
    assert folder == path.parent / "saved" / "colours" / "1"
    images = np.stack([noise(i) for i in range(7)])
    expected = outputs_of(load_trained(path).model, images)
    exponents = np.exp(expected["logits"])
    expected["probabilities"] = exponents / exponents.sum(-1, keepdims=True)
    expected["class"] = np.array(tiny.COLOURS)[expected["logits"].argmax(-1)]
    # A map, which `explain` gives.
    del expected["patch_logits"]
    received = alone[str(folder)]
    keys = {
        f"{kind}_{size}_{name}"
        for kind in ("bytes", "images")
        for size in (1, 7)
        for name in expected
    }
    assert set(expected) == {"logits", "probabilities", "class"}
    assert set(received) == keys
    for key in keys:
        _, size, name = key.split("_", 2)
        check_same(received[key], expected[name][: int(size)], key)


def test_bytes_of_any_size_and_format_are_fitted_as_in_training(colours, tmp_path):
    path, folder = colours
    files = [
        tiny.save_image(tmp_path / "small.png", noise(0, 11, 13)),
        tiny.save_image(tmp_path / "tall.jpg", noise(1, 71, 29)),
        tiny.save_image(tmp_path / "exact.bmp", noise(2)),
        tiny.save_image(tmp_path / "grey.png", noise(3, 40, 30)[..., 0]),
    ]
    trained = load_trained(path)
    pixels, _, _ = read_images(files, trained.spec)
    expected = outputs_of(trained.model, pixels)
    for name, value in served(folder, files).items():
        if name in expected:
            np.testing.assert_allclose(value, expected[name], atol=1e-5)


def test_central_crop_is_inside(tmp_path):
    from keras_attn.preprocessing import ImagePreprocessing, ImageSpec

    spec = ImageSpec(16, 24, crop_fraction=0.5, class_names=tiny.COLOURS)
    inputs = keras.Input((16, 24, 3))
    x = ImagePreprocessing(spec)(inputs)
    logits = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, {"logits": logits}).save(tmp_path / "crop.keras")
    folder = export(tmp_path / "crop.keras", output=tmp_path / "saved")
    # Red only inside the central half of each side.
    pixels = tiny.plain_image(blue=255, height=32, width=48)
    pixels[8:24, 12:36] = (255, 0, 0)
    files = [
        tiny.save_image(tmp_path / "large.png", pixels),
        # Of the model's own size: taken as it is.
        tiny.save_image(tmp_path / "exact.png", pixels[::2, ::2]),
    ]
    logits = served(folder, files)["logits"].numpy()
    np.testing.assert_allclose(logits, [[1, 0, 0], [0.25, 0, 0.75]], atol=1e-5)


def test_the_image_spec_lies_beside_the_model(colours):
    _, folder = colours
    facts = json.loads((folder / "assets.extra" / "image_spec.json").read_text())
    assert facts["image_spec"]["class_names"] == list(tiny.COLOURS)
    assert (facts["image_spec"]["height"], facts["image_spec"]["width"]) == (16, 24)
    told = facts["signatures"]["serving_default"]
    assert told["inputs"] == {"image_bytes": {"dtype": "string", "shape": [None]}}
    assert told["outputs"] == {
        "logits": {"dtype": "float32", "shape": [None, 3]},
        "probabilities": {"dtype": "float32", "shape": [None, 3]},
        "class": {"dtype": "string", "shape": [None]},
    }
    shown = facts["signatures"]["explain"]["outputs"]
    assert shown["class_maps"] == {"dtype": "float32", "shape": [None, 2, 3, 3]}
    assert "branches" not in facts


def test_versions_count_up_and_are_never_overwritten(colours, tmp_path, monkeypatch):
    path, exported = colours

    def write(self, format, folder):
        shutil.copytree(exported, folder)

    # The content of each is that of other tests.
    monkeypatch.setattr(export_module._Exported, "write", write)
    parent = tmp_path / "saved" / "shop"
    for version in ("2", "notes", "10"):
        (parent / version).mkdir(parents=True)
    assert export(path, "shop", output=tmp_path / "saved") == parent / "11"
    assert export(path, "shop", 3, tmp_path / "saved") == parent / "3"
    with pytest.raises(ValueError, match="version=3, and .* exists"):
        export(path, "shop", 3, tmp_path / "saved")
    for version in (0, -1):
        with pytest.raises(ValueError, match="positive version"):
            export(path, "shop", version, tmp_path / "saved")
    with pytest.raises(ValueError, match="name='../out'"):
        export(path, "../out", output=tmp_path / "saved")
    left = sorted(each.name for each in parent.iterdir())
    assert left == ["10", "11", "2", "3", "kserve.yaml", "notes"]


def test_an_export_that_disagrees_is_not_kept(tmp_path, monkeypatch):
    path = tiny.save_colour_model(tmp_path)
    right = signatures.with_decision

    def wrong_in_graphs(outputs, *classes):
        if tf.is_symbolic_tensor(outputs["logits"]):
            outputs["logits"] = outputs["logits"] + 1e-2
        return right(outputs, *classes)

    monkeypatch.setattr(signatures, "with_decision", wrong_in_graphs)
    with pytest.raises(ValueError, match="disagrees .* logits of 'serving_.* is off"):
        export(path, output=tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_file_that_does_not_run_is_not_kept(tmp_path, monkeypatch):
    def broken(file, images):
        raise RuntimeError("no such operation\nand 20 more lines")

    monkeypatch.setattr(portable, "_run_litert", broken)
    path = tiny.save_colour_model(tmp_path)
    (tmp_path / "saved").mkdir()
    with pytest.raises(ValueError, match="Expected the LiteRT file to run") as caught:
        export_formats(path, output=tmp_path / "saved", formats=["litert"])
    assert "\n" not in str(caught.value) and "no such" in str(caught.value)
    assert not list((tmp_path / "saved").iterdir())


def test_openvino_or_what_to_install(tmp_path, monkeypatch):
    path, output = tiny.save_colour_model(tmp_path), tmp_path / "saved"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        with pytest.raises(ImportError, match="pip install openvino"):
            export_formats(path, output=output, formats=["openvino"])
    assert not output.exists()
    pytest.importorskip("openvino")
    # The file is run and compared with the model.
    folders = export_formats(path, output=output, formats=["openvino"])
    assert (folders["openvino"] / "model.xml").exists()


def test_models_that_draw_random_numbers_can_be_exported(tmp_path):
    from keras_attn.layers.perturbed_argmax import PerturbedArgmax
    from keras_attn.preprocessing import ImagePreprocessing, ImageSpec

    inputs = keras.Input((8, 8, 3))
    x = ImagePreprocessing(ImageSpec(8, 8))(inputs)
    x = PerturbedArgmax(margin=0.0, samples=3)(x)
    logits = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, {"logits": logits}).save(tmp_path / "random.keras")
    folder = export(tmp_path / "random.keras", output=tmp_path / "saved")
    file = tiny.save_image(tmp_path / "x.png", noise(0, 8, 8))
    assert served(folder, [file])["logits"].shape == (1, 3)


def test_other_backends_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax"):
        export(tmp_path / "any.keras")


def test_decoder_is_that_of_training(colours, tmp_path):
    """JPEG decoders differ by a few levels; ours are one and the same."""
    path, folder = colours
    file = tmp_path / "x.jpg"
    Image.fromarray(noise(5)).save(file, quality=60, subsampling=2)
    pixels = decode_image(file.read_bytes(), "x.jpg")
    expected = outputs_of(load_trained(path).model, pixels[None])["logits"]
    np.testing.assert_allclose(served(folder, [file])["logits"], expected, atol=1e-5)


def test_the_exported_graph_turns_images_upright(colours, tmp_path):
    """Against Pillow's `exif_transpose`."""
    path, folder = colours
    y, x = np.mgrid[:24, :36]
    pixels = np.stack([10 * y, 7 * x, 4 * (x + y)], axis=-1).astype("uint8")
    files, expected = [], []
    # Older versions of TensorFlow decode no WebP.
    for suffix in ("jpg", "png", *["webp"] * hasattr(tf.io, "decode_webp")):
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            files.append(tmp_path / f"{orientation}.{suffix}")
            options = {"lossless": True} if suffix == "webp" else {}
            Image.fromarray(pixels).save(files[-1], exif=exif, **options)
            turned = tmp_path / f"{orientation}_{suffix}.png"
            with Image.open(files[-1]) as image:
                ImageOps.exif_transpose(image).save(turned)
            expected.append(turned)
    trained = load_trained(path)
    expected = read_images(expected, trained.spec).images
    logits = outputs_of(trained.model, expected)["logits"]
    received = np.concatenate(
        [
            served(folder, files[part : part + 8])["logits"]
            for part in range(0, len(files), 8)
        ]
    )
    # Pillow and TensorFlow round the pixels of a JPEG differently.
    np.testing.assert_allclose(received[:8], logits[:8], atol=0.05)
    np.testing.assert_allclose(received[8:], logits[8:], atol=1e-5)


# ---- localisers --------------------------------------------------------------------


def patches_of(model, settings, images):
    """Outputs of a localiser, and the patches that loops choose on its maps."""
    outputs = outputs_of(model, images)
    outputs |= {"boxes": [], "scores": [], "valid": [], "branch": []}
    most = max(settings["max_patches"])
    for index in range(len(images)):
        _, window, boxes, scores = looped(outputs, index, tuple(settings.values()))
        missing = most - len(boxes)
        outputs["boxes"].append(boxes + [(-1,) * 4] * missing)
        outputs["scores"].append(scores + [0.0] * missing)
        outputs["valid"].append([True] * len(boxes) + [False] * missing)
        outputs["branch"].append(tiny.WINDOWS.index(window))
    outputs = {name: np.asarray(value) for name, value in outputs.items()}
    exponents = np.exp(outputs["logits"])
    outputs["probabilities"] = exponents / exponents.sum(-1, keepdims=True)
    outputs["class"] = np.array(tiny.COLOURS)[outputs["logits"].argmax(-1)]
    return outputs


def test_tensorflow_alone_localises_as_loops_do(patches, alone):
    settings, run, folder = patches
    assert folder.parent.name == "flowers"
    size = tiny.LOCALIZER_SIZE
    images = np.stack([noise(i, *size) for i in range(7)])
    expected = patches_of(load_trained(run.workdir).model, settings, images)
    received = alone[str(folder)]
    # Those of the branches are among what `explain` shows.
    expected = {
        name: value
        for name, value in expected.items()
        if not name.startswith(("logits_", "evidence_", "attention_"))
    }
    assert {key.split("_", 2)[2] for key in received} == set(expected)
    for key in received:
        _, count, name = key.split("_", 2)
        check_same(received[key], expected[name][: int(count)], key)
    facts = json.loads((folder / "assets.extra" / "image_spec.json").read_text())
    assert [branch["patch_size"] for branch in facts["branches"]] == [16, 24]
    assert facts["patch_settings"]["max_patches"] == [4, 3]
    boxes = facts["signatures"]["serving_default"]["outputs"]["boxes"]
    assert boxes == {"dtype": "int32", "shape": [None, 4, 4]}


def test_a_classifier_of_patches_is_served_whole(tmp_path):
    model = patch_classifier(
        tiny.localizer(auxiliary=False), colour_classifier(), (3, 2), coverage=0.5
    )
    model.save(tmp_path / "patches.keras")
    folder = export(tmp_path / "patches.keras", output=tmp_path / "saved")
    size = tiny.LOCALIZER_SIZE
    files = [tiny.save_image(tmp_path / f"{i}.png", noise(i, *size)) for i in range(5)]
    expected = outputs_of(model, np.stack([noise(i, *size) for i in range(5)]))
    for count in (1, 5):
        answer = served(folder, files[:count])
        assert set(answer) == {*expected, "probabilities", "class"}
        for name, value in expected.items():
            check_same(answer[name].numpy(), value[:count], name)
        valid = answer["valid"].numpy()
        mean = answer["patch_probabilities"].numpy().sum(1) / valid.sum(1)[:, None]
        np.testing.assert_allclose(answer["probabilities"], mean, atol=1e-5)
    facts = json.loads((folder / "assets.extra" / "image_spec.json").read_text())
    assert [branch["patch_size"] for branch in facts["branches"]] == [16, 24]
    # Its logits are no function of one vector.
    assert set(facts["signatures"]) == {"serving_default", "image", "explain"}
    check_scores(served(folder, files, "explain"))


def check_scores(seen):
    """Each score is the evidence of its branch for the label, at the box."""
    seen = {name: value.numpy() for name, value in seen.items()}
    assert seen["valid"].any(axis=1).all()
    for image, slot in np.argwhere(seen["valid"]):
        window = tiny.WINDOWS[seen["branch"][image]]
        evidence = seen[f"evidence_{window}"][image, ..., seen["label"][image]]
        row, column = seen["boxes"][image, slot, :2] // tiny.STRIDE
        score = seen["scores"][image, slot]
        assert evidence[row, column] == pytest.approx(score, abs=1e-5)


def test_models_of_any_size_are_served_at_any_size(tmp_path):
    colour_classifier().save(tmp_path / "any.keras")
    folder = export(tmp_path / "any.keras", output=tmp_path / "saved")
    for size in ((31, 17), tiny.LOCALIZER_SIZE):
        images = noise(0, *size)[None]
        given = tf.constant(images, tf.float32)
        logits = loaded(folder).signatures["image"](images=given)
        expected = 5 * images.mean(axis=(1, 2)) / 255
        np.testing.assert_allclose(logits["logits"], expected, rtol=1e-4)


# ---- files -------------------------------------------------------------------------


def test_grey_and_transparent_files_are_decoded_as_in_training(colours, tmp_path):
    path, folder = colours
    pixels, alpha = noise(0, 41, 56), noise(1, 41, 56)[..., :1]
    grey = np.concatenate([pixels[..., :1], alpha], axis=-1)
    files = [
        tiny.save_image(tmp_path / "grey.jpg", pixels[..., 0]),
        tiny.save_image(tmp_path / "rgba.png", np.concatenate([pixels, alpha], -1)),
        tiny.save_image(tmp_path / "grey_alpha.png", grey),
    ]
    Image.fromarray(pixels).convert("P").save(tmp_path / "palette.gif")
    files.append(tmp_path / "palette.gif")
    trained = load_trained(path)
    images, _, _ = read_images(files, trained.spec)
    expected = outputs_of(trained.model, images)
    answer = served(folder, files)
    for name, value in answer.items():
        if name in expected:
            check_same(value.numpy(), expected[name], name)


@pytest.mark.parametrize(
    "data, message",
    [(b"", "empty"), (b"no image", "Unknown image file format"), (None, "Invalid")],
)
def test_corrupt_files_are_an_error(colours, tmp_path, data, message):
    _, folder = colours
    if data is None:
        Image.fromarray(noise(0, 90, 70)).save(tmp_path / "cut.jpg")
        data = (tmp_path / "cut.jpg").read_bytes()[:1500]
    answer = loaded(folder).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        answer(image_bytes=tf.constant([data]))
