"""What the README shows runs as it stands."""

import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(block):
    names = {}
    exec(block, names)
    return names


def model_of(block):
    return run(block)["model"]


def test_block_in_a_functional_model_trains():
    model = model_of(BLOCKS[0])
    images = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype("float32")
    labels = np.array([0, 1, 2, 9])
    history = model.fit(
        images, {"logits": labels, "patch_logits": labels}, epochs=5, verbose=0
    ).history
    assert history["loss"][-1] < history["loss"][0]
    assert len(BLOCKS[0].splitlines()) <= 12


def test_block_in_resnet50_has_the_stated_maps(capsys):
    model = model_of(BLOCKS[1])
    assert model.output["patch_logits"].shape == (None, 14, 14, 10)
    assert model.output["logits"].shape == (None, 10)


def test_quoted_results_are_those_that_the_program_wrote():
    written = [path.read_text() for path in sorted((ROOT / "results").glob("*.md"))]
    quoted = re.findall(
        r"^\| \w[\w.]+ \| \w+_accuracy \|.*$",
        README,
        re.MULTILINE,
    )
    assert len(quoted) >= 8
    for line in quoted:
        assert any(line in text.splitlines() for text in written), line


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
    names = run(BLOCKS[2])
    assert names["maps"].shape == (2, 96, 96)
    # The last feature map, named as the comment says.
    layer = "mobilenetv2_1.00_96/block_13_expand_relu"
    maps = names["grad_cam"](names["model"], names["images"], layer=layer)
    assert maps.shape == (2, 96, 96)


def test_a_classifier_of_patches_has_the_stated_outputs():
    model = model_of(BLOCKS[3])
    assert model.output["logits"].shape == (None, 5)
    assert model.output["boxes"].shape == (None, 4, 4)
    assert model.output["patch_probabilities"].shape == (None, 4, 5)
