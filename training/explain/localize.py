"""Image files -> the patches that decide their class, as pictures and as data.

Convention: boxes are (y0, x0, y1, x1), half-open pixels, origin at the outer corner of
the top left pixel.
"""

import dataclasses
import json
import pathlib
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_attn.models.localizer import branches_of
from keras_attn.ops import crop_patches
from keras_attn.pipelines.files import write_then_rename
from keras_attn.pipelines.images.boxes import frame_windows
from keras_attn.pipelines.images.decoding import image_size
from keras_attn.pipelines.images.files import check_readable, image_files, read_images
from keras_attn.training import drawing
from keras_attn.training.explain.evidence import BranchMaps, branch_maps
from keras_attn.training.explain.explanation import Explanation
from keras_attn.training.explain.localizers import localizer_of, localizing
from keras_attn.training.explain.patches import picture, sheet
from keras_attn.training.runs.outputs import outputs_of, softmax
from keras_attn.training.trained import load_trained

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Localized(Explanation):
    """The patches of one image and the maps that they were chosen by.

    Args:
        branches: List of `BranchMaps`, the smallest patches first.
        branch: Index of the branch that chose the patches, or `None` if an early exit
            was sure without patches.
        boxes: `(patches, 4)` integers, the patch with the most evidence first.
        scores: `(patches,)`, the part of the localiser's logit of its class that each
            patch adds.
        patch_probabilities: `(patches, classes)`, or `None` where patches are not
            classified.
    """

    branches: list[BranchMaps]
    branch: int | None
    boxes: np.ndarray
    scores: np.ndarray
    patch_probabilities: np.ndarray | None = None

    @property
    def label(self):
        """The image's class."""
        return int(self.probabilities.argmax())

    @property
    def chosen(self):
        """The `BranchMaps` of the branch that chose the patches, or `None`."""
        return None if self.branch is None else self.branches[self.branch]

    @property
    def evidence_label(self):
        """The class whose evidence the patches were chosen by.

        It is the localiser's answer; that of a patch classifier may be another one.
        """
        if self.chosen is None:
            return self.label
        return int(self.chosen.probabilities.argmax())

    def crops(self):
        """The pixels of the patches, black where a box reaches beyond the image."""
        if not len(self.boxes):
            return ()
        # All patches are of the branch's size.
        top, left, bottom, right = self.boxes[0].tolist()
        size = bottom - top, right - left
        crops = crop_patches(self.image[None], self.boxes[None], size)
        return ops.convert_to_numpy(crops)[0]


def localize_images(subject, images, titles=None, batch_size=BATCH):
    """The patches of images, a list of `Localized`.

    Arguments as in `Explainer.explain`; the model has the outputs of `with_patches`, or
    is a classifier of patches that contains its localiser.
    """
    images = np.asarray(images)
    model, localizer = subject.model, localizer_of(subject.model)
    outputs = outputs_of(model, images, batch_size)
    maps = outputs if localizer is model else outputs_of(localizer, images, batch_size)
    chosen = [branch if branch >= 0 else None for branch in outputs["branch"].tolist()]
    by_patch = outputs.get("patch_probabilities")
    if by_patch is None:
        by_patch = [None] * len(images)
    else:
        by_patch = _valid(by_patch, outputs)
    return Localized.of_images(
        subject,
        images,
        titles,
        softmax(outputs["logits"]),
        branch_maps(branches_of(localizer, images.shape[1:3]), maps),
        chosen,
        _valid(outputs["boxes"], outputs),
        _valid(outputs["scores"], outputs),
        by_patch,
    )


def _valid(values, outputs):
    """For each image the values of the patches that there are."""
    return [row[valid] for row, valid in zip(values, outputs["valid"], strict=True)]


class LocalizedFiles(NamedTuple):
    """Patches that were written.

    Args:
        result: The content of `localized.json`, see `describe`.
        written: Paths of all files.
        problems: One `CorruptImageError` for each image left out.
    """

    result: dict
    written: list[pathlib.Path]
    problems: tuple


