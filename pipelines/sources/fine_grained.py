"""Birds, cars and aircraft in the layouts of their official archives.

Each function takes a `FileTree` that has the official files, in any folder, and gives
a `Listing`, with `box` among its annotations. All raise a ValueError for a file that is
missing or damaged, an image that is not there, or a class out of range.
"""

from keras_attn.pipelines.sources.annotation_files import (
    ListedImage,
    check_keys,
    check_same_keys,
    find,
    is_there,
    keyed_lines,
    listing_of,
    mat_records,
    mat_value,
    numbers,
    read_mat,
    text_lines,
)

CARS_FIELDS = {
    "bbox_y1": float,
    "bbox_x1": float,
    "bbox_y2": float,
    "bbox_x2": float,
    "class": float,
}


def list_cub200_2011(tree):
    """CUB-200-2011 (Wah et al., 2011).

    `images.txt`, `classes.txt`, `image_class_labels.txt`, `train_test_split.txt` and
    `bounding_boxes.txt` give, each by a number, the images in `images/` and the
    classes, and for each image its class, its part, and its box: x, y, width and
    height.
    """
    images_file = find(tree, "images.txt", "cub200_2011")
    folder = images_file.removesuffix("images.txt")
    classes_file = find(tree, "classes.txt", "cub200_2011")
    images = keyed_lines(tree, images_file, "<image id> <image name>")
    classes = keyed_lines(tree, classes_file, "<class id> <class name>")
    expected = [str(number + 1) for number in range(len(classes))]
    if list(classes) != expected:
        raise ValueError(
            f"Expected classes numbered from 1. Received: {list(classes)[:3]}... in "
            f"{tree.where(classes_file)}."
        )
    tables = []
    for name, layout, parse in (
        (
            "image_class_labels.txt",
            f"<image id> <class id from 1 to {len(classes)}>",
            lambda text: expected.index(text),
        ),
        (
            "train_test_split.txt",
            "<image id> <1 for training, else 0>",
            lambda text: ("test", "train")[("0", "1").index(text)],
        ),
        ("bounding_boxes.txt", "<image id> <x> <y> <width> <height>", _bird_corners),
    ):
        path = find(tree, name, "cub200_2011")
        tables.append(keyed_lines(tree, path, layout, parse))
        check_same_keys(tree, images, images_file, tables[-1], path)
    rows = [
        ListedImage(f"{folder}images/{name}", *(table[key] for table in tables))
        for key, name in images.items()
    ]
    # Without the number in front: "001.Black_footed_Albatross". In small letters, as
    # TensorFlow Datasets has them, so that a model of the one fits the other.
    names = [name.partition(".")[2].lower() or name for name in classes.values()]
    return listing_of(tree, rows, names, "cub200_2011")


def _bird_corners(text):
    x, y, width, height = numbers(text, 4)
    if min(width, height) <= 0:
        raise ValueError
    return y, x, y + height, x + width


def list_fgvc_aircraft(tree):
    """FGVC-Aircraft 2013b (Maji et al., 2013), its variants.

    `variants.txt` has the classes, `images_variant_trainval.txt` and
    `images_variant_test.txt` the class of each image in `images/`, `images_box.txt`
    its box: the first and the last pixel, x before y, counted from 1.
    """
    variants_file = find(tree, "variants.txt", "fgvc_aircraft")
    folder = variants_file.removesuffix("variants.txt")
    names = [line for _, line in text_lines(tree, variants_file)]
    number = {name: label for label, name in enumerate(names)}
    boxes_file = find(tree, "images_box.txt", "fgvc_aircraft")
    layout = "<image> <xmin> <ymin> <xmax> <ymax>"
    boxes = keyed_lines(tree, boxes_file, layout, _aircraft_corners)
    rows, listed = [], {}
    for part, name in (("train", "trainval"), ("test", "test")):
        path = find(tree, f"images_variant_{name}.txt", "fgvc_aircraft")
        layout = f"<image> <one of the {len(names)} names in variants.txt>"
        labels = keyed_lines(tree, path, layout, lambda text: _known(text, number))
        check_keys(tree, labels, path, boxes, boxes_file)
        for image, label in labels.items():
            if image in listed:
                raise ValueError(
                    f"Expected every image in one part. Received: {image} in "
                    f"{tree.where(listed[image])} and in {tree.where(path)}."
                )
            listed[image] = path
            name = f"{folder}images/{image}.jpg"
            rows.append(ListedImage(name, label, part, boxes[image]))
    check_keys(tree, boxes, boxes_file, listed, path)
    return listing_of(tree, rows, names, "fgvc_aircraft")


