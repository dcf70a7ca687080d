"""Faithfulness of a method's maps to a model, in numbers."""

import dataclasses

import numpy as np

from keras_attn import metrics
from keras_attn.metrics.map_masks import masks_of_boxes
from keras_attn.pipelines.sources.catalogue import KNOWN
from keras_attn.training.data.load import load_source_split
from keras_attn.training.explain.names import AUTO

# Images that are measured at most, and those of the check that explains repeatedly.
IMAGES, CHECKED = 32, 8
STAGES = 4


def measure(explainer, subject, images, seed=0):
    """Deletion, insertion, randomisation, and boxes where the data has them.

    Maps are those of the most probable class; for boxes, of the true one. Constant maps
    are left out and counted.

    Args:
        explainer: `Explainer` that is measurable.
        subject: `Trained`.
        images: 8-bit, of the model's size; the first 32 are measured.
        seed: Seed of the random maps to compare with and of the random weights.

    Returns:
        Dict, see `format_measures`; for JSON.
    """
    images = np.asarray(images[:IMAGES])
    labels = subject.probabilities(images).argmax(axis=1)

    def maps_of(model, count=IMAGES):
        changed = dataclasses.replace(subject, model=model)
        return explainer.maps(changed, images[:count], labels[:count, None])[:, 0]

    random = np.random.default_rng(seed)
    areas = {}
    found = maps_of(subject.model)
    varies = np.ptp(found, axis=(1, 2)) > 0
    images, labels, constant = images[varies], labels[varies], int((~varies).sum())
    maps = {
        "maps": found[varies],
        "random": random.uniform(size=images.shape[:3]),
    }
    for name, each in maps.items() if len(images) else ():
        options = (subject.probabilities, images, each, labels)
        areas[name] = {
            "deletion": float(metrics.deletion_curve(*options)["areas"].mean()),
            "insertion": float(metrics.insertion_curve(*options)["areas"].mean()),
        }
    return {
        "model": str(subject.path),
        # The model's own maps are those of `--method auto`.
        "method": getattr(explainer, "method", AUTO),
        "layer": getattr(explainer, "layer", None),
        "images": len(images),
        "constant_maps": constant,
        "areas": areas,
        "randomization": metrics.randomization_check(
            subject.model,
            lambda model: maps_of(model, CHECKED),
            stages=STAGES,
            seed=seed,
        )
        if len(images)
        else [],
        "boxes": boxes_of(explainer, subject),
    }


def boxes_of(explainer, subject):
    """Scores on the run's own test images, if they need no files and have boxes."""
    run = subject.run
    known = KNOWN.get(run.recipe.dataset) if run else None
    if known is None or not (known.synthetic and known.has_objects):
        return None
    _, source, images, indices = load_source_split(run.recipe)
    split = "test" if len(indices["test"]) else "validation"
    chosen = np.asarray(indices[split][:IMAGES])
    images, boxes = np.asarray(images[chosen]), source.annotations["box"][chosen]
    seen = boxes[:, 0] >= 0
    images, boxes, labels = images[seen], boxes[seen], source.labels[chosen][seen]
    maps = explainer.maps(subject, images, labels[:, None])[:, 0]
    varies = np.ptp(maps, axis=(1, 2)) > 0
    if not varies.any():
        return None
    maps, boxes = maps[varies], boxes[varies]
    return {
        "data": f"{run.recipe.dataset}, {split}",
        "images": len(maps),
        "constant_maps": int((~varies).sum()),
        "pointing_game": float(metrics.pointing_game(maps, boxes).mean()),
        "energy_inside_box": float(metrics.energy_inside_box(maps, boxes).mean()),
        "rank_accuracy": _rank_accuracy(maps, boxes),
        "energy_of_a_constant_map": float(
            metrics.energy_inside_box(np.ones_like(maps), boxes).mean()
        ),
    }


def _rank_accuracy(maps, boxes):
    masks = masks_of_boxes(boxes, maps.shape[1:])
    return float(np.nanmean(metrics.relevance_rank_accuracy(maps, masks)))


def format_measures(result):
    """The result of `measure` as Markdown tables."""
    areas = result["areas"]
    lines = [
        f"`{result['method']}` on {result['images']} images, {result['model']}",
        "",
    ]
    if result["constant_maps"]:
        lines += [f"Left out: {result['constant_maps']} images with constant maps.", ""]
    if not areas:
        return "\n".join(lines)
    lines += [
        "| area under the curve | these maps | random maps | better is |",
        "|---|---:|---:|---|",
    ]
    lines += [
        f"| {name} | {areas['maps'][name]:.3f} | {areas['random'][name]:.3f} | {goal} |"
        for name, goal in (("deletion", "lower"), ("insertion", "higher"))
    ]
    lines += [
        "",
        "| layers made random | down to | rank correlation | similarity |",
        "|---:|---|---:|---:|",
    ]
    lines += [
        f"| {100 * stage['share']:.0f} % | {stage['layer']} | "
        f"{stage['rank_correlation']:.2f} | {stage['similarity']:.2f} |"
        for stage in result["randomization"]
    ]
    boxes = result["boxes"]
    if boxes:
        constant = boxes["energy_of_a_constant_map"]
        lines += [
            "",
            f"| {boxes['images']} images with boxes ({boxes['data']}) | value |",
            "|---|---:|",
            f"| pointing game | {100 * boxes['pointing_game']:.1f} % |",
            f"| energy inside the box | {100 * boxes['energy_inside_box']:.1f} % |",
            f"| highest cells inside the box | {100 * boxes['rank_accuracy']:.1f} % |",
            f"| energy of a constant map | {100 * constant:.1f} % |",
        ]
    return "\n".join(lines) + "\n"
