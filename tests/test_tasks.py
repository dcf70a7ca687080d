"""The pages by task run from the first command to the last, on a tiny network."""

import pathlib
import re
import shlex

import keras
import numpy as np
import pytest

from keras_attn.training import cli
from keras_attn.training.bulk import local
from tests.training import tiny_models as tiny
from tests.training.bulk import jobs

DOCS = pathlib.Path(__file__).parent.parent / "docs"
START = (DOCS / "start.md").read_text()
TASKS = re.findall(r"^\| .*\]\((\w+)\.md\)", START, re.MULTILINE)
CLASSES, EACH, SIZE = ("blue", "green", "red"), 5, 32
# A shorter training, as long as nothing else changes.
SHORTER = {"finetune": ["--epochs", "1"]}
# Pages that need no classes, and do much with each image.
ANY_FOLDER = ("look", "served")
ADDRESS = "http://localhost:8501"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Networks, names and photographs, with which the pages begin."""
    folder = tmp_path_factory.mktemp("tasks")
    random = np.random.default_rng(0)
    for name, channel in zip(CLASSES, (2, 1, 0), strict=True):
        for number in range(EACH):
            pixels = random.integers(0, 90, (40, 48, 3), dtype=np.uint8)
            pixels[8:30, 8:30, channel] += 120
            tiny.save_image(folder / "photos" / name / f"{number}.jpg", pixels)
        tiny.save_image(folder / "few" / f"{name}.jpg", pixels)
    (folder / "names.txt").write_text("\n".join(CLASSES))
    for name, width in (("net", 8), ("small", 4)):
        images = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Rescaling(1 / 255)(images)
        for stride in (4, 1):
            x = keras.layers.Conv2D(width, 3, stride, "same", activation="relu")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dense(len(CLASSES), activation="softmax")(x)
        keras.Model(images, x).save(folder / f"{name}.keras")
    return folder


def steps(page):
    """Blocks of a page, in order: `(language, text)`."""
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(r"^```(sh|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


class Runner:
    """Runs the blocks of a page; what serves ends with the page."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.names, self.open, self.address = {}, [], ADDRESS

    def sh(self, text):
        for line in text.replace("\\\n", "").splitlines():
            words = shlex.split(line.replace(ADDRESS, self.address), comments=True)
            assert words[0] == "keras-attn", line
            if words[1] == "serve":
                self.serve(words[2])
            elif words[1] == "view":
                self.view(words[1:])
            else:
                assert cli.main(words[1:] + SHORTER.get(words[1], [])) == 0, line

    def python(self, text):
        exec(text, self.names)

    def serve(self, folder):
        pytest.importorskip("tensorflow_serving")
        from tests.training.serving.server.tiny import running

        server = running(folder)
        self.address = f"http://127.0.0.1:{server.__enter__().server.rest_port}"
        self.open.append(server)

    def view(self, words):
        pytest.importorskip("flask")
        from keras_attn.training.viewer import server

        seen = []
        self.monkeypatch.setattr(server, "view", lambda *a, **k: seen.append((a, k)))
        assert cli.main(words) == 0
        assert len(seen) == 1

    def close(self):
        for server in self.open:
            server.__exit__(None, None, None)


@pytest.mark.parametrize("page", TASKS)
def test_a_page_runs_from_top_to_bottom(page, given, tmp_path, monkeypatch):
    for path in given.iterdir():
        (tmp_path / path.name).symlink_to(path)
    if page in ANY_FOLDER:
        (tmp_path / "photos").unlink()
        (tmp_path / "photos").symlink_to(given / "few")
    monkeypatch.chdir(tmp_path)
    # Workers of a bulk job in this process.
    monkeypatch.setattr(local, "run_local", lambda queue, _: jobs.compute(queue.plan))
    # A single step takes less time than tracing it; exports are traced.
    eagerly = not any("export" in text for _, text in steps(page))
    tf = pytest.importorskip("tensorflow")
    tf.config.run_functions_eagerly(eagerly)
    runner = Runner(monkeypatch)
    try:
        for language, text in steps(page):
            getattr(runner, language)(text)
    finally:
        runner.close()
        tf.config.run_functions_eagerly(False)


def test_there_is_a_page_for_every_task():
    assert len(TASKS) == 5
    assert all(len(steps(page)) >= 3 for page in TASKS)
