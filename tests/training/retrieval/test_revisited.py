import json
import pickle

import numpy as np
import pytest

from keras_attn.metrics.retrieval import CUTOFFS
from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.training.retrieval.revisited import (
    MULTI_SCALE,
    evaluate_retrieval,
    excerpt_of,
    find_images,
    format_retrieval,
)
from tests.reference import retrieval as reference
from tests.training import tiny_models as tiny

IMAGES, SIZE = 12, (tiny.HEIGHT, tiny.WIDTH)


def colours(seed, count):
    return np.random.default_rng(seed).integers(20, 256, (count, 3))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Plain images; queries are the right halves of images with another left half."""
    folder = tmp_path_factory.mktemp("retrieval")
    database, queries = colours(0, IMAGES), colours(1, 3)
    for number, colour in enumerate(database):
        pixels = np.broadcast_to(colour, (*SIZE, 3)).astype("uint8")
        tiny.save_image(folder / "images" / f"image_{number}.png", pixels)
    for number, colour in enumerate(queries):
        pixels = np.zeros((20, 60, 3), "uint8")
        pixels[:, :30], pixels[:, 30:] = 255 - colour, colour
        tiny.save_image(folder / "images" / "cut" / f"query_{number}.png", pixels)
    truth = {
        "imlist": [f"image_{number}" for number in range(IMAGES)],
        "qimlist": [f"query_{number}" for number in range(3)],
        "gnd": [
            {"bbx": [30, 0, 60, 20], "easy": [0, 5], "hard": [3], "junk": [7, 8]},
            {"bbx": [30.2, 0, 60.4, 20], "easy": [1], "hard": [], "junk": []},
            {"bbx": [30, 0, 60, 20], "easy": [2, 4], "hard": [9, 11], "junk": [6]},
        ],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "truth.pkl").write_bytes(pickle.dumps(truth))
    tiny.save_colour_model(folder)
    return folder, database, queries, truth


def changed(scene, tmp_path, **changes):
    """The path of the ground truth with another first entry."""
    truth = {
        **scene[3],
        "gnd": [{**scene[3]["gnd"][0], **changes}, *scene[3]["gnd"][1:]],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    return path


def evaluate(scene, truth="truth.json", **options):
    folder = scene[0]
    return evaluate_retrieval(
        folder / "colours.keras", folder / truth, folder / "images", **options
    )


def check_scores(result, similarities, truth):
    rankings = np.argsort(-similarities, axis=1, kind="stable")
    for setup, found in result["setups"].items():
        precision, at = reference.revisited(rankings, truth["gnd"], setup, CUTOFFS)
        assert found["map"] == pytest.approx(precision)
        for cutoff, wanted in zip(CUTOFFS, at, strict=True):
            assert found[f"mp@{cutoff}"] == pytest.approx(wanted)


@pytest.mark.parametrize("file", ["truth.json", "truth.pkl"])
def test_scores_are_those_of_the_cut_out_colours(scene, file):
    _, database, queries, truth = scene
    calls = []
    result = evaluate(scene, file, progress=lambda *done: calls.append(done))
    similarities = reference.unit_rows(queries) @ reference.unit_rows(database).T
    check_scores(result, similarities, truth)
    assert result["setups"]["hard"]["queries"] == 2
    assert result["images"] == 12 and result["queries"] == 3
    assert result["scales"] == [1.0] and result["image_size"] == [16, 24]
    assert result["whitening"] is None and result["dimension"] == 3
    assert calls[-1] == (15, 15)
    json.dumps(result)


def test_scales_and_longest_side_do_not_change_plain_colours_and_are_stated(scene):
    wanted = evaluate(scene)["setups"]
    result = evaluate(scene, scales=MULTI_SCALE, longest_side=40)
    for setup, row in result["setups"].items():
        assert row == pytest.approx(wanted[setup])
    assert result["scales"] == list(MULTI_SCALE)
    assert result["image_size"] is None and result["longest_side"] == 40
    text = format_retrieval(result)
    assert "longest side 40, scales 1, 1.414, 0.7071; 3 numbers" in text
    assert "whitening: none" in text and "medium" in text


def test_whitening_is_learned_from_another_folder(scene, tmp_path):
    _, database, queries, truth = scene
    others = colours(2, 9)
    for number, colour in enumerate(others):
        pixels = np.broadcast_to(colour, (*SIZE, 3)).astype("uint8")
        tiny.save_image(tmp_path / f"{number}.png", pixels)
    result = evaluate(scene, whitening=tmp_path, dimensions=2)
    others, database, queries = (
        reference.unit_rows(x.astype("float64")) for x in (others, database, queries)
    )
    # Whitened with the others: what is learned from all would be something else.
    _, scale, directions = np.linalg.svd(others - others.mean(axis=0))
    axes = directions[:2].T / scale[:2]
    database, queries = (
        reference.unit_rows((x - others.mean(axis=0)) @ axes)
        for x in (database, queries)
    )
    check_scores(result, queries @ database.T, truth)
    assert result["dimension"] == 2 and str(tmp_path) in result["whitening"]


def test_a_setup_without_positives_is_unknown(scene, tmp_path):
    truth = {**scene[3], "qimlist": ["query_1"], "gnd": [scene[3]["gnd"][1]]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    result = evaluate(scene, tmp_path / "truth.json")
    assert result["setups"]["hard"]["map"] is None
    assert "-" in format_retrieval(result).splitlines()[3]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("box", [[31, 0, 62, 20], [0, -2, 60, 20], [70, 0, 90, 20]])
def test_refuses_a_box_outside_its_image(scene, tmp_path, box):
    with pytest.raises(ValueError, match="box inside its image of 60 x 20.*query_0"):
        evaluate(scene, changed(scene, tmp_path, bbx=box))


def test_a_box_that_rounding_moved_out_is_cut_off(scene):
    path = scene[0] / "images" / "cut" / "query_0.png"
    assert excerpt_of(path, (0, 30, 21, 61)).pixels.shape == (20, 30, 3)
    assert excerpt_of(path, (-1, -1, 20, 60)).pixels.shape == (20, 60, 3)
    assert excerpt_of(path, (0, 30, 10, 60)).longest == 60


def test_images_are_found_by_path_name_or_stem(tmp_path):
    for name in ("a/one.jpg", "b/one.png", "b/two.v1.jpg", "c/two.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = ["a/one", "one.png", "two.v1", "c/two.jpg", "two"]
    found = [str(x.relative_to(tmp_path)) for x in find_images(tmp_path, names)]
    assert found == ["a/one.jpg", "b/one.png", "b/two.v1.jpg", "c/two.jpg", "c/two.jpg"]
    with pytest.raises(ValueError, match="one image a name.*'one'"):
        find_images(tmp_path, ["one"])
    with pytest.raises(FileNotFoundError, match="without 'three' and 1 more"):
        find_images(tmp_path, ["one.png", "three", "four"])


def test_missing_and_empty_folders(scene, tmp_path):
    folder = scene[0]
    model, truth = folder / "colours.keras", folder / "truth.json"
    with pytest.raises(FileNotFoundError, match="a folder without any"):
        evaluate_retrieval(model, truth, tmp_path)
    with pytest.raises(FileNotFoundError, match="Expected a folder of images"):
        evaluate_retrieval(model, truth, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="Expected a folder of images"):
        evaluate(scene, whitening=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`dimensions` with a whitening"):
        evaluate(scene, dimensions=2)


def test_a_corrupt_image_is_named(scene, tmp_path):
    (tmp_path / "query_0.jpg").write_bytes(b"no image")
    with pytest.raises(CorruptImageError, match="query_0.jpg: not an image"):
        excerpt_of(tmp_path / "query_0.jpg")
