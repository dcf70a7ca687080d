"""Labels that do not exclude each other, against loops over thresholds."""

import json

import keras
import numpy as np
import pytest

from keras_attn.training.cli import main
from keras_attn.training.evaluation.labels import score_labels
from keras_attn.training.runs.outputs import sigmoid
from tests.training import tiny_models as tiny


def test_scores_are_those_of_every_threshold():
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, 4)).round(1)
    truth = random.random((40, 4)) < 0.3
    truth[:, 3] = False
    result = score_labels(logits, truth)
    precisions = []
    for column in range(3):
        total, before, best = 0.0, 0.0, 0.0
        right = truth[:, column]
        for threshold in sorted(set(logits[:, column]))[::-1]:
            found = logits[:, column] >= threshold
            precision = (found & right).sum() / found.sum()
            recall = (found & right).sum() / right.sum()
            total += (recall - before) * precision
            before = recall
            best = max(best, 2 * (found & right).sum() / (found.sum() + right.sum()))
        each = result["labels"][column]
        assert each["average_precision"] == pytest.approx(total)
        assert each["best_f1"] == pytest.approx(best)
        chosen = sigmoid(logits[:, column]) >= each["threshold"]
        shared = 2 * (chosen & right).sum() / (chosen.sum() + right.sum())
        assert each["best_f1"] == pytest.approx(shared)
        precisions.append(total)
    assert result["mean_average_precision"] == pytest.approx(np.mean(precisions))
    assert result["labels"][3]["average_precision"] is None
    found = logits >= 0
    assert result["exact"] == pytest.approx((found == truth).all(1).mean())
    shares = np.where(truth, sigmoid(logits), 1 - sigmoid(logits))
    assert result["binary_cross_entropy"] == pytest.approx(-np.log(shares).mean())


def test_command_reads_several_labels_of_an_image(tmp_path, capsys):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    dense = keras.layers.Dense(3, "sigmoid")
    model = keras.Model(inputs, dense(x))
    dense.set_weights([10 * np.eye(3), np.full(3, -5.0)])
    model.save(tmp_path / "theirs.keras")
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    data = tmp_path / "data"
    data.mkdir()
    rows = ["file,label"]
    for name, colour in {
        "red": (255, 0, 0),
        "red;green": (255, 255, 0),
        "": (0, 0, 0),
        "green": (0, 0, 255),
    }.items():
        file = f"{name.replace(';', '_') or 'none'}.png"
        tiny.save_image(data / file, np.full((8, 8, 3), colour, "uint8"))
        rows.append(f"{file},{name}")
    (data / "labels.csv").write_text("\n".join(rows))
    arguments = ["evaluate", str(tmp_path / "theirs.keras"), "--data", str(data)]
    arguments += ["--classes", str(tmp_path / "names.txt")]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["labels"]["red"]["average_precision"] == 1
    assert result["labels"]["green"]["f1"] == pytest.approx(2 / 3)
    assert result["labels"]["blue"]["images"] == 0
    assert result["exact"] == 0.75
    assert main(arguments) == 0
    assert "mean average precision" in capsys.readouterr().out
    assert main(["report", *arguments[1:]]) == 2
    assert "exclude each other" in capsys.readouterr().err
