"""Explainers fulfil the protocol, and a method may bring its own."""

import types

import numpy as np
import pytest

from keras_attn.training import methods
from keras_attn.training.explain import class_maps, evidence, masks, prompts, warps
from keras_attn.training.explain.explainers import BY_OUTPUT, explainer_of
from keras_attn.training.explain.explanation import Explanation
from keras_attn.training.explain.files import explain
from keras_attn.training.explain.protocol import Explainer
from keras_attn.training.explain.saliency import Saliency
from keras_attn.training.trained import Trained, load_trained
from tests.training import tiny_models as tiny

EXPLAINERS = (class_maps, evidence, masks, prompts, warps, Saliency("grad_cam"))


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_all_explainers_fulfil_the_protocol(explainer):
    assert isinstance(explainer, Explainer)
    # What is measured is the explainer's maps.
    assert explainer.measurable == hasattr(explainer, "maps")


def test_the_protocol_refuses_what_is_not_an_explainer():
    whole = {name: print for name in ("explain", "picture", "sheet")}
    assert isinstance(types.SimpleNamespace(measurable=False, **whole), Explainer)
    assert not isinstance(types.SimpleNamespace(**whole), Explainer)
    del whole["sheet"]
    assert not isinstance(types.SimpleNamespace(measurable=False, **whole), Explainer)


@pytest.mark.parametrize(
    "outputs, wanted",
    [
        (("logits", "evidence_16", "patch_logits"), evidence),
        (("attention_map", "mask_1"), masks),
        (("logits", "fields"), warps),
        (("logits", "patch_logits"), class_maps),
        (("logits", "prompt_attention"), prompts),
        (("logits", "embedding"), None),
    ],
)
def test_a_model_is_explained_by_its_outputs(outputs, wanted):
    model = types.SimpleNamespace(output=dict.fromkeys(outputs))
    assert explainer_of(Trained(model, None)) is wanted
    assert set(BY_OUTPUT.values()) == set(EXPLAINERS[:5])


class Grey:
    """Explains an image by its brightness."""

    measurable = False

    def explain(self, subject, images, titles=None):
        probabilities = subject.probabilities(images)
        return Explanation.of_images(subject, images, titles, probabilities)

    def picture(self, explanation, labels):
        return explanation.image, labels

    def sheet(self, explanations, rows):
        return len(explanations), rows


def test_a_method_brings_its_explainer(tmp_path, monkeypatch):
    own, written = Grey(), {}
    assert isinstance(own, Explainer)
    run = tiny.generated_run(tmp_path / "run")
    method = methods.method_of(run.recipe)
    monkeypatch.setattr(method, "explainer", own, raising=False)
    assert explainer_of(load_trained(run.workdir)) is own

    def save(page, path):
        written[path.name] = page

    monkeypatch.setattr("keras_attn.training.drawing.save", save)
    file = tiny.save_image(tmp_path / "x.png", np.zeros((32, 32, 3), "uint8"))
    explain(run.workdir, [file], tmp_path / "out", top=1)
    assert set(written) == {"x.png", "overview.png"}
    assert written["overview.png"][0] == 1
    assert written["x.png"][0].shape == (32, 32, 3)
