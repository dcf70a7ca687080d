"""Birds, cars and aircraft, from tiny copies of their official archives."""

import re
import sys

import numpy as np
import pytest

from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.pipelines.images.streaming import load_images
from keras_attn.pipelines.sources.catalogue import KNOWN
from keras_attn.pipelines.sources.load import load_source
from keras_attn.pipelines.sources.splits import split_indices
from keras_attn.preprocessing import ImageSpec
from tests.pipelines import official_files as official
from tests.pipelines.sources.test_archives import write_tar
from tests.pipelines.sources.test_load import make_folder


def parts(source):
    return {part: indices.tolist() for part, indices in source.official.items()}


def names(source):
    return [source.where(index).split("/")[-1] for index in range(len(source))]


BIRD_BOXES = [
    [2, 6, 27, 36],
    [0, 0, 50, 40],
    # Drawn from x 10.4 to 52.0 in an image 51 wide.
    [21, 10, 31, 51],
    [4, 3, 10, 8],
    [1, 1, 2, 2],
]


@pytest.mark.parametrize("kind", ["folder", "its folder", "tgz", "around"])
def test_birds(tmp_path, kind):
    if kind == "tgz":
        path = write_tar(tmp_path / "CUB_200_2011.tgz", official.birds(), "w:gz")
    else:
        around = "data/birds/" if kind == "around" else "CUB_200_2011/"
        path = make_folder(tmp_path, official.birds(around))
        path = path / around if kind == "its folder" else path
    source = load_source("cub200_2011", path)
    assert source.class_names == (
        "black_footed_albatross",
        "laysan_albatross",
        "sooty_albatross",
    )
    assert source.labels.tolist() == [0, 0, 1, 2, 2]
    assert source.labels.dtype == np.int32
    assert parts(source) == {"train": [0, 2, 3], "test": [1, 4]}
    assert source.annotations["box"].tolist() == BIRD_BOXES
    assert source.annotations["box"].dtype == np.int32
    sizes = [[40, 50], [50, 40], [41, 51], [60, 33], [37, 37]]
    assert source.annotations["size"].tolist() == sizes
    assert "Laysan_Albatross_0003_1033.jpg" in source.where(2)
    assert [list(source.array(i).shape[:2]) for i in range(5)] == sizes
    assert source.url == KNOWN["cub200_2011"].url and "non-comm" in source.licence


@pytest.mark.parametrize("files", [official.cars, official.cars_of_one_file])
def test_cars(tmp_path, files):
    source = load_source("stanford_cars", make_folder(tmp_path, files()))
    assert source.class_names == official.CAR_NAMES
    assert source.labels.tolist() == [1, 0, 2, 1]
    assert parts(source) == {"train": [0, 1], "test": [2, 3]}
    # First and last pixel, from 1 on: (5, 2) to (50, 30) begins one before.
    boxes = [[1, 4, 30, 50], [0, 0, 20, 300], [3, 2, 31, 20], [8, 8, 9, 9]]
    assert source.annotations["box"].tolist() == boxes
    assert [source.array(i).shape[:2] for i in range(4)] == [
        (40, 50),
        (20, 300),
        (31, 22),
        (9, 9),
    ]
    if files is official.cars:
        assert "cars_test/00001.jpg" in source.where(2)


def test_cars_in_folders_twice(tmp_path):
    files = {
        re.sub("^(cars_[a-z]+)/", r"\1/\1/", name): data
        for name, data in official.cars().items()
    }
    source = load_source("stanford_cars", make_folder(tmp_path, files))
    assert "cars_train/cars_train/00002.jpg" in source.where(1)


def test_aircraft_without_their_banner(tmp_path):
    path = make_folder(tmp_path, official.aircraft())
    source = load_source("fgvc_aircraft", path)
    assert source.class_names == ("707-320", "Cessna 172", "F/A-18")
    assert source.labels.tolist() == [0, 1, 2, 2, 1]
    assert parts(source) == {"train": [0, 1, 2], "test": [3, 4]}
    assert names(source)[0] == "1025794.jpg"
    # The first box is cut off where the banner of 20 rows begins.
    boxes = [[13, 2, 40, 50], [0, 0, 40, 48], [7, 6, 10, 9], [4, 9, 25, 30]]
    assert source.annotations["box"].tolist() == [*boxes, [1, 1, 3, 3]]
    assert source.annotations["size"][:2].tolist() == [[40, 50], [40, 48]]
    spec = ImageSpec(24, 24)
    _, fitted = load_images(source, spec)
    _, streamed = load_images(source, spec, in_memory_gib=0)
    np.testing.assert_array_equal(np.asarray(streamed), fitted)
    # The same files with their banners are other pixels.
    assert streamed.spec_of_pixels()[-1] == 20
    for index in range(5):
        image = source.array(index)
        assert image.shape[:2] == tuple(source.annotations["size"][index])
        # The pictures are dark, the banner is white.
        assert image.max() < 150 and fitted[index].max() < 150
    np.testing.assert_array_equal(source.array(2, spec), fitted[2])


