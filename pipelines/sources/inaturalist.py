"""iNaturalist-2017 in the layout of its official archives (Van Horn et al., 2018)."""

import math

from keras_attn.pipelines.sources.annotation_files import (
    NO_BOX,
    ListedImage,
    entries,
    find,
    is_there,
    listing_of,
    read_json,
)

NAME = "inaturalist2017"
IMAGES = "train_val_images"


def list_inaturalist2017(tree):
    """The images of the training and the validation set, their species and boxes.

    The images are in `train_val_images/SUPER CLASS/SPECIES/`. `train2017.json` and
    `val2017.json` list them, with their sizes and species, each of which has a super
    class; the files may still be in `train_val2017.zip`. Where they are there,
    `train_2017_bboxes.json` and `val_2017_bboxes.json`, or their zip archives, have
    boxes: x, y, width and height. Not every image has one; the largest of several,
    which the authors drew around everything of the super class, is taken.

    Args:
        tree: A `FileTree` with these files.

    Returns:
        A `Listing` with the annotations `size` (height and width), `super_class` (its
        name) and, where there are boxes, `box`.

    Raises:
        ValueError: A file or an image is missing, or a file damaged.
    """
    categories, parts = {}, []
    for part, short in (("train", "train"), ("validation", "val")):
        file = f"{short}2017.json"
        path = find(tree, file, NAME, packed=["train_val2017.zip"])
        content, where = read_json(tree, file, path), tree.where(path)
        _add_categories(categories, content, where)
        boxes = _boxes(tree, short)
        parts.append((part, _images(content, categories, where), boxes))
    number = {key: label for label, key in enumerate(sorted(categories))}
    root = _folder_of_images(tree)
    rows, problems = [], []
    for part, images, boxes in parts:
        for file, (height, width, key) in images.items():
            corners, reason = boxes.get(file, (NO_BOX, None))
            others = {"size": (height, width), "super_class": categories[key][1]}
            rows.append(ListedImage(root + file, number[key], part, corners, others))
            if reason:
                problems.append((root + file, reason))
    names = [categories[key][0] for key in number]
    return listing_of(tree, rows, names, NAME, problems)


def _add_categories(categories, content, where):
    """Adds species and super class by number; they must be the same in both files."""
    kinds = {"id": int, "name": str, "supercategory": str}
    for key, *names in entries(content, "categories", kinds, where):
        if categories.setdefault(key, names) != names:
            raise ValueError(
                f"Expected {categories[key]} as category {key}. Received: {names} in "
                f"{where}."
            )


def _images(content, categories, where):
    """Height, width and category of each file."""
    species = {}
    kinds = {"image_id": int, "category_id": int}
    for image, key in entries(content, "annotations", kinds, where):
        if key not in categories:
            raise ValueError(
                f"Expected one of the {len(categories)} categories. Received: "
                f"category_id {key} of image {image} in {where}."
            )
        if species.setdefault(image, key) != key:
            raise ValueError(
                f"Expected one species per image. Received: {species[image]} and {key} "
                f"of image {image} in {where}."
            )
    images = {}
    kinds = {"id": int, "file_name": str, "height": int, "width": int}
    for image, file, *size in entries(content, "images", kinds, where):
        if image not in species or file in images or min(size) < 1:
            raise ValueError(
                "Expected every image once, with its size and an annotation. Received: "
                f"image {image}, {file}, in {where}."
            )
        images[file] = (*size, species[image])
    return images


def _boxes(tree, short):
    """The largest box of each file that has any, and its problem or `None`."""
    file = f"{short}_2017_bboxes.json"
    packed = f"{short}_2017_bboxes.zip"
    if not is_there(tree, file) and not is_there(tree, packed):
        return {}
    path = find(tree, file, NAME, packed=[packed])
    content, where = read_json(tree, file, path), tree.where(path)
    files = dict(entries(content, "images", {"id": int, "file_name": str}, where))
    found, areas = {}, {}
    kinds = {"image_id": int, "bbox": list}
    for image, box in entries(content, "annotations", kinds, where):
        if image not in files:
            raise ValueError(
                "Expected boxes of the images that the same file lists. Received: one "
                f"of image {image} in {where}."
            )
        file = files[image]
        if _is_box(box):
            x, y, width, height = box
            if width * height > areas.get(file, 0):
                areas[file] = width * height
                found[file] = (y, x, y + height, x + width), None
        else:
            areas[file] = math.inf
            found[file] = (
                NO_BOX,
                f"its box (x, y, width, height) = {box} is empty or damaged",
            )
    return found


def _is_box(box):
    numbers = [n for n in box if isinstance(n, int | float) and math.isfinite(n)]
    return len(numbers) == len(box) == 4 and min(numbers[2:]) > 0


def _folder_of_images(tree):
    """Prefix of the files' names, which begin with `train_val_images/`."""
    found = [
        name for name in tree.folders if name == IMAGES or name.endswith(f"/{IMAGES}")
    ]
    if not found:
        raise ValueError(
            f"Expected the folder {IMAGES} with the images of {NAME}. Received: "
            f"{tree.root}, which lacks it."
        )
    return min(found, key=lambda name: name.count("/")).removesuffix(IMAGES)
