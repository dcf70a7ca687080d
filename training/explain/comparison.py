"""One table of all methods: their maps of the same images, scored."""

import json
import pathlib
import time
import warnings

import numpy as np

from keras_attn import metrics
from keras_attn.pipelines.files import write_then_rename
from keras_attn.pipelines.images.files import check_readable, image_files, read_images
from keras_attn.pipelines.progress import counted
from keras_attn.training.explain.faithfulness import CHECKED, IMAGES, boxes_of
from keras_attn.training.explain.names import ALL, TITLES
from keras_attn.training.explain.saliency import Saliency
from keras_attn.training.trained import load_trained

# Metric -> its column and which values are better.
COLUMNS = {
    "deletion": "deletion, lower",
    "insertion": "insertion, higher",
    "road": "ROAD, lower",
    "faithfulness_correlation": "faithfulness correlation, higher",
    "sparseness": "sparseness",
    "max_sensitivity": "max-sensitivity, lower",
    "rank_correlation": "rank correlation with a random network, lower",
    "pointing_game": "pointing game, higher",
    "energy_inside_box": "relevance mass, higher",
    "rank_accuracy": "relevance rank, higher",
    "seconds": "seconds per image",
}
RANDOM_MAPS, RANDOM_NETWORK = "random maps", "random network"
SAMPLES = 3


def compare(
    path, images, output, methods, checkpoint="best", on_corrupt="error", say=print
):
    """Scores several methods on the same images, beside controls.

    Maps are those of the most probable class. The controls are random maps, and for
    each method its maps of the network with random weights, scored on the trained one.

    Args:
        path, images, output, checkpoint, on_corrupt, say: See
            `keras_attn.training.explain.files.explain`.
        methods: Keys of `keras_attn.training.explain.names.TITLES`; or `["all"]`,
            those that the model has maps of.

    Returns:
        The result as a dict, the paths of `compare.json` and `compare.md`, and one
        `CorruptImageError` for each image left out.

    Raises:
        ValueError: If a method that is named has no maps of the model.
    """
    every = ALL in methods
    methods = list(TITLES) if every else list(dict.fromkeys(methods))
    files = image_files(images)
    subject = load_trained(path, checkpoint)
    if subject.note:
        say(subject.note)
    pictures, kept, problems = read_images(files, subject.spec, on_corrupt)
    check_readable(kept, problems)
    pictures = np.asarray(pictures[:IMAGES])
    labels = subject.probabilities(pictures).argmax(axis=1)
    show = counted("Scored")
    total = (len(methods) + 1) * len(pictures)
    random = np.random.default_rng(0).uniform(size=pictures.shape[:3])
    rows = [{"method": RANDOM_MAPS, **_scores(subject, pictures, random, labels)}]
    show(len(pictures), total)
    for done, method in enumerate(methods, 2):
        try:
            rows += _rows(subject, method, pictures, labels)
        except ValueError as error:
            if not every:
                raise
            say(f"{TITLES[method]} is left out: {error}")
        show(done * len(pictures), total)
    result = {"model": str(subject.path), "images": len(pictures), "rows": rows}
    return result, _written(result, pathlib.Path(output)), problems


def _rows(subject, method, images, labels):
    """Of a method with the trained and with the random network."""
    explainer, few = Saliency(method), images[:CHECKED]

    def maps_of(images):
        return explainer.maps(subject, images, labels[: len(images), None])[:, 0]

    start = time.perf_counter()
    maps = maps_of(images)
    seconds = (time.perf_counter() - start) / len(images)
    found = []

    def kept(model):
        # The weights of the subject's own model are changed.
        found.append(maps_of(few))
        return found[-1]

    (check,) = metrics.randomization_check(subject.model, kept, stages=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sensitivity = metrics.max_sensitivity(maps_of, few, SAMPLES)
    of_network = {
        "max_sensitivity": _mean(sensitivity),
        "rank_correlation": check["rank_correlation"],
        "seconds": seconds,
        **_boxes(explainer, subject),
    }
    control = _scores(subject, few, found[-1], labels[: len(few)])
    return [
        {"method": method, **_scores(subject, images, maps, labels), **of_network},
        {"method": f"{method}, {RANDOM_NETWORK}", **control},
    ]


def _scores(subject, images, maps, labels):
    """Means over the images whose maps are not constant."""
    varies = np.ptp(maps, axis=(1, 2)) > 0
    result = {"images": int(varies.sum())}
    if not varies.any():
        return result
    given = subject.probabilities, images[varies], maps[varies], labels[varies]
    return result | {
        "deletion": _mean(metrics.deletion_curve(*given)["areas"]),
        "insertion": _mean(metrics.insertion_curve(*given)["areas"]),
        "road": _mean(metrics.road_curve(*given)["means"]),
        "faithfulness_correlation": _mean(metrics.faithfulness_correlation(*given)),
        "sparseness": _mean(metrics.sparseness(maps[varies])),
    }


def _boxes(explainer, subject):
    found = boxes_of(explainer, subject) or {}
    return {name: value for name, value in found.items() if name in COLUMNS}


def _mean(values):
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def format_comparison(result):
    """The result of `compare` as a Markdown table."""
    rows = result["rows"]
    columns = [name for name in COLUMNS if any(name in row for row in rows)]
    lines = [
        f"Maps of {result['images']} images, {result['model']}",
        "",
        "| maps | " + " | ".join(COLUMNS[name] for name in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for row in rows:
        method, *control = row["method"].split(", ")
        name = ", ".join([TITLES.get(method, method), *control])
        constant = "" if row["images"] else ", all constant"
        cells = [_cell(row.get(column)) for column in columns]
        lines.append(f"| {name}{constant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(value):
    return "" if value is None else f"{value:.3f}"


def _written(result, output):
    """Writes the comparison as JSON and as Markdown; the paths."""
    output.mkdir(parents=True, exist_ok=True)
    texts = {
        "compare.json": json.dumps(result, indent=2) + "\n",
        "compare.md": format_comparison(result),
    }
    for name, text in texts.items():
        with write_then_rename(output / name) as file:
            file.write(text.encode())
    return [output / name for name in texts]
