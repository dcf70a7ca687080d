"""Class prompts in a tiny transformer: trained, explained, and what is refused."""

import keras
import numpy as np
import pytest

from keras_attn.models import vit
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.cli import main
from keras_attn.training.explain import prompts
from keras_attn.training.explain.explainers import explainer_of
from keras_attn.training.trained import load_trained
from tests.training import tiny_models

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder with a transformer, another network, photographs, and a run."""
    folder = tmp_path_factory.mktemp("prompt_cam")
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 32, 3), name="images")
    spec = ImageSpec(32, 32, mean=(0.2,) * 3, class_names=("a", "b"))
    pixels = ImagePreprocessing(spec, name="preprocessing")(images)
    network = vit((16, 2, 2), 8, (32, 32, 3), 2, input_tensor=pixels)
    keras.Model(images, {"logits": network.output["logits"]}).save(folder / "vit.keras")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(images))
    keras.Model(images, keras.layers.Dense(2)(x)).save(folder / "other.keras")
    generator = np.random.default_rng(0)
    for label, colour in enumerate(("red", "green", "blue")):
        (folder / "photos" / colour).mkdir(parents=True)
        for number in range(8):
            image = generator.integers(0, 60, (32, 32, 3))
            image[8:24, 8:24, label] += 150
            file = folder / "photos" / colour / f"{number}.png"
            tiny_models.save_image(file, image.astype("uint8"))
    words = "--prompts", "deep", "--epochs", "2", "--set", "prompted=1"
    assert main(words_of(folder, "run", *words)) == 0
    return folder


def words_of(folder, name, *words, model="vit.keras"):
    given = ["finetune", str(folder / "photos"), "--from", str(folder / model)]
    return [*given, "--workdir", str(folder / name), *words]


def test_prompts_alone_have_learned(files):
    old = keras.saving.load_model(files / "vit.keras")
    subject = load_trained(files / "run", "last")
    assert subject.class_names == ("blue", "green", "red")
    assert subject.spec.mean == (0.2,) * 3
    for name in ("patches", "positions", "block_1", "block_2", "normalization"):
        pairs = zip(
            subject.model.get_layer(name).weights,
            old.get_layer(name).weights,
            strict=True,
        )
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)
    names = [layer.name for layer in subject.model.layers]
    assert [name for name in names if name.startswith("prompts")] == ["prompts_2"]


def test_explained_by_the_heads_of_two_classes(files):
    subject = load_trained(files / "run")
    assert explainer_of(subject) is prompts
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    explanations = prompts.explain(subject, images)
    attention = subject.model.predict(images, verbose=0)["prompt_attention"]
    np.testing.assert_allclose(explanations[1].attention, attention[1], atol=1e-6)
    top = explanations[1].top(3)
    order = np.argsort(-subject.probabilities(images)[1])
    assert top == order[:2].tolist()
    figure = prompts.picture(explanations[1], top)
    # Two classes: the image, the mean and both heads.
    assert len(figure.axes) == 2 * 4
    shown = figure.axes[6].images[-1].get_array()
    np.testing.assert_allclose(shown, attention[1, top[1], 0], atol=1e-6)
    maps = prompts.maps(subject, images, [top, top])
    assert maps.shape == (2, 2, 32, 32)
    command = ["explain", str(files / "run"), str(files / "photos" / "red" / "0.png")]
    assert main([*command, "--output", str(files / "explained")]) == 0
    assert (files / "explained" / "0.png").exists()


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        ("vit.keras", ["--block", "cbam"], "--prompts, or --block and --pooling"),
        ("other.keras", [], "Expected a model with a transformer inside"),
        ("vit.keras", ["--set", "prompted=3"], "at most 2"),
    ],
)
def test_mistakes_take_one_line(files, capsys, model, words, message):
    words = words_of(files, "bad", "--prompts", "deep", *words, model=model)
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and message in errors, errors
    assert not (files / "bad").exists()
