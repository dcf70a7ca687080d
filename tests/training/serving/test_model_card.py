import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_attn.training.runs.state import Progress
from keras_attn.training.serving.model_card import model_card
from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)
SIGNATURES = {
    "serving_default": {
        "inputs": {"image_bytes": {"dtype": "string", "shape": [None]}},
        "outputs": {"logits": {"dtype": "float32", "shape": [None, 10]}},
    }
}


@pytest.fixture
def run(tmp_path):
    """A run of two epochs, the first of which was the better one."""
    run = tiny.generated_run(tmp_path / "run")
    accuracies = (0.75, 0.5)
    history = [
        {"epoch": epoch, "val_logits_accuracy": accuracy}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]
    progress = Progress(history, best=0.75, best_epoch=0)
    text = json.dumps(dataclasses.asdict(progress))
    np.savez(run.checkpoints / "last.npz", progress=np.array(text))
    return run


def card(run, checkpoint="best"):
    trained = load_trained(run.workdir, checkpoint)
    return model_card(trained, "shop", 7, SIGNATURES)


def test_a_run_tells_what_it_learned_from(run):
    (run.workdir / "card.md").write_text("# a\n\n- Commit: abc123\n- Versions: old\n")
    text = card(run)
    assert text.startswith("# shop, version 7\n")
    for line in (
        "- Method: class_embedding, rn26, baseline",
        "- Data set: generated, split",
        "- Licence of the data: ",
        "- Validation accuracy, best epoch: 75.00 %",
        "- Commit: abc123",
        "- Versions: old",
        "- Exported by commit: ",
        "- Model: best, after epoch 1",
    ):
        assert f"\n{line}" in text, line
    row = "| `serving_default` | `image_bytes` string ? | `logits` float32 ?x10 |"
    assert row in text
    assert "Only during training" in text


def test_measured_accuracy_is_that_of_this_very_model(run):
    told = {"dataset": "generated", "split": "test", "examples": 40, "accuracy": 0.625}
    evaluations = {"test": {"best": {**told, "epoch": 1}, "last": {**told, "epoch": 1}}}
    (run.workdir / "evaluation.json").write_text(json.dumps(evaluations))
    line = "- Accuracy, test split of generated: 62.50 % of 40 images"
    assert line in card(run)
    # The last epoch is the second: what was measured was an earlier one.
    assert line not in card(run, "last")


def test_a_file_tells_little(tmp_path):
    trained = load_trained(tiny.save_colour_model(tmp_path))
    text = model_card(trained, "colours", 1, None)
    assert "- Training: unknown" in text and "Its accuracy is unknown" in text
    assert "## Signatures" not in text
