import dataclasses

import pytest

from keras_attn.training.retrieval.index import index_folder
from keras_attn.training.viewer.neighbours import Neighbours
from tests.training import tiny_models as tiny
from tests.training.viewer.tiny import upload

RED, GREEN = (220, 10, 0), (0, 180, 0)


@pytest.fixture
def index(tmp_path):
    pytest.importorskip("faiss")
    model = tiny.save_colour_model(tmp_path)
    for name, colour in {"in/red.png": RED, "in/b/green.png": GREEN}.items():
        tiny.save_image(tmp_path / name, tiny.plain_image(*colour))
    index_folder(model, tmp_path / "in", tmp_path / "index")
    return tmp_path / "index"


def test_the_nearest_first_and_nothing_from_elsewhere(index, tmp_path, monkeypatch):
    neighbours = Neighbours(index)
    query = upload(tiny.plain_image(*RED))
    section = neighbours.section(query)
    captions = [each.caption for each in section.small]
    assert captions[0] == "red.png: 1.000" and captions[1].startswith("b/green.png: 0.")
    assert section.small[1].description == "The image b/green.png."
    # A file that is gone, and one outside of the folder, are left out.
    tiny.save_image(tmp_path / "secret.png", tiny.plain_image(*RED))
    hits = [("../secret.png", 1.0), ("gone.png", 0.9), ("red.png", 0.8)]
    monkeypatch.setattr(type(neighbours.searcher), "search", lambda *given: [hits])
    (only,) = neighbours.section(query).small
    assert only.caption == "red.png: 0.800"
    # No address that an index names is opened.
    neighbours.searcher = dataclasses.replace(neighbours.searcher, images="s3://b/in")
    section = neighbours.section(query)
    assert not section.small and "s3://b/in: ../secret.png: 1.000" in section.note


def test_what_is_missing_is_told(index, tmp_path):
    with pytest.raises(FileNotFoundError):
        Neighbours(tmp_path / "none")
    (tmp_path / "colours.keras").unlink()
    section = Neighbours(index).section(upload(tiny.plain_image()))
    assert "cannot be searched" in section.note and not section.small
