"""The files of fine-grained data sets in their official layouts, a few images each."""

import io
import json
import zipfile

import numpy as np
from PIL import Image
from scipy.io import savemat


def jpeg(height, width, number=0, banner=0):
    """A picture that is dark but for a banner of white rows at its bottom."""
    pixels = np.random.default_rng(number).integers(0, 90, (height, width, 3), "uint8")
    pixels[height - banner :] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def lines(*rows):
    return "".join(f"{row}\n" for row in rows).encode()


def packed(files):
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def birds(folder="CUB_200_2011/"):
    """Three species; images 1 to 5, of which 2 and 5 are for testing."""
    names = (
        "001.Black_footed_Albatross",
        "002.Laysan_Albatross",
        "003.Sooty_Albatross",
    )
    images = [
        (names[0], "Black_Footed_Albatross_0046_18.jpg", 40, 50),
        (names[0], "Black_Footed_Albatross_0009_34.jpg", 50, 40),
        (names[1], "Laysan_Albatross_0003_1033.jpg", 41, 51),
        (names[2], "Sooty_Albatross_0040_796340.jpg", 60, 33),
        (names[2], "Sooty_Albatross_0001_1.jpg", 37, 37),
    ]
    files = {
        "images.txt": lines(
            *(f"{i} {n}/{f}" for i, (n, f, *_) in enumerate(images, 1))
        ),
        "classes.txt": lines(*(f"{i} {name}" for i, name in enumerate(names, 1))),
        "image_class_labels.txt": b"1 1\n2 1\n3 2\n4 3\n5 3\n",
        "train_test_split.txt": b"1 1\n2 0\n3 1\n4 1\n5 0\n",
        "bounding_boxes.txt": lines(
            "1 6.0 2.0 30.0 25.0",
            "2 0.0 0.0 40.0 50.0",
            # One column beyond the image.
            "3 10.4 20.6 41.6 10.0",
            "4 3.0 4.0 5.0 6.0",
            "5 1.0 1.0 1.0 1.0",
        ),
        "README": b"The Caltech-UCSD Birds-200-2011 Dataset\n",
        "parts/parts.txt": b"1 back\n",
    }
    for number, (name, file, height, width) in enumerate(images):
        files[f"images/{name}/{file}"] = jpeg(height, width, number)
    return {f"{folder}{name}": data for name, data in files.items()}


def mat(**variables):
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=True)
    return buffer.getvalue()


def struct_array(fields, rows):
    """A 1 x N struct array as MATLAB saves it."""
    table = np.empty((1, len(rows)), [(field, object) for field in fields])
    for place, row in enumerate(rows):
        for field, value in zip(fields, row, strict=True):
            # Numbers are saved in the smallest type that holds them.
            is_text = isinstance(value, str)
            value = value if is_text else np.array(value, np.min_scalar_type(value))
            table[field][0, place] = value
    return table


def cells(*texts):
    table = np.empty((1, len(texts)), object)
    table[0, :] = texts
    return table


CAR_NAMES = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012")
# Columns x1, y1, x2, y2, class, file, height, width.
CARS_TRAIN = [
    (5, 2, 50, 30, 2, "00001.jpg", 40, 50),
    (1, 1, 300, 20, 1, "00002.jpg", 20, 300),
]
CARS_TEST = [(3, 4, 20, 31, 3, "00001.jpg", 31, 22), (9, 9, 9, 9, 2, "00002.jpg", 9, 9)]
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def cars():
    """Unpacked `cars_train.tgz`, `cars_test.tgz` and `car_devkit.tgz`."""
    fields = (*BOX, "class", "fname")
    train = struct_array(fields, [row[:6] for row in CARS_TRAIN])
    test = struct_array(fields, [row[:6] for row in CARS_TEST])
    without = struct_array((*BOX, "fname"), [(*row[:4], row[5]) for row in CARS_TEST])
    files = {
        "devkit/cars_meta.mat": mat(class_names=cells(*CAR_NAMES)),
        "devkit/cars_train_annos.mat": mat(annotations=train),
        "devkit/cars_test_annos.mat": mat(annotations=without),
        "cars_test_annos_withlabels.mat": mat(annotations=test),
    }
    for folder, rows in (("cars_train", CARS_TRAIN), ("cars_test", CARS_TEST)):
        for number, (*_, name, height, width) in enumerate(rows):
            files[f"{folder}/{name}"] = jpeg(height, width, number)
    return files


