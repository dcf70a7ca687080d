"""Searching an index of plain images, whose descriptors are their colours."""

import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.training import cli
from keras_attn.training.retrieval.index import index_folder
from keras_attn.training.retrieval.search import Searcher, format_results, search
from tests.training import tiny_models as tiny

COLOURS = {
    "red/1.png": (250, 10, 10),
    "red/2.png": (200, 60, 30),
    "green.png": (20, 230, 20),
    "blue.png": (30, 20, 220),
}
QUERY = (220, 40, 20)


def unit(vectors):
    vectors = np.asarray(vectors, "float64")
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a model, images and their index, which no test may change."""
    pytest.importorskip("faiss")
    folder = tmp_path_factory.mktemp("search")
    model = tiny.save_colour_model(folder)
    for name, colour in COLOURS.items():
        tiny.save_image(folder / "in" / name, tiny.plain_image(*colour))
    tiny.save_image(folder / "query.png", tiny.plain_image(*QUERY, height=33, width=40))
    (folder / "bad.png").write_bytes(b"no image")
    index_folder(model, folder / "in", folder / "index")
    return folder


def expected(workplace):
    """Names and similarities, the nearest first."""
    similarity = unit(list(COLOURS.values())) @ unit(QUERY)
    order = np.argsort(-similarity)
    names = [str(workplace / "in" / list(COLOURS)[number]) for number in order]
    return names, similarity[order]


def test_hits_are_the_nearest_colours(workplace):
    query = workplace / "query.png"
    results, written, problems = search(workplace / "index", [query], top=3)
    names, similarities = expected(workplace)
    (result,) = results
    assert result["image"] == str(query) and written == [] and problems == []
    assert [hit["image"] for hit in result["hits"]] == names[:3]
    found = [hit["similarity"] for hit in result["hits"]]
    np.testing.assert_allclose(found, similarities[:3], atol=1e-5)
    lines = format_results(results).splitlines()
    assert lines[0] == str(query) and len(lines) == 4
    assert lines[1] == f"  {similarities[0]:6.3f}  {names[0]}"


def test_an_index_is_opened_once_and_searched_many_times(workplace):
    searcher = Searcher.open(workplace / "index")
    for name, colour in COLOURS.items():
        pixels = tiny.plain_image(*colour)[None]
        ((hit, similarity),) = searcher.search(pixels, top=1)[0]
        assert hit == name and similarity == pytest.approx(1.0, abs=1e-6)


def test_the_command_prints_json_and_draws_a_sheet(workplace, tmp_path, capsys):
    query = str(workplace / "query.png")
    arguments = ["search", workplace / "index", query, "--json", "--out", tmp_path]
    assert cli.main([str(each) for each in arguments]) == 0
    captured = capsys.readouterr()
    (result,) = json.loads(captured.out)
    assert [hit["image"] for hit in result["hits"]] == expected(workplace)[0]
    assert captured.err.strip() == str(tmp_path / "hits.png")
    sheet = np.asarray(Image.open(tmp_path / "hits.png"))
    row = sheet[60]
    changes = np.flatnonzero(np.any(row[1:] != row[:-1], axis=1))
    seen = [tuple(int(value) for value in row[place + 1]) for place in changes]
    # From the left: the query, then the hits, the nearest first.
    order = np.argsort(-(unit(list(COLOURS.values())) @ unit(QUERY)))
    wanted = [QUERY, *(list(COLOURS.values())[number] for number in order)]
    assert [colour for colour in seen if colour in wanted] == wanted


def test_the_commands_make_and_search_an_index(workplace, tmp_path, capsys):
    model, folder = workplace / "colours.keras", workplace / "in"
    index = ["index", model, folder, "--out", tmp_path / "index"]
    assert cli.main([str(each) for each in index]) == 0
    captured = capsys.readouterr()
    assert "index: 4 images (4 added, 0 changed, 0 removed), 3 num" in captured.out
    assert captured.err.strip() == "Described 4 of 4 images"
    assert cli.main([*map(str, index), "--json", "--index-type", "ivf"]) == 0
    assert json.loads(capsys.readouterr().out)["index_type"] == "ivf"
    query = [str(workplace / "query.png"), str(workplace / "bad.png")]
    searched = ["search", str(tmp_path / "index"), *query, "--on-corrupt", "skip"]
    assert cli.main([*searched, "--top", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].endswith(expected(workplace)[0][0])
    assert captured.err.startswith(f"skipped: {query[1]}: not an image")


def test_the_model_is_needed_and_no_other(workplace, tmp_path):
    model = shutil.copy(workplace / "colours.keras", tmp_path / "a.keras")
    index = tmp_path / "index"
    index_folder(model, workplace / "in", index)
    (tmp_path / "a.keras").rename(tmp_path / "b.keras")
    query = [workplace / "query.png"]
    with pytest.raises(
        FileNotFoundError, match="at .*a.keras. .*with --model if it was moved"
    ):
        search(index, query)
    results, _, _ = search(index, query, model=tmp_path / "b.keras")
    assert results[0]["hits"][0]["image"] == expected(workplace)[0][0]
    other = tiny.save_colour_model(tmp_path, patch_logits=False)
    with pytest.raises(ValueError, match="the model that made the index .* Received: "):
        search(index, query, model=other)


def test_a_model_with_two_heads_makes_and_searches_an_index(
    workplace, tmp_path, capsys
):
    images = keras.Input((16, 24, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    heads = {name: keras.layers.Dense(3, name=name)(x) for name in ("one", "two")}
    theirs, index = tmp_path / "theirs.keras", tmp_path / "index"
    keras.Model(images, heads).save(theirs)
    given = ["--head", "two"]
    made = ["index", theirs, workplace / "in", "--output", index, *given]
    assert cli.main([str(each) for each in made]) == 0
    query = ["search", str(index), str(workplace / "query.png"), "--top", "1"]
    assert cli.main([*query, *given]) == 0
    assert "red/" in capsys.readouterr().out
    assert cli.main(query) == 2
    assert "--head NAME" in capsys.readouterr().err


def test_bad_input_is_one_error(workplace, tmp_path):
    index, query = workplace / "index", workplace / "query.png"
    with pytest.raises(ValueError, match="top=0"):
        search(index, [query], top=0)
    with pytest.raises(FileNotFoundError, match="without index.json"):
        search(tmp_path, [query])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        search(index, [tmp_path / "nowhere.png"])
    with pytest.raises(CorruptImageError, match=r"bad\.png: not an image"):
        search(index, [query, workplace / "bad.png"])
    with pytest.raises(ValueError, match="a readable image"):
        search(index, [workplace / "bad.png"], on_corrupt="skip")
