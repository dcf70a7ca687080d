"""The method's path from images to a classifier of patches, with tiny networks."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_attn.layers import BranchDecision, ClassEvidence
from keras_attn.ops.patches import crop_patches
from keras_attn.training import cli
from keras_attn.training.data.load import load_data, load_source_of
from keras_attn.training.evaluation import evaluate
from keras_attn.training.fit.train import train, trainable_model
from keras_attn.training.methods import anchornet as method
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.outputs import outputs_of, softmax
from keras_attn.training.trained import load_trained

SIZES = (6, 10)
RECIPE = {
    "name": "tiny",
    "method": "anchornet",
    "dataset": "generated",
    "split": "official",
    "image_size": 32,
    "examples": 130,
    "batch_size": 12,
    "epochs": 1,
    "optimizer": "adam",
    "augmentation": "none",
    "deterministic": False,
    "max_patches": (3, 2),
    "coverage": (0.5, 1.0),
}


def tiny_anchornet(input_tensor, num_classes, weight_decay, auxiliary):
    """Two branches of one strided convolution each."""
    outputs = {}
    for size in SIZES:
        x = layers.Conv2D(4, size, 2, activation="relu")(input_tensor)
        branch = ClassEvidence(num_classes, name=f"evidence_{size}")(x)
        outputs |= {f"{kind}_{size}": tensor for kind, tensor in branch.items()}
        if auxiliary:
            pooled = layers.GlobalAveragePooling2D()(x)
            outputs[f"auxiliary_{size}"] = layers.Dense(num_classes)(pooled)
    decided = BranchDecision(name="logits")([outputs[f"logits_{s}"] for s in SIZES])
    (source,) = keras.utils.get_source_inputs(input_tensor)
    return keras.Model(source, {"logits": decided, **outputs})


def tiny_network(name, input_tensor, num_classes, weights, weight_decay):
    del name, weights, weight_decay
    x = layers.Conv2D(5, 3, activation="relu")(input_tensor)
    x = layers.GlobalAveragePooling2D()(x)
    (source,) = keras.utils.get_source_inputs(input_tensor)
    return keras.Model(source, {"logits": layers.Dense(num_classes, name="logits")(x)})


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method, "anchornet", tiny_anchornet)
        patch.setattr(method, "build_downstream", tiny_network)
        yield


def recipe(backbone="anchornet", row="localizer", **changes):
    return Recipe(**{**RECIPE, "backbone": backbone, "row": row, **changes})


@pytest.fixture(scope="module")
def source():
    return load_source_of(recipe())


@pytest.fixture(scope="module")
def runs(tmp_path_factory, source):
    """A localiser, a network of whole images, and the same fine-tuned on patches."""
    folder = tmp_path_factory.mktemp("runs")

    def trained(row, **changes):
        return train(recipe(row=row, **changes), folder / row, source=source)

    localizer = trained("localizer")
    full = trained("full", backbone="small_resnet")
    patches = trained(
        "patches",
        backbone="small_resnet",
        initial=str(full.workdir),
        localizer=str(localizer.workdir),
    )
    return {"localizer": localizer, "full": full, "patches": patches}


def test_every_branch_and_auxiliary_head_is_trained_with_unit_weight(source):
    spec, splits = load_data(recipe(), source=source)
    model = trainable_model(recipe(), spec, 1)
    images, labels = (part[:4] for part in splits["train"])
    targets = {name: labels for name in model.output}
    logs = model.evaluate(images, targets, verbose=0, return_dict=True)
    outputs = model(images)
    heads = [f"{kind}_{size}" for kind in ("logits", "auxiliary") for size in SIZES]
    total = 0.0
    for name in heads:
        probabilities = softmax(np.asarray(outputs[name]))
        total -= np.log(probabilities[np.arange(4), labels]).mean()
    assert logs["loss"] == pytest.approx(total, rel=1e-4)


def test_a_trained_localizer_is_used_without_its_auxiliary_heads(runs):
    trained = load_trained(runs["localizer"].workdir, "last")
    kept = {f"{kind}_{size}" for kind in ("logits", "evidence") for size in SIZES}
    assert set(trained.model.output) == {"logits", *kept}
    saved = runs["localizer"].load_model("last").output
    assert {"auxiliary_6", "auxiliary_10"} <= set(saved)


def test_a_network_of_patches_sees_every_patch_of_an_image(runs, source):
    """The composite against the localiser's boxes and the classifier, one by one."""
    images = source.images[:6]
    composite = load_trained(runs["patches"].workdir, "last").model
    outputs = outputs_of(composite, images)
    classifier = runs["patches"].load_model("last")
    for i, image in enumerate(images):
        boxes = outputs["boxes"][i][outputs["valid"][i] > 0].astype("int32")
        size = int(boxes[0, 2] - boxes[0, 0])
        assert size in SIZES and 1 <= len(boxes) <= (3 if size == 6 else 2)
        patches = np.asarray(crop_patches(image[None], boxes[None], size))[0]
        wanted = softmax(classifier.predict(patches, verbose=0)["logits"]).mean(axis=0)
        np.testing.assert_allclose(softmax(outputs["logits"][i]), wanted, atol=1e-5)