def test_an_image_that_is_nothing_but_banner(tmp_path):
    files = official.aircraft()
    files["fgvc-aircraft-2013b/data/images/1042824.jpg"] = official.jpeg(20, 35)
    path = make_folder(tmp_path, files)
    with pytest.raises(CorruptImageError, match="1042824.jpg: 20 rows.*banner's 20"):
        load_source("fgvc_aircraft", path)
    assert len(load_source("fgvc_aircraft", path, on_corrupt="skip")) == 4


OFFICIAL = {
    "cub200_2011": (official.birds, "CUB_200_2011/"),
    "stanford_cars": (official.cars, ""),
    "fgvc_aircraft": (official.aircraft, "fgvc-aircraft-2013b/data/"),
}


def refused(tmp_path, name, changed):
    """The message about files of which some are changed, or gone (`None`)."""
    files, folder = OFFICIAL[name]
    files = files() | {folder + file: data for file, data in changed.items()}
    files = {file: data for file, data in files.items() if data is not None}
    with pytest.raises(ValueError) as caught:
        load_source(name, make_folder(tmp_path, files))
    message = str(caught.value)
    assert "\n" not in message and str(tmp_path) in message
    return message


@pytest.mark.parametrize(
    "name, file, data, message",
    [
        ("cub200_2011", "images.txt", None, "Expected images.txt, .*CUB_200_2011.tgz"),
        (
            "cub200_2011",
            "images.txt",
            b"",
            "'1' in .*labels.txt and not in .*images.txt",
        ),
        ("cub200_2011", "images.txt", b"1\n", "<image name> in .*'1' in line 1 of"),
        ("cub200_2011", "images.txt", b"\xff\xfe", "Expected a text file.*images.txt"),
        ("cub200_2011", "classes.txt", b"1 a\n3 b\n", "numbered from 1.*'1', '3'"),
        (
            "cub200_2011",
            "classes.txt",
            b"1 1.a\n2 2.b\n",
            "from 1 to 2>.*'4 3' in line",
        ),
        (
            "cub200_2011",
            "image_class_labels.txt",
            b"1 1\n2 0\n3 2\n4 3\n5 3\n",
            "class id from 1 to 3>.*'2 0' in line 2 of .*image_class_labels.txt",
        ),
        (
            "cub200_2011",
            "train_test_split.txt",
            b"1 1\n2 0\n3 2\n",
            "1 for training, else 0>.*'3 2' in line 3",
        ),
        (
            "cub200_2011",
            "train_test_split.txt",
            b"1 1\n2 0\n2 1\n",
            "one line for '2'.*line 3 of",
        ),
        (
            "cub200_2011",
            "bounding_boxes.txt",
            b"1 6 2 30 25\n2 0 0 40 50\n3 1 1 5 5\n4 3 4 5 6\n",
            "'5' in .*images.txt and not in .*bounding_boxes.txt",
        ),
        ("cub200_2011", "bounding_boxes.txt", b"1 6 2 30\n", "<height> .*line 1 of"),
        ("cub200_2011", "bounding_boxes.txt", b"1 6 2 nan 9\n", "<height> .*line 1"),
        ("cub200_2011", "bounding_boxes.txt", b"1 6 2 0 25\n", "<height> .*line 1 of"),
        (
            "cub200_2011",
            "images/002.Laysan_Albatross/Laysan_Albatross_0003_1033.jpg",
            None,
            "all 5 listed images of cub200_2011.*lacks .*Laysan_Albatross_0003",
        ),
        (
            "cub200_2011",
            "images/002.Laysan_Albatross/Laysan_Albatross_0003_1033.jpg",
            b"",
            "Laysan_Albatross_0003_1033.jpg: the file is empty.*on-corrupt skip",
        ),
        (
            "cub200_2011",
            "images/002.Laysan_Albatross/Laysan_Albatross_0003_1033.jpg",
            b"no picture",
            "Laysan_Albatross_0003_1033.jpg: not an image",
        ),
        ("fgvc_aircraft", "variants.txt", None, "variants.txt.*2013b.tar.gz"),
        ("fgvc_aircraft", "images_variant_test.txt", None, "images_variant_test.txt"),
        ("fgvc_aircraft", "variants.txt", b"707-320\n", "one of the 1 names .*line 2"),
        (
            "fgvc_aircraft",
            "images_variant_test.txt",
            b"1025794 707-320\n",
            "every image in one part. Received: 1025794 in .*trainval.*_test.txt",
        ),
        (
            "fgvc_aircraft",
            "images_variant_test.txt",
            b"0450014 F/A-18\n",
            "'1042824' in .*images_box.txt and not in .*images_variant_test.txt",
        ),
        (
            "fgvc_aircraft",
            "images_box.txt",
            b"1025794 1 1 9 9\n",
            "'0056978' in .*trainval.txt and not in .*images_box.txt",
        ),
        ("fgvc_aircraft", "images_box.txt", b"1025794 9 1 3 9\n", "<ymax> .*line 1 of"),
        ("fgvc_aircraft", "images/0698580.jpg", None, "lacks .*0698580.jpg"),
        ("stanford_cars", "devkit/cars_meta.mat", None, "Expected cars_meta.mat"),
        (
            "stanford_cars",
            "cars_test_annos_withlabels.mat",
            None,
            "Expected cars_test_annos_withlabels.mat, .*car_devkit.tgz",
        ),
        (
            "stanford_cars",
            "devkit/cars_meta.mat",
            b"MATLAB",
            "version 5.*cars_meta.mat",
        ),
        (
            "stanford_cars",
            "devkit/cars_meta.mat",
            official.cars()["devkit/cars_meta.mat"][:-30],
            "Expected a MAT-file of version 5. Received: .*cars_meta.mat",
        ),
        (
            "stanford_cars",
            "devkit/cars_meta.mat",
            official.mat(class_names=np.zeros((1, 3))),
            "cells of class names.*cars_meta.mat",
        ),
        (
            "stanford_cars",
            "devkit/cars_train_annos.mat",
            official.cars()["devkit/cars_test_annos.mat"],
            "with fname, .*cars_train_annos.mat. Received: no 'class'",
        ),
        (
            "stanford_cars",
            "devkit/cars_train_annos.mat",
            official.mat(annotations=3),
            "struct array 'annotations'.*cars_train_annos.mat",
        ),
        ("stanford_cars", "cars_train/00002.jpg", None, "lacks cars_train/00002.jpg"),
    ],
    # MAT-files hold the time: processes would collect other names.
    ids=lambda value: "bytes" if isinstance(value, bytes) else None,
)
def test_damage_is_one_clear_error(tmp_path, name, file, data, message):
    assert re.search(message, refused(tmp_path, name, {file: data}))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"class": 4}, "classes from 1 to 3. Received: 4 of cars_train/00001.jpg"),
        ({"class": 0}, "classes from 1 to 3. Received: 0 of"),
        ({"class": "x"}, "in row 1 of 'annotations' in .*cars_train_annos.mat"),
        (
            {"bbox_x2": 3},
            r"end after they begin.*\(5.0, 2.0, 3.0, 30.0\) of cars_train",
        ),
        ({"bbox_y1": float("nan")}, "in row 1 of 'annotations'"),
        ({"fname": ""}, "in row 1 of 'annotations'"),
        ({"fname": 7}, "in row 1 of 'annotations'"),
        ({"fname": "../../x.jpg"}, "lacks cars_train/../../x.jpg"),
    ],
)
def test_damaged_rows_of_cars(tmp_path, change, message):
    fields = (*official.BOX, "class", "fname")
    row = dict(zip(fields, official.CARS_TRAIN[0][:6], strict=True)) | change
    annotations = official.struct_array(fields, [tuple(row.values())])
    changed = {"devkit/cars_train_annos.mat": official.mat(annotations=annotations)}
    assert re.search(message, refused(tmp_path, "stanford_cars", changed))


