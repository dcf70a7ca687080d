"""iNaturalist-2017, from a tiny copy of its official files."""

import json
import re

import numpy as np
import pytest

from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.pipelines.sources.load import load_source
from tests.pipelines import official_files as official
from tests.pipelines.sources.test_archives import write_tar
from tests.pipelines.sources.test_load import make_folder

ABSENT = [-1, -1, -1, -1]


@pytest.mark.parametrize("kind", ["unpacked", "zip", "tar", "around"])
def test_species_super_classes_and_boxes(tmp_path, kind):
    files = official.species(zipped=kind == "zip")
    if kind == "tar":
        path = write_tar(tmp_path / "all.tar.gz", files, "w:gz")
    else:
        root = tmp_path / "inat" / "2017" if kind == "around" else tmp_path
        make_folder(root, files)
        path = tmp_path
    source = load_source("inaturalist2017", path)
    assert source.class_names == tuple(c["name"] for c in official.CATEGORIES)
    assert source.labels.tolist() == [0, 2, 1, 1, 2]
    assert {part: i.tolist() for part, i in source.official.items()} == {
        "train": [0, 1, 2],
        "validation": [3, 4],
    }
    annotations = source.annotations
    assert annotations["super_class"].tolist() == [
        "Insecta",
        "Plantae",
        "Insecta",
        "Insecta",
        "Plantae",
    ]
    # The larger of two boxes; plants have none; rounding is cut off.
    boxes = [[5, 5, 25, 25], ABSENT, [0, 0, 9, 25], [10, 50, 20, 60], ABSENT]
    assert annotations["box"].tolist() == boxes
    sizes = [list(source.array(index).shape[:2]) for index in range(5)]
    assert annotations["size"].tolist() == sizes
    assert source.where(0).startswith("train_val_images/Insecta/Nicrophorus") or (
        "/train_val_images/Insecta/Nicrophorus tomentosus/a.jpg" in source.where(0)
    )


def test_without_boxes(tmp_path):
    files = official.species()
    files = {name: data for name, data in files.items() if "bboxes" not in name}
    source = load_source("inaturalist2017", make_folder(tmp_path, files))
    assert set(source.annotations) == {"size", "super_class"}
    del files["val2017.json"]
    (tmp_path / "val2017.json").unlink()
    with pytest.raises(ValueError, match="Expected val2017.json.*train_val2017.zip"):
        load_source("inaturalist2017", tmp_path)


def changed(content, key, number, **fields):
    """A list of a JSON file with other fields in one entry, `None` for without."""
    rows = [dict(row) for row in content[key]]
    rows[number].update(fields)
    rows[number] = {k: v for k, v in rows[number].items() if v is not None}
    return {**content, key: rows}


@pytest.mark.parametrize(
    "file, change, message",
    [
        ("val2017.json", lambda c: [1], "list 'categories' in .*val2017.json"),
        (
            "train2017.json",
            lambda c: {**c, "images": 3},
            "Expected a list 'images' in .*train2017.json",
        ),
        (
            "train2017.json",
            lambda c: changed(c, "annotations", 1, category_id=None),
            "image_id, category_id in every entry of 'annotations'.*entry 1$",
        ),
        (
            "train2017.json",
            lambda c: changed(c, "annotations", 1, category_id=5),
            "one of the 3 categories. Received: category_id 5 of image 430721 in",
        ),
        (
            "train2017.json",
            lambda c: changed(c, "annotations", 1, image_id=430720),
            "one species per image. Received: 0 and 2 of image 430720",
        ),
        (
            "train2017.json",
            lambda c: {**c, "annotations": c["annotations"][:2]},
            "every image once.*image 430722, .*c.jpg, in .*train2017.json",
        ),
        (
            "train2017.json",
            lambda c: changed(c, "images", 2, width=0),
            "every image once, with its size.*image 430722",
        ),
        (
            "train2017.json",
            lambda c: changed(c, "images", 2, height="25"),
            "id, file_name, height, width in every entry of 'images'.*entry 2",
        ),
        (
            "val2017.json",
            lambda c: changed(c, "categories", 2, name="Oak"),
            r"\['Betula lenta', 'Plantae'\] as category 2. Received: \['Oak'",
        ),
        (
            "train2017.json",
            lambda c: changed(c, "images", 0, file_name="train_val_images/x.jpg"),
            "all 5 listed images .*lacks .*train_val_images/x.jpg",
        ),
        (
            "train_2017_bboxes.json",
            lambda c: changed(c, "annotations", 0, image_id=7),
            "boxes of the images that the same file lists.*image 7 in .*bboxes.json",
        ),
        (
            "train_2017_bboxes.json",
            lambda c: changed(c, "annotations", 0, bbox=None),
            "bbox in every entry of 'annotations' in .*bboxes.json",
        ),
    ],
)
def test_damaged_lists(tmp_path, file, change, message):
    files = official.species()
    files[file] = json.dumps(change(json.loads(files[file]))).encode()
    with pytest.raises(ValueError) as caught:
        load_source("inaturalist2017", make_folder(tmp_path, files))
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("train2017.json", b'{"images": [', "complete JSON file train2017.json"),
        ("train2017.json", b"\xff\xfe\x00", "complete JSON file train2017.json"),
        ("train_val2017.zip", b"no archive", "train2017.json. Received: .*zip"),
        ("train_val2017.zip", {"a": b"x"}, "not in this archive"),
    ],
)
def test_damaged_files(tmp_path, name, data, message):
    data = official.packed(data) if isinstance(data, dict) else data
    files = official.species(zipped=name.endswith(".zip")) | {name: data}
    with pytest.raises(ValueError, match=message):
        load_source("inaturalist2017", make_folder(tmp_path, files))


@pytest.mark.parametrize(
    "bbox, message",
    [
        ([1, 2, 3], "is empty or damaged"),
        ([1, 2, 0, 4], "is empty or damaged"),
        ([1, 2, "3", 4], "is empty or damaged"),
        ([1, float("nan"), 3, 4], "is empty or damaged"),
        ([float("inf"), 2, 3, 4], "is empty or damaged"),
        ([20, 2, 60, 4], "outside the image of 30 x 40 pixels"),
    ],
)
def test_a_box_that_is_none_or_outside(tmp_path, bbox, message):
    files = official.species()
    name = "train_2017_bboxes.json"
    content = changed(json.loads(files[name]), "annotations", 1, bbox=bbox)
    content = changed(content, "annotations", 0, bbox=[2, 3, 1, 1])
    files[name] = json.dumps(content).encode()
    path = make_folder(tmp_path, files)
    with pytest.raises(CorruptImageError, match=f"a.jpg: its box .*{message}.*skip"):
        load_source("inaturalist2017", path)
    source = load_source("inaturalist2017", path, on_corrupt="skip")
    assert source.labels.tolist() == [2, 1, 1, 2]
    assert source.annotations["box"][:2].tolist() == [ABSENT, [0, 0, 9, 25]]
    assert len(source.skipped) == 1


def test_the_folder_of_images_is_missing(tmp_path):
    files = official.species()
    files = {name: data for name, data in files.items() if name.endswith("json")}
    with pytest.raises(ValueError, match="the folder train_val_images"):
        load_source("inaturalist2017", make_folder(tmp_path, files))


def test_sizes_need_no_files(tmp_path):
    """Of more than half a million images no header is read."""
    path = make_folder(tmp_path, official.species())
    for image in (path / "train_val_images").glob("*/*/*.jpg"):
        image.write_bytes(b"not read")
    source = load_source("inaturalist2017", path)
    np.testing.assert_array_equal(source.annotations["size"][3], [20, 60])
