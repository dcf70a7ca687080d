"""The code and the commands of the README run as they stand."""

import collections
import csv
import itertools
import pathlib
import re

import keras
import numpy as np
import pytest

import keras_attn
from keras_attn import __version__

ROOT = pathlib.Path(__file__).parent.parent


def blocks(name):
    text = (ROOT / name).read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


README = (ROOT / "README.md").read_text()
EXPLAIN, INSERT = blocks("README.md")
INSERT_PAGE = blocks("docs/insert.md")
FUNCTIONAL = INSERT_PAGE[0] + INSERT_PAGE[2]
PATCHES = blocks("docs/patches.md")[1]


def run(block):
    names = {}
    exec(block, names)
    return names


def model_of(block):
    return run(block)["model"]


def test_it_has_one_page_and_the_size_of_one():
    assert len(README.splitlines()) <= 120


def test_citation_has_the_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_block_in_a_functional_model_trains():
    model = model_of(FUNCTIONAL)
    images = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype("float32")
    labels = np.array([0, 1, 2, 9])
    history = model.fit(
        images, {"logits": labels, "patch_logits": labels}, epochs=5, verbose=0
    ).history
    assert history["loss"][-1] < history["loss"][0]
    assert len(INSERT_PAGE[2].splitlines()) <= 12


def test_blocks_by_name_in_a_network_with_such_a_layer(capsys):
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, 2)(images)
    x = keras.layers.Conv2D(4, 3, name="block5c_add")(x)
    names = {"insert": keras_attn.insert, "backbone": keras.Model(images, x)}
    exec(INSERT_PAGE[1], names)
    assert names["model"].get_layer("block5c_add_squeeze_excitation").ratio == 8
    assert "['block5c_add']" in capsys.readouterr().out


def test_block_in_resnet50_has_the_stated_maps():
    model = model_of(INSERT)
    assert model.output["patch_logits"].shape == (None, 14, 14, 10)
    assert model.output["logits"].shape == (None, 10)


def effects(path):
    """Mean paired differences of accuracies, with 95 % intervals, of all two rows."""
    t = pytest.importorskip("scipy.stats").t
    found = collections.defaultdict(dict)
    with open(path, newline="") as file:
        for each in csv.DictReader(file):
            if each["metric"].endswith("_accuracy"):
                found[each["row"]][each["seed"]] = float(each["value"])
    for row, other in itertools.permutations(found, 2):
        seeds = found[row].keys() & found[other].keys()
        differences = [found[row][seed] - found[other][seed] for seed in seeds]
        mean, count = np.mean(differences), len(differences)
        half = t.ppf(0.975, count - 1) * np.std(differences, ddof=1) / count**0.5
        yield f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


PAGES = ["README.md", *(f"docs/methods/{p.name}" for p in ROOT.glob("docs/methods/*"))]


@pytest.mark.parametrize("page", PAGES)
def test_quoted_effects_are_those_of_the_results(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\[([-+]\d[^\]]*)\]\([./]*(results/\w+)\.md\)", text)
    assert len(links) >= 2
    for quoted, path in links:
        assert quoted in effects(ROOT / f"{path}.csv"), path


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()


def test_commands_and_options_exist():
    from keras_attn.training.cli import parser

    commands = re.sub(r"\\\n\s+", "", README)
    lines = re.findall(r"^keras-attn (.*?)(?:\s+#.*)?$", commands, re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        assert parser().parse_args(line.split())


def test_a_model_used_as_a_layer_is_explained():
    names = run(EXPLAIN)
    assert names["maps"].shape == (2, 96, 96)
    # The last feature map, named as the comment says.
    layer = "mobilenetv2_1.00_96/block_13_expand_relu"
    maps = names["grad_cam"](names["model"], names["images"], layer=layer)
    assert maps.shape == (2, 96, 96)


def test_a_classifier_of_patches_has_the_stated_outputs():
    model = model_of(PATCHES)
    assert model.output["logits"].shape == (None, 5)
    assert model.output["boxes"].shape == (None, 4, 4)
    assert model.output["patch_probabilities"].shape == (None, 4, 5)
