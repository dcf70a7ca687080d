"""Accuracy and cross-entropy of a trained model."""

import dataclasses
import json
import sys
from typing import NamedTuple

import numpy as np

from keras_attn.pipelines.attention_maps.batches import other_images
from keras_attn.pipelines.batches.build import check_arrays, is_checksum_of
from keras_attn.pipelines.files import DAMAGE, read_json, write_then_rename
from keras_attn.pipelines.images.streaming import load_images
from keras_attn.pipelines.sources import load_source
from keras_attn.pipelines.sources.catalogue import KNOWN
from keras_attn.training.choices import SPLITS
from keras_attn.training.data.load import load_source_split
from keras_attn.training.evaluation.labels import (
    format_labels,
    score_labels,
    truth_of,
)
from keras_attn.training.runs.outputs import (
    log_softmax,
    outputs_of,
    softmax,
    top_classes,
    with_outputs,
)
from keras_attn.training.runs.state import load_progress
from keras_attn.training.trained import CHECKED, Trained, load_trained

# Images whose outputs are in memory at a time; patch logits of a whole data set can
# be large.
CHUNK = 4096
# Fewer where progress is shown; whole batches, so that the numbers stay the same.
PROGRESS_CHUNK = 512
# The judged outputs; a localiser's maps of a whole data set would not fit in memory.
JUDGED = ("logits", "patch_logits")


# A note on `EvaluationData.same_data`.
OTHER_DATA = (
    "The data are not those of the run's training and are split differently, so the "
    "model may have been trained on some of these images."
)


@dataclasses.dataclass(frozen=True)
class EvaluationData:
    """A trained model and the labelled images that it is evaluated on.

    Args:
        trained: `Trained`.
        images: `(examples, height, width, 3)`, an array or `StreamedImages`.
        labels: `(examples,)` integers, of the model's classes; `(examples, labels)`
            booleans for a model of labels that do not exclude each other.
        names: Names of the images: files, or places in the data set.
        dataset: Name of the data set.
        split: `test`, `validation`, `train` or `all`.
        same_data: Whether these are the images that the run was trained and validated
            on, with the same split; `None` for other data.
        own: Whether this is the data set of the model's run.
    """

    trained: Trained
    images: np.ndarray
    labels: np.ndarray
    names: list
    dataset: str
    split: str
    same_data: bool | None
    own: bool


def evaluate_model(model, images, labels, batch_size=128):
    """Accuracy and cross-entropy of a model on labelled images.

    Args:
        model: Model with the named output `logits`, optionally `patch_logits`.
        images: `(examples, height, width, 3)`, 8-bit, of the model's size; an array or
            `StreamedImages`.
        labels: `(examples,)` integers.
        batch_size: Images at a time; the result does not depend on it.

    Returns:
        Dict of `examples`, `accuracy`, `top5_accuracy`, `cross_entropy` (nats) and
        `per_class_accuracy` (one value per class, `None` for a class without images);
        with patch logits also `patch_accuracy`, the accuracy of the softmax of the
        patch logits averaged over the cells. Accuracies are in 0..1.

    Raises:
        ValueError: If images or labels do not fit, or there are none.
    """
    return evaluate_outputs(*judged_outputs(model, images, labels, batch_size), labels)


class Judged(NamedTuple):
    """Outputs of a model on images.

    Args:
        logits: `(examples, classes)`.
        patch_probabilities: `(examples, classes)`, means over the cells; `None` for
            models without patch logits.
    """

    logits: np.ndarray
    patch_probabilities: np.ndarray | None


def judged_outputs(model, images, labels, batch_size=128, progress=None):
    """The outputs that `evaluate_model` judges, as `Judged`; see there for errors too.

    `progress` is called with (images done, images in all) now and then.
    """
    check_arrays(images, np.asarray(labels), model.output["logits"].shape[-1])
    if not len(labels):
        raise ValueError("Expected at least one image to evaluate on. Received: none")
    # The images whose maps a shuffled control gets, see `Trained.judged`.
    others = other_images(len(labels), 0) if len(model.inputs) > 1 else None
    model = with_outputs(model, JUDGED)
    logits, patches = [], []
    step = CHUNK if progress is None else PROGRESS_CHUNK
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        given = images[part]
        if others is not None:
            given = {"images": given, "map_images": images[others[part]]}
        outputs = outputs_of(model, given, batch_size)
        logits.append(outputs["logits"])
        if "patch_logits" in outputs:
            patches.append(_mean_over_cells(softmax(outputs["patch_logits"])))
        if progress is not None:
            progress(min(start + step, len(labels)), len(labels))
    return Judged(np.concatenate(logits), np.concatenate(patches) if patches else None)


