"""Sections of an answer, one per kind of explanation that a model may have.

Each function takes a `Viewed`, images `(1, height, width, 3)` as the model gets them
and the labels of the most probable classes, and returns a `Section`, or `None` if the
model has nothing of the kind.
"""

import dataclasses

import keras

from keras_attn.explain import grad_cam as grad_cam_map
from keras_attn.explain import last_map
from keras_attn.training.drawing import draw_grey, draw_image, draw_map
from keras_attn.training.explain import class_maps, evidence, masks, warps
from keras_attn.training.explain.localize import localize_images
from keras_attn.training.explain.patches import draw_boxes
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.viewer.panels import (
    panel,
    percent,
    place,
    place_at,
    plain,
)

CROPS_SHOWN = 8
HEADS_SHOWN = 6
BOXED = {"boxes", "scores", "valid", "branch"}


@dataclasses.dataclass(frozen=True)
class Section:
    """Some pictures, or a table, under a heading.

    Args:
        title: The heading.
        note: A sentence or two on their content.
        pictures: List of `Picture`.
        small: List of `Picture` that need less room.
        header, rows: A table: tuples of texts.
    """

    title: str
    note: str
    pictures: list = dataclasses.field(default_factory=list)
    small: list = dataclasses.field(default_factory=list)
    header: tuple = ()
    rows: list = dataclasses.field(default_factory=list)


# ---- early exits and patches -----------------------------------------------------


def exit_steps(viewed, images, labels):
    """The answers of the exits of an early-exit classifier, and its last step."""
    if not {"exit", "confidence", "predictions", "cost"} <= set(viewed.model.output):
        return None
    outputs = {key: row[0] for key, row in outputs_of(viewed.model, images).items()}
    last, stages = int(outputs["exit"]), len(outputs["confidence"])
    rows = []
    for stage in range(stages):
        if stage > last:
            rows.append((str(stage), _looked_at(stage), "not run", "", ""))
            continue
        rows.append(
            (
                str(stage),
                _looked_at(stage),
                viewed.class_names[int(outputs["predictions"][stage])],
                percent(outputs["confidence"][stage]),
                "stopped here" if stage == last else "continued",
            )
        )
    note = (
        f"It stopped after step {last} of {stages - 1} and spent "
        f"{outputs['cost']:.3g} multiply-adds. Each step adds to the ones before."
    )
    header = ("Step", "Looked at", "Class", "Confidence", "Then")
    return Section("Early-exit steps", note, header=header, rows=rows)


def _looked_at(stage):
    return "the whole image, reduced" if stage == 0 else f"patch {stage}"


def patches(viewed, images, labels):
    """The patches that were chosen, and the evidence that they were chosen by."""
    localizer = viewed.with_patches
    if localizer is None:
        return None
    (localized,) = localize_images(localizer, images, [""])
    if localized.chosen is None:
        return Section("Patches", "It was sure without looking at patches.")
    name = viewed.class_names[localized.evidence_label]
    count = len(localized.boxes)
    note = (
        f"{_patches(count)} of {localized.chosen.name} where the evidence for {name} "
        "is highest. Evidence is what a window adds to the logit of the class, "
        f"{localized.chosen.logits[localized.evidence_label]:.2f} in all: red speaks "
        "for it, blue against it. Maps end half a window from the border."
    )
    pictures = [_boxes(localized, name), *_branches(localized, name)]
    crops = list(_crops(localized))
    return Section("Patches and their evidence", note, pictures, crops)


def _patches(count):
    return f"{count} patch{'es' if count != 1 else ''}"


def _boxes(localized, name):
    height, width = localized.image.shape[:2]
    places = []
    for number, box in enumerate(localized.boxes[:CROPS_SHOWN], 1):
        y, x = (box[:2] + box[2:]) / 2
        places.append(f"{number} {place_at(y / height, x / width)}")
    description = (
        f"The image with {_patches(len(localized.boxes))} outlined: {', '.join(places)}"
    )
    return panel(
        localized.image,
        lambda axis: draw_boxes(axis, localized),
        "The patches, the one with the most evidence first",
        f"{description}.",
        marked=True,
    )


def _crops(localized):
    crops = list(localized.crops())[:CROPS_SHOWN]
    for number, crop in enumerate(crops):
        text = f"Patch {number + 1}: evidence {localized.scores[number]:.2f}"
        if localized.patch_probabilities is not None:
            row = localized.patch_probabilities[number]
            best = int(row.argmax())
            text += f"; alone {localized.class_names[best]} ({percent(row[best])})"
        yield plain(crop, text, f"The part of the image that is patch {number + 1}.")


def _branches(localized, name):
    label = localized.evidence_label
    attended = evidence.highest_attention(localized.branches)
    for branch in localized.branches:
        values = branch.evidence[..., label]
        chosen = ", chosen" if branch is localized.chosen else ""
        limit = evidence.highest_evidence([branch], [label])
        best = int(branch.probabilities.argmax())
        yield panel(
            localized.image,
            lambda axis, branch=branch, limit=limit: evidence.draw_evidence(
                axis, localized.image, branch, label, limit
            ),
            f"Evidence for {name} in windows of {branch.name}{chosen}: this branch "
            f"answers {localized.class_names[best]} "
            f"({percent(branch.probabilities[best])})",
            f"Map over the image, highest at the {place(values)} with "
            f"{values.max():.2f}, lowest {values.min():.2f}.",
            bar="what a window adds to the logit",
        )
        if attended is not None:
            yield panel(
                localized.image,
                lambda axis, branch=branch: evidence.draw_attention(
                    axis, localized.image, branch, attended
                ),
                f"Attention of the branch with windows of {branch.name}",
                f"Map over the image, highest at the {place(branch.attention)}.",
                bar="attention (1: equal for all windows)",
            )


