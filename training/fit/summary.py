"""Outputs, maps and costs of a recipe's network, without training it."""

import dataclasses
import re

from keras_attn import places
from keras_attn.graph.costs import multiply_adds, trainable_params
from keras_attn.models.anchornet import without_auxiliary
from keras_attn.pipelines.sources import load_source
from keras_attn.pipelines.sources.catalogue import KNOWN
from keras_attn.preprocessing import ImageSpec
from keras_attn.training.fit.train import make_model
from keras_attn.training.methods import method_of
from keras_attn.training.trained import load_trained


def summarize(recipe, data=None):
    """Builds a recipe's network and counts.

    Args:
        recipe: `Recipe`.
        data: Path of the data, needed only where it decides the number of classes.

    Returns:
        Dict of `recipe`, `backbone`, `row`, `classes`, `trainable_params`,
        `multiply_adds` (one image, convolution and dense layers), `outputs` (name to
        shape, the batch is `None`) and `maps` (the same for the stages' features).
    """
    names = class_names(recipe, data) if method_of(recipe).classifies else ()
    size = recipe.image_size
    spec = ImageSpec(size, size, class_names=names)
    # Initial weights change no count.
    untrained = dataclasses.replace(recipe, options=recipe.options.untrained())
    model = make_model(untrained, spec)
    model = without_auxiliary(model)
    stages = [layer for layer in model.layers if re.fullmatch(r"stage\d+", layer.name)]
    return {
        "recipe": recipe.name,
        "backbone": recipe.backbone,
        "row": recipe.row,
        "classes": len(names),
        "trainable_params": trainable_params(model),
        "multiply_adds": multiply_adds(model, (size, size, 3)),
        "outputs": {name: list(value.shape) for name, value in model.output.items()},
        "maps": {layer.name: list(layer.output.shape) for layer in stages},
    }


def summarize_model(source):
    """Counts of a trained model of anybody's.

    Args:
        source: Folder of a run, or a model; or a `ModelSource`.

    Returns:
        Dict of `summarize`, with `model` in place of the recipe. Multiply-adds are
        `None` where a layer's are unknown, and the maps those of `keras_attn.places`.
    """
    trained = load_trained(source, classifies=False)
    model, size = trained.model, (trained.spec.height, trained.spec.width)
    try:
        total = multiply_adds(model, (*size, 3))
    except ValueError:
        total = None
    maps = {each.layer: [None, *each.size, each.channels] for each in places(model)}
    return {
        "model": str(trained.path),
        "classes": len(trained.class_names),
        "trainable_params": trainable_params(model),
        "multiply_adds": total,
        "outputs": {name: list(value.shape) for name, value in model.output.items()},
        "maps": maps,
    }


def class_names(recipe, data=None):
    """The data set's class names, or numbers; its files are read only if they decide.

    Raises:
        ValueError: If the number of classes is in the files and no path is given.
    """
    if recipe.dataset not in KNOWN:
        raise ValueError(
            f"Expected a data set among {', '.join(KNOWN)}. "
            f"Received: dataset={recipe.dataset!r}"
        )
    known = KNOWN[recipe.dataset]
    if known.class_names:
        return known.class_names
    if data is not None:
        return load_source(recipe.dataset, path=data, on_corrupt="skip").class_names
    if not known.class_count:
        raise ValueError(
            f"Expected the path of the data (--data PATH), which decides the number of "
            f"classes of {recipe.dataset!r}. Received: none"
        )
    return tuple(str(label) for label in range(known.class_count))


def format_summary(summary):
    """The dict of `summarize` or `summarize_model` as lines for people."""
    classes, total = summary["classes"], summary["multiply_adds"]
    if "recipe" in summary:
        lines = [
            f"recipe                {summary['recipe']}",
            f"backbone, row         {summary['backbone']}, {summary['row']}",
        ]
    else:
        lines = [f"model                 {summary['model']}"]
    lines += [
        *[f"classes               {classes}"] * bool(classes),
        f"trainable parameters  {summary['trainable_params']:,}",
        "multiply-adds         "
        + ("unknown" if total is None else f"{total:,} (one image)"),
    ]
    for title, shapes in (
        ("outputs", summary["outputs"]),
        ("maps (height x width x channels)", summary["maps"]),
    ):
        lines += ["", title]
        width = max(map(len, shapes), default=0)
        for name, shape in shapes.items():
            sizes = " x ".join(str(size) for size in shape[1:])
            lines.append(f"  {name:<{width}}  {sizes}")
    return "\n".join(lines)