def test_cars_without_scipy(tmp_path, monkeypatch):
    path = make_folder(tmp_path, official.cars())
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match=r"SciPy.*stanford_cars.*'keras-attn\[datas"):
        load_source("stanford_cars", path)


def test_other_layouts_are_for_the_data_set_folder(tmp_path):
    path = make_folder(tmp_path, ["train/a/0.png", "test/a/0.png"])
    for name in OFFICIAL:
        with pytest.raises(ValueError, match=f"files of {name}.*data set 'folder'"):
            load_source(name, path)


def test_aircraft_have_no_other_way():
    with pytest.raises(ValueError, match="--data.*fgvc-aircraft-2013b.tar.gz.*unpack"):
        load_source("fgvc_aircraft")


# ---- boxes and frames ----------------------------------------------------------------


def birds_with_box(tmp_path, line):
    files = official.birds()
    boxes = files["CUB_200_2011/bounding_boxes.txt"].replace(b"4 3.0 4.0 5.0 6.0", line)
    return make_folder(tmp_path, files | {"CUB_200_2011/bounding_boxes.txt": boxes})


@pytest.mark.parametrize("line", [b"4 3 4 33 6", b"4 100 4 5 6", b"4 3 -9 5 60"])
def test_boxes_outside_their_image(tmp_path, line):
    path = birds_with_box(tmp_path, line)
    with pytest.raises(CorruptImageError) as caught:
        load_source("cub200_2011", path)
    message = str(caught.value)
    assert "Sooty_Albatross_0040_796340.jpg: its box (y0, x0, y1, x1) = " in message
    assert "outside the image of 60 x 33 pixels" in message and "skip" in message
    source = load_source("cub200_2011", path, on_corrupt="skip")
    assert source.labels.tolist() == [0, 0, 1, 2]
    assert source.annotations["box"].tolist() == [*BIRD_BOXES[:3], BIRD_BOXES[4]]
    assert parts(source) == {"train": [0, 2], "test": [1, 3]}
    assert [file[-10:] for file, _ in source.skipped] == ["796340.jpg"]