# ---- maps of the methods ---------------------------------------------------------


def class_embedding(viewed, images, labels):
    """Class maps of a class-embedding network."""
    if "patch_logits" not in viewed.model.output:
        return None
    (explained,) = class_maps.explain(viewed.trained, images, [""])
    limit = explained.maps[..., labels].max()
    pictures = []
    for label in labels:
        values = explained.maps[..., label]
        pictures.append(
            panel(
                explained.image,
                lambda axis, values=values: draw_map(
                    axis, explained.image, values, (0, limit)
                ),
                f"{viewed.class_names[label]}",
                f"Map of {viewed.class_names[label]} over the image, highest at the "
                f"{place(values)} with {percent(values.max())}.",
                bar="probability in the cell's region",
                marked=label == labels[0],
            )
        )
    note = (
        "The probability of a class in the region of every cell of the last feature "
        "map, on one scale."
    )
    return Section("Class-embedding maps", note, pictures)


def warping(viewed, images, labels):
    """Warping fields of the groups of channels of a warped classifier."""
    if "fields" not in viewed.model.output:
        return None
    (explained,) = warps.explain(viewed.trained, images, [""])
    image, groups = explained.image, explained.fields.shape[2]

    def draw(axis, group=None):
        (draw_grey if group is not None else draw_image)(axis, image)
        warps.draw_points(axis, explained, group)

    pictures = [
        panel(
            image,
            draw,
            "The colours of the cells",
            "A regular grid of points over the image, each corner in its own colour: "
            "red, yellow, blue, green.",
        )
    ]
    for group in explained.groups:
        moved = explained.fields[:, :, group]
        length = float((moved**2).sum(axis=-1).mean() ** 0.5)
        name = "All channels" if groups == 1 else f"Group {group + 1} of {groups}"
        down, right = moved.mean(axis=(0, 1))
        description = (
            f"The grid as {name.lower()} bends it: on average {abs(down):.1f} cells "
            f"{'down' if down > 0 else 'up'} and {abs(right):.1f} to the "
            f"{'right' if right > 0 else 'left'}."
        )
        pictures.append(
            panel(
                image,
                lambda axis, group=group: draw(axis, group),
                f"{name}: points move by {length:.1f} cells",
                description,
            )
        )
        moved_image = (255 * explained.sampled(group)).round()
        pictures.append(
            plain(
                moved_image,
                f"{name}: the image, moved the same way",
                "The image as the cells of the warped map see it, black outside.",
            )
        )
    note = (
        "A point lies where a group of channels takes a cell of its warped map from; "
        "its colour is that of the cell in the first picture."
    )
    return Section("Warping fields", note, pictures)


def attention_masks(viewed, images, labels):
    """The attention map, its heads, and the masks that were learned from it."""
    if "mask_1" not in viewed.model.output:
        return None
    (explained,) = masks.explain(viewed.trained, images, [""])
    image = explained.image

    def mapped(values, limits, caption, bar, opacity=0.6):
        return panel(
            image,
            lambda axis: draw_map(axis, image, values, limits, False, opacity),
            caption,
            f"Map over the image, highest at the {place(values)} with "
            f"{values.max():.2f}, lowest {values.min():.2f}.",
            bar=bar,
        )

    pictures = []
    if explained.attention is not None:
        map_bar = "attention, 0 to 1"
        pictures.append(mapped(explained.attention, (0, 1), "Attention map", map_bar))
    if explained.heads is not None:
        for head in range(min(explained.heads.shape[-1], HEADS_SHOWN)):
            values = explained.heads[..., head]
            limits = values.min(), values.max()
            pictures.append(mapped(values, limits, f"Head {head + 1}", "attention"))
    limits = masks.mask_limits([explained])
    for block in explained.shown():
        values = explained.masks[block].mean(axis=-1)
        caption = f"Mask of block {block + 1}: mean {values.mean():.2f}"
        correlation = explained.correlation(block)
        if correlation is not None:
            caption += f"; correlation with the map {correlation:.2f}"
        bar = "mean mask over channels"
        pictures.append(mapped(values, limits, caption, bar, opacity=1.0))
    note = (
        "Masks weigh the values that shortcuts pass, from 0, nothing, to 1, all. They "
        "are means over channels, on one scale; heads have a scale each."
    )
    return Section("Attention maps and masks", note, pictures)


# ---- for every model -------------------------------------------------------------


def grad_cam(viewed, images, labels):
    """Grad-CAM of the most probable class, on the last feature map."""
    layer = last_map(viewed.model)
    label = labels[0]
    name = viewed.class_names[label]
    maps = grad_cam_map(viewed.model, images, layer, [label])
    values = keras.ops.convert_to_numpy(maps)[0]
    seen = f"highest at the {place(values)}" if values.max() else "flat: nothing speaks"
    picture = panel(
        images[0],
        lambda axis: draw_map(axis, images[0], values, (0, 1), smooth=False),
        f"Grad-CAM for {name}",
        f"Map of what speaks for {name}, {seen}.",
        bar="from 0 to the highest of this map",
    )
    note = (
        f"The features of layer {layer} that speak for the class, weighted by its "
        "gradient: for any model."
    )
    return Section("Grad-CAM", note, [picture])


SECTIONS = (exit_steps, patches, class_embedding, warping, attention_masks, grad_cam)
