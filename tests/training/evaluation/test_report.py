import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import re
import types

import keras
import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.images.streaming import StreamedImages
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.evaluation.evaluate import evaluate, evaluation_data
from keras_attn.training.evaluation.mistakes import Mistake
from keras_attn.training.evaluation.report import (
    differing_fields,
    explained,
    explanations,
    recipe_rows,
    write_report,
)
from keras_attn.training.pages import percent
from keras_attn.training.recipes.registry import DEFAULT, get_recipe
from keras_attn.training.runs.state import Progress
from tests.training import tiny_models as tiny
from tests.training.explain.test_warps import Shifted, model_with
from tests.training.test_cli import failing, running

HOSTILE = "<b>&\"'$x^{</b>".replace("/", "")
# Elements of HTML without an end.
VOID = {"meta", "img", "br", "link", "input"}


class Page(html.parser.HTMLParser):
    """The text of a page, its elements, and what does not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def attributes(self, *names):
        return [
            value
            for _, attributes in self.elements
            for name, value in attributes.items()
            if name in names
        ]

    def rows(self):
        return re.sub(r"\s+", " ", self.text)


def read(path):
    page = Page(path.read_text())
    # Nothing is asked of anybody.
    for address in page.attributes("src", "href", "xlink:href", "poster", "action"):
        assert address.startswith(("data:image/", "#")), address[:60]
    styles = [*page.attributes("style"), path.read_text()]
    for text in styles:
        for address in re.findall(r"url\(([^)]*)\)", text):
            assert address.startswith("#"), address
    assert "@import" not in path.read_text()
    anchors = {each[1:] for each in page.attributes("href") if each.startswith("#")}
    assert anchors - {each[1:] for each in page.attributes("xlink:href")} <= set(
        page.attributes("id")
    )
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the generated data with a history that somebody else wrote down."""
    run = tiny.generated_run(tmp_path_factory.mktemp("runs") / "run")
    history = [
        {"epoch": 1, "loss": 2.5, "val_loss": 2.6, "learning_rate": 0.1},
        {"epoch": 2, "loss": 2.0, "val_loss": 2.2, "learning_rate": 0.01},
    ]
    progress = Progress(history=history, best=0.5, best_epoch=1, seconds=83.0)
    text = np.array(json.dumps(dataclasses.asdict(progress)))
    np.savez(run.checkpoints / "last.npz", progress=text)
    return run


def test_report_of_a_run_says_what_evaluate_says(run):
    seen = []

    def progress(activity):
        return lambda *done: seen.append((activity, *done))

    path = write_report(run.workdir, mistakes=2, progress=progress)
    assert path == run.workdir / "report.html"
    result = evaluate(run.workdir)
    page = read(path)
    assert f"{100 * result['accuracy']:.2f} %" in page.text
    assert f"{100 * result['top5_accuracy']:.2f} %" in page.text
    assert f"{100 * result['patch_accuracy']:.2f} %" in page.text
    assert f"{result['cross_entropy']:.3f}" in page.text
    assert "20 " in page.rows() and "test split" in page.rows()
    for name, recall in result["per_class_accuracy"].items():
        assert name in page.text
        assert percent(recall) in page.text
    assert seen[0] == ("Evaluated", 20, 20)
    assert result["accuracy"] < 0.9
    assert seen[-1] == ("Explained", 2, 2)
    # Curves, recipe, time in training.
    labels = page.attributes("aria-label")
    assert "Training curves" in labels and "0:01:23" in page.text
    assert "learning rate" in page.text
    assert "generated_colours" in page.text and "patch_loss_weight" in page.text
    assert not list(run.workdir.glob(".*partial"))
    # The policy lets this script run, and nothing be loaded.
    text = path.read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [each for each in page.attributes("content") if "default" in each]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def hostile_model(folder):
    """A model file and images of classes whose names are markup."""
    names = (HOSTILE, "<script>alert(1)<script>", "{{ 7 * 7 }}")
    path = tiny.save_colour_model(folder, class_names=names)
    for channel, name in enumerate(names):
        for number in range(2):
            # The last class is taken for the first.
            pixels = tiny.plain_image(height=20, width=30)
            pixels[..., channel % 2] = 200 + number
            tiny.save_image(folder / "images" / name / f"{number}.png", pixels)
    return path, folder / "images", names


def test_names_of_classes_and_files_are_text(tmp_path, capsys):
    path, images, names = hostile_model(tmp_path)
    report = tmp_path / "colours_report.html"
    out = running(capsys, "report", path, "--data", images)
    assert out.strip() == str(report)
    page = read(report)
    tags = [tag for tag, _ in page.elements]
    assert "b" not in tags and tags.count("script") == 1
    for name in names:
        assert name in page.text
    # Two of six wrong, red for red's images and blue's.
    assert "66.67 %" in page.text
    assert "model file without the folder of its training" in page.rows()
    assert tags.count("img") == 4
    assert "Recipe" not in page.text