def localize(
    path,
    images,
    output,
    max_patches=None,
    iou_threshold=None,
    coverage=None,
    checkpoint="best",
    on_corrupt="error",
):
    """Finds and draws the patches of image files.

    Writes, into the folder `output`, a picture for every image, overview sheets, and
    `localized.json`.

    Args:
        path: Folder of a run, or a `.keras` file: a localiser, or a classifier of
            patches that contains one.
        images: Paths of images and of folders of images.
        output: Folder; made if it does not exist.
        max_patches: Maximum number of patches per image, for a localiser: a sequence of
            one value or of one for each branch. By default the recipe's, see
            `patch_settings`.
        iou_threshold: Patches overlap by less than this. By default the recipe's.
        coverage: Share of the cells that they are chosen among, as `max_patches`.
        checkpoint: `best` or `last` model of a run.
        on_corrupt: `"error"`, or `"skip"` to leave out what cannot be decoded.

    Returns:
        `LocalizedFiles`.
    """
    files = image_files(images)
    trained = load_trained(path, checkpoint)
    localizer, settings = localizing(
        trained,
        max_patches=max_patches,
        iou_threshold=iou_threshold,
        coverage=coverage,
    )
    pixels, kept, problems = read_images(files, trained.spec, on_corrupt)
    check_readable(kept, problems)
    titles = drawing.titles_of(kept)
    output = pathlib.Path(output)
    written, entries, taken = [], [], set()

    def pages():
        # A sheet at a time, since the maps of many images take much memory.
        for part in drawing.sheet_parts(len(kept)):
            localized = localize_images(localizer, pixels[part], titles[part])
            output.mkdir(parents=True, exist_ok=True)
            for each, file in zip(localized, kept[part], strict=True):
                written.append(output / f"{drawing.free_name(each.title, taken)}.png")
                drawing.save(picture(each), written[-1])
                entries.append(describe(each, file, trained.spec, written[-1]))
            yield sheet(localized)

    sheets = drawing.write_pages(pages(), output)
    result = {
        "model": str(trained.path),
        "checkpoint": trained.checkpoint,
        "settings": settings,
        "images": entries,
    }
    target = output / "localized.json"
    with write_then_rename(target) as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())
    return LocalizedFiles(result, [*written, *sheets, target], problems)


def describe(localized, file, spec, drawn):
    """One image's patches as plain data.

    Args:
        localized: `Localized`.
        file: The image's path.
        spec: `ImageSpec` that it was fitted to.
        drawn: Path of its picture.

    Returns:
        Dict of `image`, `picture`: paths; `class`, `probability`; `patch_size`
        `[height, width]` of the branch that chose, or `None`; `branches`: for each
        `patch_size` and its own `class`, `probability` and `logit`; `patches`: for
        each, in order,

        - `box`: `[y0, x0, y1, x1]` in pixels of the model's image, `image_size`,
        - `box_in_file`: in pixels of the file, turned upright, `file_size`, rounded,
          and cut off where the box reaches beyond the file,
        - `score`: its evidence, the part of its branch's `logit` that it contributes,
        - `class`, `probability` and `probabilities` by class where patches are
          classified.
    """
    height, width = image_size(str(file), str(file))
    names = localized.class_names
    in_file = boxes_in_file(localized.boxes, spec, (height, width))
    patches = [
        {"box": box.tolist(), "box_in_file": original.tolist(), "score": float(score)}
        for box, original, score in zip(
            localized.boxes, in_file, localized.scores, strict=True
        )
    ]
    if localized.patch_probabilities is not None:
        for patch, row in zip(patches, localized.patch_probabilities, strict=True):
            patch.update(_answer(row, names))
            patch["probabilities"] = dict(zip(names, row.tolist(), strict=True))
    branches = [
        {
            "patch_size": list(each.patch_size),
            **_answer(each.probabilities, names),
            "logit": float(each.logits.max()),
        }
        for each in localized.branches
    ]
    chosen = localized.chosen
    return {
        "image": str(file),
        "picture": str(drawn),
        **_answer(localized.probabilities, names),
        "patch_size": None if chosen is None else list(chosen.patch_size),
        "image_size": list(localized.image.shape[:2]),
        "file_size": [height, width],
        "patches": patches,
        "branches": branches,
    }


def _answer(probabilities, names):
    label = int(probabilities.argmax())
    return {"class": names[label], "probability": float(probabilities[label])}


def boxes_in_file(boxes, spec, size):
    """Boxes in the pixels of the file that an image was made from.

    Undoes `ImagePreprocessing.fit_size`: the central crop, the resize, and the crop to
    the aspect ratio before it. Integers `(..., 4)`, rounded to the nearest pixel and
    cut off at the border of the file, whose `size` is its height and width.
    """
    corners = []
    start, scale = frame_windows(size, spec)
    for axis in (0, 1):
        ends = start[axis] + scale[axis] * np.asarray(boxes, "float64")[..., axis::2]
        corners.append(np.clip(np.floor(ends + 0.5), 0, size[axis]).astype(int))
    return np.stack(corners, axis=-1).reshape(np.shape(boxes))
