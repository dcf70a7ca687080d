import re
import time

import keras
import numpy as np
import pytest

from keras_attn.training.evaluation.evaluate import evaluation_data
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.viewer.library import Library
from keras_attn.training.viewer.mistakes import SHOWN, Searches
from keras_attn.training.viewer.page import Viewer, make_app
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


def test_labels_that_are_wrong_or_missed(tmp_path):
    images = keras.Input((8, 8, 3))
    mean = keras.layers.GlobalAveragePooling2D()(
        keras.layers.Rescaling(1 / 255)(images)
    )
    dense = keras.layers.Dense(3, "sigmoid")
    theirs = keras.Model(images, dense(mean))
    dense.set_weights([10 * np.eye(3), np.full(3, -5.0)])
    theirs.save(tmp_path / "theirs.keras")
    data = tmp_path / "data"
    for name, colour in (("1", (255, 0, 0)), ("2", (0, 0, 255))):
        tiny.save_image(data / f"{name}.png", np.full((8, 8, 3), colour, "uint8"))
    (data / "labels.csv").write_text("file,label\n1.png,0\n2.png,0;2\n")
    models = Library([tmp_path / "theirs.keras"])
    search = waited(Searches(models, data).start(models.names[0]))
    assert search.state == "done", search.error
    assert (search.wrong, search.total, search.several_labels) == (1, 2, True)
    (mistake,) = search.mistakes
    assert (mistake.label, mistake.predicted) == (0, None)
    page = make_app(Viewer(models, Searches(models, data))).test_client()
    page.post("/mistakes", data={"model": models.names[0], "most": 5})
    for _ in range(600):
        text = page.get(f"/mistakes?model={models.names[0]}&most=5").text
        if "misses" in text:
            break
        time.sleep(0.1)
    assert "1 of 2 images" in text and "got a wrong label, or lack one" in text
    assert "taken for" not in text
