import pathlib

import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.images.decoding import CorruptImageError, decode_image
from keras_attn.pipelines.images.files import image_files, read_images
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.evaluation.predict import (
    format_predictions,
    predict,
    ranked,
)
from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny


def truncated_jpeg(path):
    rng = np.random.default_rng(0)
    tiny.save_image(path, rng.integers(0, 256, (40, 50, 3), "uint8"))
    path.write_bytes(path.read_bytes()[:500])
    return path


def test_folders_are_searched_in_order_and_hidden_files_left_out(tmp_path, capsys):
    pixels = tiny.plain_image()
    names = ["b/2.png", "b/1.JPG", "a/deep/3.bmp", ".hidden/4.png", "b/.5.png"]
    for name in names:
        tiny.save_image(tmp_path / "in" / name, pixels)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    single = tiny.save_image(tmp_path / "single.png", pixels)
    found = image_files([single, tmp_path / "in", str(single)])
    expected = ["single.png", "in/a/deep/3.bmp", "in/b/1.JPG", "in/b/2.png"]
    assert [str(path.relative_to(tmp_path)) for path in found] == expected
    line = f"Left out: 1 file that is no image ({tmp_path}/in/notes.txt)\n"
    assert capsys.readouterr().err == line


def test_missing_paths_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.png, which does not exist"):
        image_files([tmp_path / "nowhere.png"])
    with pytest.raises(FileNotFoundError, match="a folder without any"):
        image_files([tmp_path])


def test_long_decoding_shows_its_progress(tmp_path, monkeypatch, capsys):
    for name, value in (("MANY", 3), ("CHUNK", 2)):
        monkeypatch.setattr(f"keras_attn.training.evaluation.predict.{name}", value)
    path = tiny.save_colour_model(tmp_path)
    files = [tiny.save_image(tmp_path / f"{n}.png", tiny.plain_image()) for n in (1, 2)]
    predict(path, files)
    assert "Decoded" not in capsys.readouterr().err
    files.append(tiny.save_image(tmp_path / "3.png", tiny.plain_image()))
    predict(path, files)
    assert capsys.readouterr().err == "Decoded 3 of 3 images\n"


def test_predictions_are_those_of_the_model_on_fitted_pixels(tmp_path):
    path = tiny.save_colour_model(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), "uint8")
    file = tiny.save_image(tmp_path / "noise.png", pixels)
    predictions, problems = predict(path, [file], top=3)
    model = load_trained(path).model
    fitted = ImagePreprocessing(load_trained(path).spec).fit_size(pixels)
    logits = model.predict(np.asarray(fitted)[None], verbose=0)["logits"][0]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert problems == []
    (entry,) = predictions
    assert entry["image"] == str(file)
    received = {each["class"]: each["probability"] for each in entry["predictions"]}
    for name, probability in zip(tiny.COLOURS, expected, strict=True):
        assert received[name] == pytest.approx(probability, abs=1e-6)
    values = [each["probability"] for each in entry["predictions"]]
    assert values == sorted(values, reverse=True)


def test_grey_images_are_repeated_over_the_channels(tmp_path):
    path = tiny.save_colour_model(tmp_path)
    Image.new("L", (tiny.WIDTH, tiny.HEIGHT), 77).save(tmp_path / "grey.png")
    predictions, _ = predict(path, [tmp_path / "grey.png"])
    values = [each["probability"] for each in predictions[0]["predictions"]]
    assert values == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("chunk", [1, 2, 1024])
def test_corrupt_images_are_an_error_or_skipped(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("keras_attn.pipelines.images.files.CHUNK", chunk)
    path = tiny.save_colour_model(tmp_path)
    bad = truncated_jpeg(tmp_path / "in" / "bad.jpg")
    good = tiny.save_image(tmp_path / "in" / "good.png", tiny.plain_image(blue=200))
    with pytest.raises(CorruptImageError, match=r"bad\.jpg: .*--on-corrupt skip"):
        predict(path, [tmp_path / "in"])
    predictions, problems = predict(path, [tmp_path / "in"], on_corrupt="skip")
    assert [entry["image"] for entry in predictions] == [str(good)]
    assert predictions[0]["predictions"][0]["class"] == "blue"
    assert [problem.where for problem in problems] == [str(bad)]
    with pytest.raises(ValueError, match=r"a readable image. Received: .*bad\.jpg"):
        predict(path, [bad], on_corrupt="skip")


def test_images_of_the_right_size_are_left_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), "uint8")
    file = tiny.save_image(tmp_path / "exact.png", pixels)
    spec = tiny.colour_model().get_layer("preprocessing").spec
    images, kept, _ = read_images([file], spec)
    np.testing.assert_array_equal(images[0], pixels)
    np.testing.assert_array_equal(decode_image(file.read_bytes(), "exact"), pixels)
    assert kept == [file]
    with pytest.raises(ValueError, match="on_corrupt='stop'"):
        read_images([file], spec, "stop")


def test_top_classes_of_equal_probability_keep_their_order():
    names = ("a", "b", "c")
    top = ranked(np.array([0.25, 0.5, 0.25]), names, 2)
    assert top == [
        {"class": "b", "probability": 0.5},
        {"class": "a", "probability": 0.25},
    ]
    assert len(ranked(np.array([1.0, 0.0, 0.0]), names, 9)) == 3
    with pytest.raises(ValueError, match="top=0"):
        ranked(np.zeros(3), names, 0)


def test_table_names_each_image_once():
    choices = [{"class": "b", "probability": 0.5}, {"class": "a", "probability": 0.25}]
    table = format_predictions(
        [
            {"image": "x.png", "predictions": choices},
            {"image": "longer.png"} | {"predictions": choices[:1]},
        ]
    )
    assert table.splitlines() == [
        "x.png        50.00 %  b",
        "             25.00 %  a",
        "longer.png   50.00 %  b",
    ]


def test_runs_and_files_load_the_same_model(tmp_path):
    run = tiny.generated_run(tmp_path / "run", ["best"])
    by_run = load_trained(run.workdir)
    by_file = load_trained(run.checkpoints / "best.keras")
    assert by_run.path == by_file.path == pathlib.Path(run.checkpoints / "best.keras")
    assert by_run.name == by_file.name == "generated_colours"
    assert by_run.checkpoint == by_file.checkpoint == "best"
    with pytest.raises(FileNotFoundError, match="No last model"):
        load_trained(run.workdir, "last")
    with pytest.raises(ValueError, match="checkpoint='first'"):
        load_trained(run.workdir, "first")


def test_what_is_no_model_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_trained(tmp_path / "nothing.keras")
    with pytest.raises(FileNotFoundError, match="recipe.json"):
        load_trained(tmp_path)
    path = tiny.save_colour_model(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a .keras file, or damaged"):
        load_trained(path)


def test_class_names_of_files(tmp_path):
    tiny.colour_model(class_names=("one", "two", "three", "four")[:3]).save(
        tmp_path / "fine.keras"
    )
    assert load_trained(tmp_path / "fine.keras").class_names == ("one", "two", "three")
