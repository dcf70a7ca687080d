"""Labels that do not exclude each other, against loops over thresholds."""

import json

import keras
import numpy as np
import pytest

from keras_attn.training.cli import main
from keras_attn.training.evaluation.labels import label_calibration, score_labels
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


def labels_model(bias=-5.0):
    """Red, green and blue from their mean on, each alone."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    dense = keras.layers.Dense(3, "sigmoid")
    model = keras.Model(inputs, dense(x))
    dense.set_weights([10 * np.eye(3), np.full(3, bias)])
    return model


def labelled_images(tmp_path):
    """Arguments of commands: a model, its data and its names."""
    labels_model().save(tmp_path / "theirs.keras")
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
    arguments = [str(tmp_path / "theirs.keras"), "--data", str(data)]
    return [*arguments, "--classes", str(tmp_path / "names.txt")]


def test_command_reads_several_labels_of_an_image(tmp_path, capsys):
    arguments = ["evaluate", *labelled_images(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["labels"]["red"]["average_precision"] == 1
    assert result["labels"]["green"]["f1"] == pytest.approx(2 / 3)
    assert result["labels"]["blue"]["images"] == 0
    assert result["exact"] == 0.75
    assert main(arguments) == 0
    assert "mean average precision" in capsys.readouterr().out


def test_report_of_labels(tmp_path):
    page = tmp_path / "page.html"
    arguments = ["report", *labelled_images(tmp_path), "--output", str(page)]
    assert main(arguments) == 0
    text = page.read_text()
    assert "Confusion" not in text and "Precision over recall" in text
    # The label that the blue image has, and the one that it should not have.
    assert "Misses <strong" in text and ">green</strong>, which got 0.7 %" in text
    assert ">blue</strong> with 99.3 %, which it is not" in text
    assert text.count('class="why"') == 2


def test_thresholds_travel_with_the_model(tmp_path, capsys):
    model, data, path, *names = labelled_images(tmp_path)
    known = tmp_path / "thresholds.json"
    known.write_text(json.dumps({"red": 0.999, "green": 0.001, "blue": 0.5}))
    adopted = str(tmp_path / "adopted.keras")
    given = ["--thresholds", str(known)]
    assert main(["adopt", model, *names, *given, "--output", adopted]) == 0
    capsys.readouterr()
    image = f"{path}/red.png"
    found = []
    for each in ([model, *names], [adopted], [model, *names, "--thresholds", "0.999"]):
        assert main(["predict", each[0], image, *each[1:], "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)[0]["labels"])
    assert found == [["red"], ["green"], []]
    assert main(["evaluate", adopted, data, path, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["labels"]["red"]["f1"] == 0
    assert result["own_thresholds"]["red"] == 0.999
    softmax = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    softmax.add(keras.layers.Dense(3, "softmax"))
    softmax.save(model)
    for value in ("0.3", str(tmp_path / "names.txt"), "1.5"):
        wrong = ["adopt", model, "--thresholds", value, "--output", adopted]
        assert main(wrong) == 2
        assert capsys.readouterr().err.strip().count("\n") == 0


def test_calibration_of_labels_equals_a_loop_over_pairs():
    random = np.random.default_rng(1)
    logits = random.normal(size=(50, 3)) * 2
    truth = random.random((50, 3)) < sigmoid(logits) ** 2
    together, errors = label_calibration(logits, truth)
    gaps = []
    for columns in ([0], [1], [2], [0, 1, 2]):
        p, t = sigmoid(logits[:, columns]).ravel(), truth[:, columns].ravel()
        gap = 0.0
        for low in np.arange(15) / 15:
            inside = (p > low) & (p <= low + 1 / 15)
            if inside.any():
                gap += abs(p[inside].mean() - t[inside].mean()) * inside.sum() / len(p)
        gaps.append(gap)
    assert [*errors, together.error] == pytest.approx(gaps)