def _aircraft_corners(text):
    left, top, right, bottom = numbers(text, 4)
    if right < left or bottom < top:
        raise ValueError
    return top, left, bottom, right


def _known(text, number):
    if text not in number:
        raise ValueError
    return number[text]


def list_stanford_cars(tree):
    """Stanford Cars (Krause et al., 2013).

    `cars_train/` and `cars_test/` with `cars_meta.mat`, `cars_train_annos.mat` and
    `cars_test_annos_withlabels.mat`; or `car_ims/` with `cars_annos.mat`, which has
    all of it. Boxes are the first and the last pixel, counted from 1.
    """
    if is_there(tree, "cars_annos.mat") and not is_there(tree, "cars_train_annos.mat"):
        names, cars = _cars_of_one_file(tree)
    else:
        names, cars = _cars_of_devkit(tree)
    # By folder and file: some copies have each folder inside another one.
    places = {"/".join(name.split("/")[-2:]): name for name in tree.sizes}
    rows = []
    for image, part, where, (top, left, bottom, right, number) in cars:
        if number not in range(1, len(names) + 1):
            raise ValueError(
                f"Expected classes from 1 to {len(names)}. Received: {number:g} of "
                f"{image} in {where}."
            )
        if right < left or bottom < top:
            raise ValueError(
                "Expected boxes that end after they begin. Received: (x1, y1, x2, y2) "
                f"= {(left, top, right, bottom)} of {image} in {where}."
            )
        corners = top, left, bottom, right
        rows.append(
            ListedImage(places.get(image, image), int(number) - 1, part, corners)
        )
    return listing_of(tree, rows, names, "stanford_cars")


def _cars_of_one_file(tree):
    """Class names, and for each image: name, part, name of the file, numbers."""
    path = find(tree, "cars_annos.mat", "stanford_cars")
    where = tree.where(path)
    content = read_mat(tree, path, "stanford_cars")
    kinds = {"relative_im_path": str, "test": float, **CARS_FIELDS}
    cars = [
        ("/".join(name.split("/")[-2:]), "test" if test else "train", where, values)
        for name, test, *values in mat_records(content, "annotations", kinds, where)
    ]
    return _car_names(content, where), cars


def _cars_of_devkit(tree):
    """The same from the three files of the development kit."""
    path = find(tree, "cars_meta.mat", "stanford_cars")
    names = _car_names(read_mat(tree, path, "stanford_cars"), tree.where(path))
    cars = []
    for part, file in (
        ("train", "cars_train_annos.mat"),
        # `cars_test_annos.mat` of the development kit has no classes.
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        path = find(tree, file, "stanford_cars")
        where = tree.where(path)
        content = read_mat(tree, path, "stanford_cars")
        kinds = {"fname": str, **CARS_FIELDS}
        for name, *values in mat_records(content, "annotations", kinds, where):
            cars.append((f"cars_{part}/{name}", part, where, values))
    return names, cars


def _car_names(content, where):
    try:
        return [mat_value(cell, str) for cell in content["class_names"].ravel()]
    except (KeyError, AttributeError, ValueError):
        raise ValueError(
            f"Expected the cells of class names, 'class_names', in {where}. Received: "
            "none, or others"
        ) from None
