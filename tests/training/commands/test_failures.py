"""Every command with what people give it by mistake: one line, and nothing is lost."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import resource
import tempfile
import zipfile

import keras
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keras_attn.early_exit.policy import fit_exit_policy
from keras_attn.pipelines.files import UNPACKED_BYTES
from keras_attn.training import cli, demo
from keras_attn.training.methods import class_embedding
from keras_attn.training.recipes.registry import DEFAULT, get_recipe
from keras_attn.training.retrieval.index import index_folder
from tests.pipelines.map_models import grey_model
from tests.training import tiny_models as tiny
from tests.training.tiny import tiny_model

NOBODY = 65534
SHORT = dataclasses.replace(get_recipe(DEFAULT), examples=120)
# Bytes of a file on a full disk.
LIMIT = 20

# Commands with a model; {model}, {image}, {images} and {out} are paths.
WITH_MODEL = {
    "evaluate": "evaluate {model} --data {images}",
    "predict": "predict {model} {image}",
    "report": "report {model} --data {images} --output {out}/r.html",
    "explain": "explain {model} {image} --output {out}/e",
    "localize": "localize {model} {image} --output {out}/l",
    "masks": "masks {model} generated --output {out}/m",
    "index": "index {model} {images} --output {out}/i",
    "retrieval": "retrieval {model} {json} --images {images}",
    "bulk": "bulk predict {model} {images} --output {out}/b",
    "export": "export {model} --name n --output {out}/s",
    "view": "view {model} --no-browser --port 0",
    "table": "exit-policy table {model} --resized {model} --output {out}/t.npz",
    "model": "exit-policy model {model} --resized {model} --policy {policy} --budget 1 "
    "--output {out}/m.keras",
    "initial": "train generated_rn26_baseline --set examples=120 initial={model} "
    "--workdir {out}/w",
    "resized": "exit-policy table {localizer} --resized {model} --output {out}/t.npz",
    "adopt": "adopt {model} --output {out}/a.keras",
    "places": "places {model}",
    "finetune": "finetune {images} --from {model} --workdir {out}/w",
    "compare": "compare {images} --from {model} --workdir {out}/w --results {out}/r",
    "map_model": "train cifar10_resnet8_a0.5 --set map_model={model} examples=120 "
    "dataset=generated --workdir {out}/w",
}
# Commands with another file, which is missing or damaged.
WITH_FILE = {
    "fit": "exit-policy fit {file} --output {out}/p.json",
    "policy": "exit-policy evaluate {file} {file}",
    "judge": "exit-policy judge {file} --results {out}",
    "search": "search {file} {image}",
    "ground_truth": "retrieval {good} {file} --images {images}",
    "data": "data folder --data {file} --output {out}/d.png",
    "check": "data {file} --check --output {out}/d.html",
    "pack": "data pack {file} --output {out}/s",
    "train": "train generated_rn26_baseline --set dataset=folder --data {file} "
    "--workdir {out}/w",
    "own": "train --data {file} --workdir {out}/w",
    "finetune": "finetune {file} --from {square} --workdir {out}/w",
    "compare": "compare {file} --from {square} --workdir {out}/w --results {out}/r",
    "adopt": "adopt {good} --images {file} --output {out}/a.keras",
    "checked": "adopt {good} --classes {file} --output {out}/a.keras",
    "tune": "tune generated_rn26_baseline --set dataset=folder --data {file} "
    "--workdir {out}/w",
    "reproduce": "reproduce class_embedding_table1_cifar10 --data {file} "
    "--workdir {out}/w --results {out}/r",
    "serve": "serve {file} --port 0 --rest-port 0",
    "promote": "promote n --output {file}",
    "images": "predict {good} {file}",
    "explain": "explain {good} {file} --output {out}/e",
    "localize": "localize {localizer} {file} --output {out}/l",
    "evaluate": "evaluate {good} --data {file}",
    "report": "report {good} --data {file} --output {out}/r.html",
    "masks": "masks {maps} {file} --output {out}/m",
    "index": "index {good} {file} --output {out}/i",
    "whitening": "retrieval {good} {json} --images {images} --whitening {file}",
    "table": "exit-policy table {localizer} --resized {good} --data {file} "
    "--output {out}/t.npz",
    "model": "exit-policy model {localizer} --resized {good} --policy {file} "
    "--budget 1 --output {out}/m.keras",
    "request": "request http://127.0.0.1:9/v1/models/m {file} --retries 0",
    "summary": "summary cub200_2011_vgg19_none --set dataset=folder --data {file}",
    "examples": "view {good} --examples {file} --no-browser --port 0",
    "classes": "predict {good} {image} --classes {file}",
    "bulk": "bulk predict {good} {file} --output {out}/b",
    "status": "bulk status {file}",
    "merge": "bulk merge {file}",
    "shown_index": "view {good} --index {file} --no-browser --port 0",
}
# Commands that write, with {into} in place of the folder.
WRITING = {
    "report": "report {good} --quiet --data {images} --output {into}/r.html",
    "explain": "explain {good} {image} --output {into}/e",
    "localize": "localize {localizer} {image} --output {into}/l",
    "index": "index {good} {images} --output {into}/i",
    "export": "export {good} --name n --output {into}/s",
    "bulk": "bulk predict {good} {images} --output {into}/b",
    "data": "data folder --data {images} --output {into}/d.png",
    "train": "train generated_rn26_baseline --set examples=120 --workdir {into}/w",
    "tune": "tune generated_rn26_baseline --set examples=120 --workdir {into}/w "
    "--search batch_size=8,16",
    "reproduce": "reproduce class_embedding_table1_generated --set examples=120 "
    "--workdir {into}/w --results {into}",
    "demo": "demo --workdir {into}/w",
    "masks": "masks {maps} {images} --output {into}/m",
    "promote": "promote n --output {into}",
    "search": "search {searched} {image} --output {into}/s",
    "fit": "exit-policy fit {table} --output {into}/p.json",
    "judge": "exit-policy judge {table} --results {into}/r --seeds 1",
    "picture": "exit-policy evaluate {policy} {table} --picture {into}/p.png",
    "table": "exit-policy table {patches} --resized {square} --data {photos} "
    "--split train --output {into}/t.npz",
    "model": "exit-policy model {patches} --resized {square} --policy {exits} "
    "--budget 9 --output {into}/m.keras",
    "check": "data {images} --quiet --check --output {into}/d.html",
    "pack": "data pack {images} --quiet --output {into}/s",
    "adopt": "adopt {good} --output {into}/a.keras",
    "finetune": "finetune {photos} --from {square} --epochs 1 --quiet "
    "--workdir {into}/w",
    "compare": "compare {photos} --from {square} --blocks none cbam --epochs 1 "
    "--quiet --seeds 1 --workdir {into}/w --results {into}",
}


def missing(path):
    pass


def empty(path):
    path.touch()


def text(path):
    path.write_text("# Notes\n" * 99)


def truncated(path):
    tiny.save_colour_model(path.parent).rename(path)
    path.write_bytes(path.read_bytes()[:-300])


def damaged(path):
    """Bytes of the weights are changed, those of the directory are not."""
    tiny.save_colour_model(path.parent).rename(path)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 4, len(content) // 2, 40):
        content[place] ^= 255
    path.write_bytes(content)


def other_kind(path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)


def detector(path):
    image = keras.Input((16, 16, 3))
    boxes = keras.layers.Conv2D(4, 4, 4)(image)
    scores = keras.layers.Conv2D(3, 4, 4)(image)
    keras.Model(image, {"boxes": boxes, "scores": scores}).save(path)


def words(path):
    given = keras.Input((9,), dtype="int32")
    x = keras.layers.Embedding(7, 4)(given)
    x = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(x))
    keras.Model(given, x).save(path)


def own_code(path):
    keras.Sequential([keras.Input((16, 16, 3)), Own()]).save(path)


class Own(keras.layers.Layer):
    def call(self, images):
        return keras.ops.mean(images, (1, 2))


def folder(path):
    path.mkdir()


def other_json(path):
    path.write_text('{"units": [1, 2]}')


def with_config(path, config):
    tiny.save_colour_model(path.parent).rename(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = config
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def deep(path):
    with_config(path, b"[" * 200_000)


def no_config(path):
    with_config(path, b'{"class_name": "Functional", "config": {"layers": 3}}')


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("config.json", "w") as file:
            for _ in range(UNPACKED_BYTES >> 20):
                file.write(bytes(2**20))
            file.write(bytes(2**23))


def huge_array(path):
    """An array of 8 TB, as its header has it."""
    header = io.BytesIO()
    description = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, description)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("confidence", "correct", "cost", "progress"):
            archive.writestr(f"{name}.npy", header.getvalue())


def broken_run(path):
    path.mkdir()
    (path / "recipe.json").write_text("[" * 200_000)


def broken_state(path):
    tiny.generated_run(path)
    huge_array(path / "checkpoints" / "last.npz")
    for which in ("best", "last"):
        (path / "checkpoints" / f"{which}.keras").write_bytes(b"PK\5\6" + bytes(18))


# All models are tried with one command, all commands with some models.
MODELS = [missing, empty, text, truncated, damaged, other_kind, folder, deep]
MODELS += [no_config, bomb, broken_run, broken_state, detector, words, own_code]
FILES = [missing, text, truncated, other_json, huge_array]
CASES = [("predict", make) for make in MODELS]
CASES += [(name, make) for name in WITH_MODEL for make in (truncated, other_kind)]
CASES.remove(("view", other_kind))
FILE_CASES = [(name, make) for name in ("fit", "policy") for make in FILES]
FILE_CASES += [(name, make) for name in WITH_FILE for make in (missing, text)]
FILE_CASES.remove(("examples", text))


@pytest.fixture(scope="module")
def paths():
    """Paths of `given`, which nobody can read, too: see `read_only`."""
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        yield given(pathlib.Path(root))


def given(root):
    """Dict of the paths of good models, images and files below a folder."""
    random = np.random.default_rng(0)
    np.savez(
        root / "table.npz",
        confidence=random.random((30, 5)),
        correct=random.random((30, 5)) > 0.5,
        cost=np.arange(1.0, 6.0),
    )
    entry = {"bbx": [0, 0, 9, 9], "easy": [0], "hard": [], "junk": []}
    truth = {"imlist": ["red/0"], "qimlist": ["red/1"], "gnd": [entry]}
    (root / "a.json").write_text(json.dumps(truth))
    fit_exit_policy(**np.load(root / "table.npz")).save(root / "policy.json")
    model = tiny.save_colour_model(root)
    images = tiny.colour_folder(root / "images")
    index_folder(model, images, root / "index")
    exits = {
        "confidence": random.random((30, 3)),
        "correct": random.random((30, 3)) > 0.5,
    }
    fit_exit_policy(**exits, cost=[1.0, 2.0, 3.0]).save(root / "exits.json")
    tiny.patch_run(root / "patches")
    grey_model(16, 24, 4).save(root / "maps.keras")
    tiny.colour_model(height=16, width=16).save(root / "square.keras")
    return {
        "policy": root / "policy.json",
        "exits": root / "exits.json",
        "patches": root / "patches",
        "good": model,
        "square": root / "square.keras",
        "maps": root / "maps.keras",
        "searched": root / "index",
        "localizer": tiny.save_localizer(root),
        "images": images,
        "image": root / "images" / "red" / "0.png",
        "photos": tiny.colour_folder(root / "photos", 8),
        "json": root / "a.json",
        "table": root / "table.npz",
    }


def fails(capsys, command, paths, codes=(1, 2)):
    """Runs a command; its one line, the only one."""
    words = [word.format(**paths) for word in command.split()]
    code = cli.main(words)
    out, errors = capsys.readouterr()
    lines = errors.strip().splitlines()
    assert code in codes, (code, out, errors)
    assert len(lines) == 1, errors
    assert len(lines[0]) < 1000
    return lines[0]


def _named(case):
    return getattr(case, "__name__", case)


@pytest.mark.parametrize(("name", "make"), CASES, ids=_named)
def test_wrong_models(tmp_path, paths, capsys, name, make):
    model = tmp_path / "given.keras"
    make(model)
    given = {**paths, "model": model, "out": tmp_path}
    line = fails(capsys, WITH_MODEL[name], given)
    assert line.startswith("error: ")
    assert "given.keras" in line
    assert [path.name for path in tmp_path.iterdir()] in ([], ["given.keras"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"0": "cat"}', "a list of texts"),
        ("[1, 2]", "a list of texts"),
        ("[" * 10**5, "nested too deeply"),
        ('["cat"', "delimiter"),
    ],
)
def test_wrong_names_of_classes(tmp_path, paths, capsys, content, words):
    (tmp_path / "names.json").write_text(content)
    command = "predict {good} {image} --classes {out}/names.json"
    line = fails(capsys, command, {**paths, "out": tmp_path})
    assert "names.json" in line and words in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--size 0", "positive numbers of pixels"),
        ("--size 1 2 3", "one or two"),
        ("--pixels 0..300", "-1..1, imagenet"),
    ],
)
def test_wrong_options_of_models(paths, capsys, options, words):
    assert words in fails(capsys, f"predict {{good}} {{image}} {options}", paths)


def test_models_that_need_more_memory_than_there_is(tmp_path, paths, capsys):
    keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.UpSampling2D(10**7),
            keras.layers.GlobalMaxPooling2D(),
        ]
    ).save(tmp_path / "up.keras")
    command = "predict {out}/up.keras {image}"
    given = {**paths, "out": tmp_path}
    words = [word.format(**given) for word in command.split()]
    assert cli.main(words) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("error: Not enough memory")
    )


def test_unused_options_are_named(paths, capsys):
    words = ["predict", str(paths["good"]), str(paths["image"]), "--pixels", "0..1"]
    assert cli.main(words) == 0
    assert "has its own: --pixels unused" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["adopt {model}", "finetune {images} --from {model}"]
)
def test_an_output_is_chosen_as_the_error_says(tmp_path, paths, capsys, command):
    image = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    scores = {name: keras.layers.Dense(2)(x) for name in ("shape", "color")}
    keras.Model(image, scores).save(tmp_path / "two.keras")
    given = {**paths, "model": tmp_path / "two.keras", "out": tmp_path}
    if command.startswith("adopt"):
        command += " --output {out}/a.keras"
    line = fails(capsys, command, given)
    assert "--head NAME" in line and "color, shape" in line
    assert "output='size'" in fails(capsys, f"{command} --head size", given)


def test_addresses_of_models(paths, capsys):
    line = fails(capsys, "predict http://127.0.0.1:9/m.keras {image}", paths)
    assert "hf://" in line and "http://127.0.0.1:9/m.keras" in line


@pytest.mark.parametrize(("name", "make"), FILE_CASES, ids=_named)
def test_wrong_files(tmp_path, paths, capsys, name, make):
    file = tmp_path / "given.npz"
    make(file)
    line = fails(capsys, WITH_FILE[name], {**paths, "file": file, "out": tmp_path})
    assert line.startswith("error: ")


@contextlib.contextmanager
def file_in_place(folder, monkeypatch):
    folder.rmdir()
    folder.touch()
    yield


@contextlib.contextmanager
def read_only(folder, monkeypatch):
    """For root, too, who becomes nobody meanwhile."""
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@contextlib.contextmanager
def full_disk(folder, monkeypatch):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def interrupt(folder, monkeypatch):
    """Ctrl-C when the first file gets its name, or the first picture is drawn."""

    def press(*args, **options):
        raise KeyboardInterrupt

    for owner, name in (
        (os, "replace"),
        (os, "rename"),
        (FigureCanvasAgg, "print_png"),
    ):
        monkeypatch.setattr(owner, name, press)
    yield


OBSTACLES = {
    file_in_place: (2, "into"),
    read_only: (2, "(?=.*Permission denied).*into"),
    full_disk: (2, "too large.*Free some space"),
    interrupt: (130, "^Interrupted"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=_named)
@pytest.mark.parametrize("name", WRITING)
def test_obstacles_to_writing(paths, capsys, monkeypatch, name, obstacle):
    code, words = OBSTACLES[obstacle]
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        root.chmod(0o755)
        monkeypatch.chdir(root)
        into = root / "into"
        into.mkdir()
        if name == "promote" and obstacle is not file_in_place:
            served = into / "n" / "1" / "saved_model.pb"
            served.parent.mkdir(parents=True)
            served.touch()
        monkeypatch.setattr(demo, "get_recipe", lambda name: SHORT)
        monkeypatch.setattr(class_embedding, "build_model", tiny_model)
        with obstacle(into, monkeypatch):
            line = fails(capsys, WRITING[name], {**paths, "into": into}, [code])
        assert re.search(words, line)
        files = [path for path in into.rglob("*") if path.is_file()]
        if obstacle is full_disk:
            assert not [path for path in files if path.stat().st_size == LIMIT]
