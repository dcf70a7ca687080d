import re
import time

import numpy as np
import pytest

from keras_attn.training.evaluation.evaluate import evaluation_data
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.viewer.library import Library
from keras_attn.training.viewer.mistakes import SHOWN, Searches
from tests.training import tiny_models as tiny


def waited(search):
    for _ in range(600):
        if not search.running:
            return search
        time.sleep(0.1)
    raise AssertionError(f"Still {search.state}")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    run = tiny.generated_run(tmp_path_factory.mktemp("mistakes") / "run")
    return Library([run.workdir], "last")


def test_the_worst_mistakes_of_some_images(library, monkeypatch):
    monkeypatch.setattr("keras_attn.training.viewer.mistakes.BATCH", 4)
    (name,) = library.names
    searches = Searches(library)
    assert searches.get(name, 10) is None
    search = waited(searches.start(name, 10))
    assert search.state == "done", search.error
    assert searches.start(name, 10) is search is searches.get(name, 10)
    found = evaluation_data(library.paths[name], checkpoint="last")
    # Evenly spread over the split, its first and last image among them.
    places = np.linspace(0, len(found.labels) - 1, 10).round().astype(int)
    assert len(found.labels) > 10 == search.total == search.done
    images, labels = found.images[places], found.labels[places]
    logits = outputs_of(library.load(name).model, images)["logits"]
    wrong = places[logits.argmax(axis=1) != labels]
    assert 0 < search.wrong == len(wrong)
    assert search.accuracy == pytest.approx(1 - len(wrong) / 10)
    assert len(search.mistakes) == min(SHOWN, len(wrong))
    probabilities = [each.probability for each in search.mistakes]
    assert probabilities == sorted(probabilities, reverse=True)
    told = {found.names[place] for place in wrong}
    assert set(search.names) <= told and len(search.names) == len(search.mistakes)
    for mistake in search.mistakes:
        np.testing.assert_array_equal(mistake.image, images[mistake.index])


def test_a_model_without_data_says_so(tmp_path):
    models = Library([tiny.save_colour_model(tmp_path)])
    search = waited(Searches(models).start(models.names[0]))
    assert search.state == "failed" and "--data PATH" in search.error
    # A folder of classes has them.
    tiny.colour_folder(tmp_path / "in")
    searches = Searches(models, tmp_path / "in")
    search = waited(searches.start(models.names[0]))
    assert (search.state, search.total, search.wrong) == ("done", 6, 0)


def test_the_gallery(library):
    pytest.importorskip("flask", reason="The viewer needs Flask (extra: view)")
    from keras_attn.training.viewer.page import Viewer, make_app

    searches = Searches(library)
    client = make_app(Viewer(library, searches)).test_client()
    (name,) = library.names
    assert (
        "images that it is most wrong about appear here" in client.get("/mistakes").text
    )
    sent = client.post("/mistakes", data={"model": name, "most": "10"})
    assert sent.status_code == 303
    waited(searches.get(name, 10))
    progress = f"/mistakes/progress?model={name}&most=10"
    assert client.get(progress).json["running"] is False
    assert client.get(progress.replace("10", "11")).status_code == 404
    page = client.get(sent.headers["Location"]).text
    search = searches.get(name, 10)
    assert f"{search.wrong} of 10 images of the test split" in page
    assert page.count("<figure>") == len(search.mistakes)
    # A mistake can be looked at.
    closer = re.findall(r'<a href="([^"]*)">Look closer', page)[0].replace("&amp;", "&")
    shown = client.get(closer).text
    predicted = library.load(name).class_names[search.mistakes[0].predicted]
    assert f"Answer: <strong>{predicted}</strong>" in shown