def test_mistakes_come_with_image_and_explanation(tmp_path):
    path, images, names = hostile_model(tmp_path)
    found = evaluation_data(path, data=images)
    probabilities = np.full((6, 3), 0.25)
    probabilities[4] = (0.7, 0.1, 0.2)
    mistake = Mistake(4, 2, 0, 0.7, found.images[4])
    (shown,) = explained(found, probabilities, [mistake])
    assert shown.where == str(images / names[2] / "0.png") == found.names[4]
    assert (shown.taken_for, shown.true) == (names[0], names[2])
    assert (shown.probability, shown.probability_of_right) == (0.7, 0.2)
    pixels = base64.b64decode(shown.image.partition(",")[2])
    with Image.open(io.BytesIO(pixels)) as image:
        np.testing.assert_array_equal(np.asarray(image), found.images[4])
    assert shown.picture.startswith("data:image/webp;base64,")


def mistake_of(model):
    pixels = np.zeros((*model.input_shape[1:3], 3), "uint8")
    return Mistake(1, 2, 0, 0.9, pixels)


@pytest.mark.parametrize(
    "make",
    [tiny.localizer, lambda: model_with(Shifted((0.0, 1.0), (1.0, 0.0)))],
    ids=["localizer", "warp"],
)
def test_mistakes_of_other_methods_are_explained(make):
    model = make()
    trained = types.SimpleNamespace(model=model, class_names=tiny.COLOURS, run=None)
    (picture,) = explanations(trained, [mistake_of(model)], lambda *done: None)
    assert picture.startswith("data:image/webp;base64,")


def test_models_without_maps_of_their_own_get_grad_cam(tmp_path):
    images = tiny.colour_folder(tmp_path / "images", each=1)
    tiny.save_image(images / "blue" / "red.png", tiny.plain_image(200, height=30))
    path = tiny.save_colour_model(tmp_path, patch_logits=False)
    page = read(write_report(path, tmp_path / "deep" / "page.html", data=images))
    assert "75.00 %" in page.text and "Grad-CAM" in page.text
    assert [tag for tag, _ in page.elements].count("img") == 2


def test_models_without_any_map_say_so(tmp_path):
    layers = keras.layers
    spec = ImageSpec(tiny.HEIGHT, tiny.WIDTH, class_names=tiny.COLOURS)
    pixels = keras.Input((tiny.HEIGHT, tiny.WIDTH, 3), name="images")
    x = layers.Flatten()(ImagePreprocessing(spec, name="preprocessing")(pixels))
    logits = layers.Dense(3, kernel_initializer="zeros", name="logits")(x)
    keras.Model(pixels, {"logits": logits}).save(tmp_path / "flat.keras")
    images = tiny.colour_folder(tmp_path / "images", each=1)
    page = read(write_report(tmp_path / "flat.keras", data=images))
    assert "33.33 %" in page.text and "no maps" in page.text


def test_many_classes_show_pairs_and_no_table():
    from keras_attn.training.evaluation import report_charts

    names = [f"class {label}" for label in range(60)]
    matrix = np.eye(60, dtype=int) * 5
    matrix[3, 4] = 2
    text = report_charts.confusion(matrix, names)
    assert "class 3" not in text and "<image" in text
    few = report_charts.confusion(matrix[:20, :20], names[:20])
    assert "class 3" in few


def test_recipe_marks_what_was_changed():
    recipe = dataclasses.replace(get_recipe(DEFAULT), epochs=3, decay_at=(0.5,))
    rows = {row[0]: row[1:] for row in recipe_rows(recipe)}
    assert set(rows) == set(recipe.to_dict()) - {"name"}
    assert rows["epochs"] == ("3", "200", True)
    assert rows["decay_at"] == ("0.5", "0.5, 0.75", True)
    assert rows["image_size"][2] is (recipe.image_size != 32)
    expected = {"epochs": ("3", str(get_recipe(DEFAULT).epochs))}
    found = {field: each for field, *each in differing_fields(recipe)}
    assert found["epochs"] == list(expected["epochs"])
    assert set(found) == {"epochs", "decay_at"}
    unknown = dataclasses.replace(recipe, name="mine")
    assert differing_fields(unknown) == []


def test_mistakes_in_the_command_are_one_line(tmp_path, capsys):
    path, images, _ = hostile_model(tmp_path)
    run = tiny.generated_run(tmp_path / "run", checkpoints=())
    assert "no epoch has ended" in failing(capsys, "report", run.workdir)
    assert "--data PATH" in failing(capsys, "report", path)
    missing = tmp_path / "nowhere"
    assert "nowhere" in failing(capsys, "report", path, "--data", missing)
    split = failing(capsys, "report", path, "--data", images, "--split", "test")
    assert "a split of folder with images: all" in split
    for wrong in (("--out", tmp_path / "page.pdf"), ("--mistakes", -1)):
        assert "Expected" in failing(capsys, "report", path, "--data", images, *wrong)
    assert not list(tmp_path.glob("**/*.html")) and not list(tmp_path.glob("**/.*"))


def test_images_that_stay_in_their_files_can_be_mistakes(tmp_path, monkeypatch):
    path, images, _ = hostile_model(tmp_path)
    from keras_attn.pipelines.images import streaming

    load = streaming.load_images
    monkeypatch.setattr(
        "keras_attn.training.evaluation.evaluate.load_images",
        lambda source, spec: load(source, spec, 0.0),
    )
    assert isinstance(evaluation_data(path, data=images).images, StreamedImages)
    page = read(write_report(path, data=images, mistakes=1))
    assert [tag for tag, _ in page.elements].count("img") == 2