def evaluate_outputs(logits, patch_probabilities, labels):
    """`evaluate_model`'s dict from the outputs of `judged_outputs`."""
    labels = np.asarray(labels)
    result = score(logits, labels)
    if patch_probabilities is not None:
        correct = patch_probabilities.argmax(axis=-1) == labels
        result["patch_accuracy"] = float(correct.mean())
    return result


def score(logits, labels):
    """`evaluate_model`'s numbers from `(examples, classes)` logits."""
    order = top_classes(logits, 5)
    correct = order[:, 0] == labels
    log_likelihood = log_softmax(logits)[np.arange(len(labels)), labels]
    return {
        "examples": len(labels),
        "accuracy": float(correct.mean()),
        "top5_accuracy": float((order == labels[:, None]).any(axis=-1).mean()),
        "cross_entropy": float(-log_likelihood.mean()),
        "per_class_accuracy": [
            float(correct[labels == label].mean()) if (labels == label).any() else None
            for label in range(logits.shape[-1])
        ],
    }


def evaluate(
    path,
    split=None,
    data=None,
    dataset=None,
    checkpoint="best",
    on_corrupt="error",
    batch_size=128,
):
    """Evaluates a run's model on its recipe's data, or a model file on any data.

    Evaluating a run on its own data set also writes `WORKDIR/evaluation.json`, by
    split and checkpoint.

    Args:
        path: Folder of a run, or a `.keras` file.
        split: `test`, `validation` or `train`; for data that is not the run's own
            also `all`. By default the test images, or where there are none the
            validation images (a run's own data) or all images (other data).
        data: Path of the data; by default that of the run's training.
        dataset: Name of the data set: by default the run's own, or `folder`.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"` or `"skip"`.
        batch_size: Images at a time.

    Returns:
        The dict of `evaluate_model` with class names for `per_class_accuracy`, and
        `model`, `checkpoint`, `epoch`, `dataset`, `split`, `same_data`, see
        `EvaluationData`. For a model of labels that do not exclude each other the dict
        of `score_labels`, with their names for `labels`; its data may have several
        labels per image, `a;b` in a table of labels, or none.
    """
    found = evaluation_data(path, split, data, dataset, checkpoint, on_corrupt)
    return evaluated(found, batch_size).result


class Evaluated(NamedTuple):
    """The dict of `evaluate`, and the `(examples, classes)` logits behind it."""

    result: dict
    logits: np.ndarray


def evaluated(found, batch_size=128, progress=None):
    """`evaluate` of an `EvaluationData`, recorded in the same way, as `Evaluated`."""
    trained = found.trained
    # Several labels per image are judged below.
    labels = found.labels if found.labels.ndim == 1 else np.zeros(len(found.labels))
    logits, patches = judged_outputs(
        trained.judged, found.images, labels.astype(int), batch_size, progress
    )
    if found.labels.ndim == 1:
        judged = evaluate_outputs(logits, patches, found.labels)
        by_class = "per_class_accuracy"
    else:
        judged, by_class = (
            score_labels(logits, found.labels, trained.thresholds),
            "labels",
        )
        if trained.spec.thresholds:
            judged["own_thresholds"] = dict(
                zip(trained.class_names, trained.spec.thresholds, strict=True)
            )
    result = {
        "model": str(trained.path),
        "checkpoint": trained.checkpoint,
        "epoch": trained.epoch,
        "dataset": found.dataset,
        "split": found.split,
        "same_data": found.same_data,
        **judged,
    }
    result[by_class] = dict(zip(trained.class_names, result[by_class], strict=True))
    if found.own:
        record(trained.run, result)
    return Evaluated(result, logits)


def evaluation_data(
    path,
    split=None,
    data=None,
    dataset=None,
    checkpoint="best",
    on_corrupt="error",
):
    """The model and the images that `evaluate` evaluates, as `EvaluationData`."""
    if split not in (None, *SPLITS):
        raise ValueError(f"Expected a split among {SPLITS}. Received: {split!r}")
    trained = load_trained(path, checkpoint)
    own = trained.run is not None and dataset in (None, trained.run.recipe.dataset)
    same_data = None
    if own:
        dataset = trained.run.recipe.dataset
        data = data or trained.run.data()
        found = load_source_split(
            trained.run.recipe, data, on_corrupt=on_corrupt, download=False
        )
        spec, source, images, parts = found
        _check_own_classes(trained, spec.class_names)
        labels = source.labels
        same_data = trained_on(trained.run, found.splits)
    else:
        dataset = dataset or "folder"
        source, images, labels, parts = _other_data(trained, dataset, data, on_corrupt)
    otherwise = "validation" if own else "all"
    there = [name for name, part in parts.items() if len(part)]
    split = split or ("test" if "test" in there else otherwise)
    if split not in there:
        raise ValueError(
            f"Expected a split of {dataset} with images: {', '.join(there)}. "
            f"Received: {split!r}"
        )
    chosen = parts[split]
    names = [source.where(index) for index in chosen]
    say = getattr(trained.source, "say", None)
    if say and (warning := trained.pixels_warning(images[chosen[:CHECKED]], names)):
        say(warning)
    return EvaluationData(
        trained,
        images[chosen],
        labels[chosen],
        names,
        dataset,
        split,
        same_data,
        own,
    )