def cars_of_one_file():
    """The same with `car_ims.tgz` and `cars_annos.mat`."""
    rows, files = [], {}
    for test, cars in enumerate((CARS_TRAIN, CARS_TEST)):
        for *box, label, _, height, width in cars:
            name = f"car_ims/{len(rows) + 1:06}.jpg"
            rows.append((name, *box, label, test))
            files[name] = jpeg(height, width)
    fields = ("relative_im_path", *BOX, "class", "test")
    annotations = struct_array(fields, rows)
    files["cars_annos.mat"] = mat(
        annotations=annotations, class_names=cells(*CAR_NAMES)
    )
    return files


def aircraft(folder="fgvc-aircraft-2013b/data/"):
    """Three variants, five images, each with a white banner of 20 rows."""
    files = {
        "variants.txt": lines("707-320", "Cessna 172", "F/A-18"),
        "images_variant_trainval.txt": lines(
            "1025794 707-320", "0056978 Cessna 172", "0698580 F/A-18"
        ),
        "images_variant_test.txt": lines("0450014 F/A-18", "1042824 Cessna 172"),
        "images_variant_train.txt": lines("1025794 707-320"),
        "images_box.txt": lines(
            "0056978 1 1 48 40",
            "0450014 10 5 30 25",
            "0698580 7 8 9 10",
            # Reaches to the end of the banner.
            "1025794 3 14 50 60",
            "1042824 2 2 3 3",
        ),
    }
    for number, (name, height, width) in enumerate(
        (("1025794", 60, 50), ("0056978", 60, 48), ("0698580", 50, 50))
    ):
        files[f"images/{name}.jpg"] = jpeg(height, width, number, banner=20)
    for name in ("0450014", "1042824"):
        files[f"images/{name}.jpg"] = jpeg(45, 35, banner=20)
    return {f"{folder}{name}": data for name, data in files.items()}


CATEGORIES = [
    {"id": 0, "name": "Nicrophorus tomentosus", "supercategory": "Insecta"},
    {"id": 1, "name": "Halyomorpha halys", "supercategory": "Insecta"},
    {"id": 2, "name": "Betula lenta", "supercategory": "Plantae"},
]


def species(zipped=False):
    """`train_val_images.tar.gz` unpacked, lists and boxes as they are or zipped."""
    files, contents = {}, {}
    # File, height, width, category; numbers of images as large as the real ones'.
    listed = {
        "train": [("a", 30, 40, 0), ("b", 40, 30, 2), ("c", 25, 25, 1)],
        "val": [("d", 20, 60, 1), ("e", 33, 44, 2)],
    }
    for part, rows in listed.items():
        images, annotations = [], []
        for number, (name, height, width, category) in enumerate(rows):
            kind = CATEGORIES[category]
            file = f"train_val_images/{kind['supercategory']}/{kind['name']}/{name}.jpg"
            files[file] = jpeg(height, width, number)
            key = 430720 + number
            images.append(
                {"id": key, "file_name": file, "height": height, "width": width}
            )
            annotations.append({"id": number, "image_id": key, "category_id": category})
        content = {"images": images, "annotations": annotations}
        contents[f"{part}2017.json"] = {**content, "categories": CATEGORIES, "info": {}}
    contents["train_2017_bboxes.json"] = {
        # Numbers of their own.
        "images": [
            {**image, "id": image["id"] + 100}
            for image in contents["train2017.json"]["images"]
            if "Insecta" in image["file_name"]
        ],
        "annotations": [
            {"id": 0, "image_id": 430820, "category_id": 0, "bbox": [2, 3, 10, 4]},
            {"id": 1, "image_id": 430820, "category_id": 0, "bbox": [4.5, 5, 20, 20]},
            {"id": 2, "image_id": 430822, "category_id": 1, "bbox": [0, 0, 25.2, 9]},
        ],
    }
    contents["val_2017_bboxes.json"] = {
        "images": contents["val2017.json"]["images"],
        "annotations": [
            {"id": 9, "image_id": 430720, "category_id": 1, "bbox": [50, 10, 10, 10]}
        ],
    }
    texts = {name: json.dumps(value).encode() for name, value in contents.items()}
    if not zipped:
        return files | texts
    for archive, names in {
        "train_val2017.zip": ("train2017.json", "val2017.json"),
        "train_2017_bboxes.zip": ("train_2017_bboxes.json",),
        "val_2017_bboxes.zip": ("val_2017_bboxes.json",),
    }.items():
        files[archive] = packed({f"here/{name}": texts[name] for name in names})
    return files