def test_boxes_come_in_the_frame_of_the_images(tmp_path):
    source = load_source("cub200_2011", make_folder(tmp_path, official.birds()))
    spec = ImageSpec(20, 20)
    in_memory, images = load_images(source, spec)
    streamed, again = load_images(source, spec, in_memory_gib=0)
    # 40 x 50: columns 5 to 45, at half the size; 60 x 33: rows 13 to 46, times 20/33.
    expected = [[1, 1, 14, 16], [-1, -1, -1, -1]]
    for loaded in (in_memory, streamed):
        boxes = loaded.annotations["box"]
        assert boxes[[0, 3]].tolist() == expected and boxes.dtype == np.int32
        np.testing.assert_array_equal(boxes, in_memory.annotations["box"])
    np.testing.assert_array_equal(np.asarray(again), images)
    # Loading what is loaded, in the same or in another size, begins at the files.
    for loaded in (source, streamed):
        for size in (20, 10):
            other = load_images(loaded, ImageSpec(size, size), in_memory_gib=0)[0]
            assert other.annotations["box"][0].max() == {20: 16, 10: 8}[size]
            decoded = load_images(loaded, ImageSpec(size, size))[0]
            np.testing.assert_array_equal(
                decoded.annotations["box"], other.annotations["box"]
            )
    assert in_memory.decoded(spec) is in_memory
    assert source.annotations["box"].tolist() == BIRD_BOXES


def test_annotations_stay_with_their_images(tmp_path):
    files = official.birds()
    third = "CUB_200_2011/images/002.Laysan_Albatross/Laysan_Albatross_0003_1033.jpg"
    # Its header is whole.
    files[third] = files[third][:-200]
    source = load_source("cub200_2011", make_folder(tmp_path, files), on_corrupt="skip")
    assert len(source) == 5
    spec = ImageSpec(40, 40)
    for memory in (1, 0):
        kept, images = load_images(source, spec, in_memory_gib=memory)
        assert len(kept) == len(images) == 4
        whole = source.with_boxes_in_frame(spec).annotations["box"]
        np.testing.assert_array_equal(kept.annotations["box"], whole[[0, 1, 3, 4]])


def test_validation_images_come_from_the_official_training_images(tmp_path):
    images = [f"{i} 00{1 + i // 10}.a{i // 10}/{i}.jpg" for i in range(20)]
    files = {
        "images.txt": official.lines(*images),
        "classes.txt": b"1 001.a0\n2 002.a1\n",
        "image_class_labels.txt": official.lines(
            *(f"{i} {1 + i // 10}" for i in range(20))
        ),
        "train_test_split.txt": official.lines(*(f"{i} 1" for i in range(20))),
        "bounding_boxes.txt": official.lines(*(f"{i} 0 0 8 8" for i in range(20))),
    }
    files |= {f"images/{line.split()[1]}": official.jpeg(8, 8) for line in images}
    source = load_source("cub200_2011", make_folder(tmp_path, files))
    indices = split_indices(source, "official")
    assert [len(indices[part]) for part in ("train", "validation", "test")] == [
        18,
        2,
        0,
    ]
    assert source.labels[indices["validation"]].tolist() == [0, 1]