def trained_on(run, splits):
    """True if a run was trained on exactly these splits; `None` if it is unknown."""
    known = load_progress(run.checkpoints / "last.npz").data
    return is_checksum_of(known, splits) if known else None


def record(run, result):
    """Adds an evaluation to `WORKDIR/evaluation.json`, replacing the same one."""
    path = run.workdir / "evaluation.json"
    try:
        evaluations = read_json(path) if path.exists() else {}
        evaluations.setdefault(result["split"], {})[result["checkpoint"]] = result
    except DAMAGE as error:
        raise ValueError(
            f"Cannot read {path}: {error}. Delete it and evaluate again."
        ) from error
    try:
        with write_then_rename(path) as file:
            file.write((json.dumps(evaluations, indent=2) + "\n").encode())
    except OSError as error:
        print(f"Not recorded in {path}: {error.strerror or error}", file=sys.stderr)


def format_evaluation(result):
    """The result of `evaluate` as a text of several lines."""
    model = result["model"]
    if result["epoch"]:
        model += f" (after epoch {result['epoch']})"
    lines = [
        f"model           {model}",
        f"data            {result['dataset']}, {result['split']} split, "
        f"{result['examples']} images",
    ]
    if "labels" in result:
        return "\n".join([*lines, *format_labels(result)])
    lines += [
        f"accuracy        {100 * result['accuracy']:.2f} %",
        f"top-5 accuracy  {100 * result['top5_accuracy']:.2f} %",
        f"cross-entropy   {result['cross_entropy']:.4f}",
    ]
    if "patch_accuracy" in result:
        lines.append(f"patch accuracy  {100 * result['patch_accuracy']:.2f} %")
    lines += ["", "accuracy by class"]
    width = max(map(len, result["per_class_accuracy"]))
    for name, value in result["per_class_accuracy"].items():
        text = "no images" if value is None else f"{100 * value:6.2f} %"
        lines.append(f"  {name:<{width}}  {text}")
    return "\n".join(lines)


def _mean_over_cells(maps):
    return maps.reshape(len(maps), -1, maps.shape[-1]).mean(axis=1)


def _other_data(trained, dataset, data, on_corrupt):
    """The images, labels and parts of a data set that the model was not made for.

    Its classes are found by name; it need not have all of the model's.
    """
    if data is None and dataset == "folder":
        raise ValueError(
            f"Expected the data to evaluate {trained.path} on: --data PATH, or "
            "--dataset NAME. Received: neither"
        )
    options = {}
    if dataset in KNOWN and KNOWN[dataset].synthetic:
        spec = trained.spec
        if spec.height != spec.width:
            raise ValueError(
                f"Expected a model of square images for the data set {dataset}. "
                f"Received: {spec.height} x {spec.width}"
            )
        options = {"image_size": spec.height, "num_classes": len(trained.class_names)}
    if trained.several_labels and dataset == "folder":
        options["several"] = True
    source = load_source(dataset, path=data, on_corrupt=on_corrupt, **options)
    unknown = [name for name in source.class_names if name not in trained.class_names]
    if unknown:
        raise ValueError(
            f"Expected data of the {len(trained.class_names)} classes of "
            f"{trained.path}. Received: {dataset} with {unknown[:3]} among its "
            f"{len(source.class_names)} classes"
        )
    source, images = load_images(source, trained.spec)
    positions = [trained.class_names.index(name) for name in source.class_names]
    labels = np.array(positions, "int32")[source.labels]
    if trained.several_labels:
        labels = truth_of(source, positions, len(trained.class_names))
    return source, images, labels, {**source.official, "all": np.arange(len(labels))}


def _check_own_classes(trained, names):
    if tuple(names) != trained.class_names:
        raise ValueError(
            f"Expected the data that {trained.path} was trained on, with the classes "
            f"{_abridged(trained.class_names)}. Received: {_abridged(names)}"
        )


def _abridged(names):
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