def test_fine_tuning_starts_from_the_whole_image_network(runs):
    """One epoch at the same small rate leaves the weights near where they began."""
    first = runs["full"].load_model("best").get_weights()
    tuned = runs["patches"].load_model("last").get_weights()
    fresh = trainable_model(
        recipe("small_resnet", "full", seed=9),
        load_trained(runs["full"].workdir).spec,
        1,
    ).get_weights()

    def distance(a, b):
        return sum(np.square(x - y).sum() for x, y in zip(a, b, strict=True))

    assert 0 < distance(first, tuned) < 0.1 * distance(fresh, tuned)


def test_a_run_of_patches_is_evaluated_like_any_other(runs, monkeypatch):
    result = evaluate.evaluate(runs["patches"].workdir, "test")
    _, splits = load_data(runs["patches"].recipe)
    images, labels = splits["test"]
    logits = outputs_of(load_trained(runs["patches"].workdir).model, images)["logits"]
    assert result["accuracy"] == np.mean(logits.argmax(axis=-1) == labels)


def test_patches_of_images_of_another_size_are_refused(runs, tmp_path):
    wrong = recipe(
        "small_resnet",
        "patches",
        image_size=48,
        localizer=str(runs["localizer"].workdir),
    )
    with pytest.raises(ValueError, match="Expected image_size=32.*image_size=48"):
        train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def table(runs, tmp_path_factory):
    """The path of an exit table, written by the command."""
    path = tmp_path_factory.mktemp("table") / "table.npz"
    folders = [str(runs[name].workdir) for name in ("patches", "full")]
    arguments = [folders[0], "--resized", folders[1], "--out", str(path)]
    assert cli.main(["exit-policy", "table", *arguments, "--split", "test"]) == 0
    return path


def test_the_table_of_a_run_is_what_its_networks_say(runs, table, source):
    """The first exit is the resized image, here of full size; then a patch each."""
    with np.load(table, allow_pickle=False) as file:
        confidence, correct, cost = (
            file[name] for name in ("confidence", "correct", "cost")
        )
    _, splits = load_data(runs["patches"].recipe, source=source)
    images, labels = splits["test"]
    assert confidence.shape == correct.shape == (len(labels), 1 + 3)
    assert (np.diff(cost) > 0).all()
    logits = outputs_of(load_trained(runs["full"].workdir).model, images)["logits"]
    np.testing.assert_allclose(confidence[:, 0], softmax(logits).max(-1), atol=1e-5)
    np.testing.assert_array_equal(correct[:, 0], logits.argmax(axis=-1) == labels)
    first = outputs_of(load_trained(runs["patches"].workdir).model, images[:1])
    y, x, below, _ = first["boxes"][0, 0]
    patch = images[:1, y:below, x : x + below - y]
    more = runs["patches"].load_model("best").predict(patch, verbose=0)["logits"]
    np.testing.assert_allclose(
        confidence[0, 1], softmax(logits[:1] + more).max(), atol=1e-5
    )


def test_a_model_that_exits_early_is_used_like_any_other(
    runs, table, tmp_path, source, capsys
):
    policy, model = str(tmp_path / "policy.json"), str(tmp_path / "early.keras")
    assert cli.main(["exit-policy", "fit", str(table), "--out", policy]) == 0
    capsys.readouterr()
    assert cli.main(["exit-policy", "evaluate", policy, str(table), "--json"]) == 0
    points = json.loads(capsys.readouterr().out)
    # The cheapest point stops at once, for it there are no patches to pay.
    with np.load(table, allow_pickle=False) as file:
        cost = file["cost"]
    assert points[0]["cost"] == pytest.approx(cost[0])
    budget = points[len(points) // 2]["cost"]
    folders = [str(runs[name].workdir) for name in ("patches", "full")]
    arguments = ["--policy", policy, "--budget", str(budget), "--output", model]
    command = ["exit-policy", "model", folders[0], "--resized", folders[1]]
    assert cli.main([*command, *arguments]) == 0
    _, splits = load_data(runs["patches"].recipe, source=source)
    outputs = outputs_of(load_trained(model).model, splits["test"][0])
    # The table holds the mean cost of an exit, the model that of every image.
    assert cost[outputs["exit"].astype(int)].mean() == pytest.approx(budget)
    assert outputs["cost"].mean() == pytest.approx(budget, rel=0.05)
    correct = outputs["logits"].argmax(axis=-1) == splits["test"][1]
    assert correct.mean() == pytest.approx(points[len(points) // 2]["accuracy"])


def test_early_exits_need_a_run_of_patches(runs, tmp_path, capsys):
    full = str(runs["full"].workdir)
    command = ["exit-policy", "table", full, "--resized", full]
    assert cli.main([*command, "--out", str(tmp_path / "table.npz")]) == 2
    assert "run that was trained on patches" in capsys.readouterr().err
