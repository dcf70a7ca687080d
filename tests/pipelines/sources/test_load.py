"""Every kind of source, from files made on the fly."""

import io
import pathlib
import re
import shutil
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.pipelines.images.source import Source
from keras_attn.pipelines.sources import load, tensorflow_datasets
from keras_attn.pipelines.sources.catalogue import (
    CIFAR10_CLASSES,
    CIFAR100_CLASSES,
    FLOWERS_CLASSES,
    KNOWN,
)
from keras_attn.pipelines.sources.load import LOADERS, load_source
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from tests.pipelines.sources.test_archives import cifar_files, write_tar

HEIGHT, WIDTH = 6, 11


def pixels(number):
    """A picture that tells which one it is."""
    image = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3))
    return image.astype(np.uint8)


def png(number):
    buffer = io.BytesIO()
    Image.fromarray(pixels(number)).save(buffer, "PNG")
    return buffer.getvalue()


def make_folder(root, names):
    """Write the named files; the i-th holds picture i, or the given bytes."""
    items = names.items() if isinstance(names, dict) else ((n, None) for n in names)
    for number, (name, data) in enumerate(items):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number) if data is None else data)
    return root


TWO_CLASSES = ["cat/b.png", "cat/a.PNG", "ant/z.png", "ant/.hidden.png", "ant/notes.md"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("around", ["", "data/", "data/images/"])
def test_class_folders(tmp_path, packed, around):
    path = make_folder(tmp_path / "root", [around + name for name in TWO_CLASSES])
    if packed:
        with tarfile.open(tmp_path / "packed.tar.xz", "w:xz") as archive:
            archive.add(path, arcname="root")
        path = tmp_path / "packed.tar.xz"
    source = load_source("folder", str(path))
    assert source.name == "folder"
    assert source.class_names == ("ant", "cat")
    assert source.labels.tolist() == [0, 1, 1]
    assert source.labels.dtype == np.int32
    assert len(source) == 3
    assert source.official == {} and source.skipped == () and source.images is None
    for index, (name, number) in enumerate(
        [("ant/z.png", 2), ("cat/a.PNG", 1), ("cat/b.png", 0)]
    ):
        np.testing.assert_array_equal(source.array(index), pixels(number))
        assert source.read(index) == png(number)
        assert name in source.where(index)
        file = source.files[index]
        if packed:
            assert file == (str(path), f"root/{around}{name}")
        else:
            assert file == str(path / around / name)


def test_official_parts(tmp_path):
    names = ["test/cat/0.png", "train/cat/0.png", "val/ant/1.png", "train/ant/2.jpg"]
    source = load_source("folder", make_folder(tmp_path, names))
    assert {part: i.tolist() for part, i in source.official.items()} == {
        "train": [0, 1],
        "validation": [2],
        "test": [3],
    }
    assert source.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(source.array(3), pixels(0))


def test_a_lone_train_folder_gives_no_official_split(tmp_path):
    names = ["train/cat/0.png", "train/ant/1.png"]
    assert load_source("folder", make_folder(tmp_path, names)).official == {}


def test_a_class_may_be_called_train(tmp_path):
    names = ["train/0.png", "bus/1.png", "tram/2.png"]
    source = load_source("folder", make_folder(tmp_path, names))
    assert source.class_names == ("bus", "train", "tram")


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "Expected images .* has none"),
        (["readme.txt"], "Expected images .* has none"),
        (["a.png", "b.png"], "images are in no class folder"),
        (["cat/a.png", "cat/b.png"], "at least 2 classes.*'cat'"),
        (["train/cat/a.png"], "at least 2 classes.*'cat'"),
        (["cat/a.png", "dog/more/b.png"], "layout CLASS/image .*dog/more/b.png"),
        (
            ["train/cat/a.png", "train/dog/b.png", "extra/c.png"],
            "train.val.test/CLASS/image .*extra/c.png",
        ),
        (["train/cat/a.png", "train/dog/b.png", "test/cow/c.png"], "'cow' is in test"),
        (["cat/a.png", "dog/b.png", "cow/list.txt"], "every class folder.*'cow'"),
    ],
)
def test_layouts_that_are_refused(tmp_path, names, message):
    root = make_folder(tmp_path, names)
    with pytest.raises(ValueError, match=message) as caught:
        load_source("folder", root)
    assert str(tmp_path) in str(caught.value)


def test_nothing_is_left_out_silently(tmp_path):
    names = {"ant/0.png": None, "cat/1.jfif": None, "cat/notes.txt": b"x"}
    root = make_folder(tmp_path, {**names, "beside.png": None, "ant/2.png": b"broken"})
    source = load_source("folder", root, on_corrupt="skip")
    assert source.ignored == ("beside.png", "cat/notes.txt")
    found = source.decoded(ImageSpec(HEIGHT, WIDTH)).left_out
    assert "1 image that cannot be read" in found and "ant/2.png: not an image" in found
    assert "2 files that are no images or in no class (beside.png, cat/not" in found
    assert load_source("folder", make_folder(root / "cat", TWO_CLASSES)).left_out


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_names_of_the_validation_part(tmp_path, name):
    names = [f"{part}/{c}/{part}{c}.png" for part in ("train", name) for c in "ab"]
    source = load_source("folder", make_folder(tmp_path, names))
    assert {key: len(i) for key, i in source.official.items()} == {
        "train": 2,
        "validation": 2,
    }


def test_nested_class_folders(tmp_path):
    names = ["a/x/1.png", "a/y/deep/2.png", "b/x/3.png", "top.png", "b/4.png"]
    root = make_folder(tmp_path / "root", names)
    source = load_source("folder", root, depth=1)
    assert source.class_names == ("a", "b") and source.labels.tolist() == [0, 0, 1, 1]
    assert source.ignored == ("top.png",)
    source = load_source("folder", root, depth=2)
    assert source.class_names == ("a/x", "a/y", "b/x")
    assert source.ignored == ("b/4.png", "top.png")
    with pytest.raises(ValueError, match="or depth .--depth."):
        load_source("folder", root)


def test_a_table_of_labels(tmp_path):
    rows = "image,Label,split\n2.png,dog,train\na/0.png,cat,train\n1.png,dog,val\n"
    root = make_folder(
        tmp_path,
        {"a/0.png": None, "images/1.png": None, "2.png": None, "3.png": None}
        | {"labels.csv": rows.encode(), "notes.txt": b""},
    )
    source = load_source("folder", root)
    assert source.class_names == ("cat", "dog") and source.labels.tolist() == [0, 1, 1]
    for index, number in enumerate((0, 2, 1)):
        np.testing.assert_array_equal(source.array(index), pixels(number))
    assert {k: v.tolist() for k, v in source.official.items()} == {
        "train": [0, 1],
        "validation": [2],
    }
    assert source.ignored == ("3.png", "notes.txt")
    for rows, message in (
        ("name,label\n", "Expected a column filename or"),
        ("file,label\n2.png,\n", "Expected a file and a label .* line 2"),
        ("file,label\n9.png,cat\n", "lacks 9.png"),
        ("file,label\n2.png,cat\n2.png,dog\n", "Expected one label"),
        ("file,label\n", "Expected rows of images. Received: .*labels.csv"),
        (b"\xff\xfef\0", "Expected a table in UTF-8. Received: .*labels.csv"),
    ):
        content = rows if isinstance(rows, bytes) else rows.encode()
        (root / "labels.csv").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_source("folder", root)
    for delimiter in ";\t":
        rows = "file,label\n2.png,a cat\n1.png,dog\n".replace(",", delimiter)
        (root / "labels.csv").write_text(rows, encoding="utf-8-sig")
        source = load_source("folder", root)
        assert source.class_names == ("a cat", "dog") and len(source) == 2


def test_a_zip_is_read_as_a_folder(tmp_path):
    root = make_folder(tmp_path / "root", TWO_CLASSES)
    file = shutil.make_archive(tmp_path / "packed", "zip", tmp_path, "root")
    packed, folder = load_source("folder", file), load_source("folder", root)
    assert packed.class_names == folder.class_names
    for index in range(3):
        np.testing.assert_array_equal(packed.array(index), folder.array(index))
    pathlib.Path(file).write_bytes(pathlib.Path(file).read_bytes()[:-30])
    with pytest.raises(ValueError, match="Expected a folder, a zip or"):
        load_source("folder", file)


def test_missing_path_and_no_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_source("folder", tmp_path / "nowhere")
    for name in ("folder", "miniimagenet"):
        with pytest.raises(ValueError, match=f"{name} needs a folder.*--data"):
            load_source(name)


def test_a_picture_where_a_folder_was_expected(tmp_path):
    make_folder(tmp_path, ["cat.png"])
    with pytest.raises(ValueError, match="Expected a folder, a zip or a complete tar"):
        load_source("folder", tmp_path / "cat.png")


def test_unknown_names_and_options(tmp_path):
    with pytest.raises(
        ValueError, match="'generated', 'cifar10'.*Did you mean 'cifar10'"
    ):
        load_source("cifar01")
    with pytest.raises(ValueError, match=r"'skip'\). Received: on_corrupt='ignore'"):
        load_source("folder", tmp_path, on_corrupt="ignore")
    with pytest.raises(ValueError, match="no further options .*'data_dir'"):
        load_source("cifar10", tmp_path, data_dir="x")
    with pytest.raises(ValueError, match="cifar10 among .*download. Received"):
        load_source("cifar10", seed=1)
    with pytest.raises(ValueError, match="reads no files"):
        load_source("generated", tmp_path)


def test_known_class_names(tmp_path):
    root = make_folder(tmp_path / "a", [f"train/{c}/0.png" for c in CIFAR10_CLASSES])
    source = load_source("cifar10", root)
    assert source.class_names == CIFAR10_CLASSES
    assert source.mean == KNOWN["cifar10"].mean
    assert "research" in source.licence
    (root / "train" / "dog").rename(root / "train" / "dogs")
    with pytest.raises(ValueError, match="'dog' as class 5.*'dogs' there"):
        load_source("cifar10", root)
    fewer = make_folder(tmp_path / "b", [f"{c}/0.png" for c in CIFAR10_CLASSES[:-1]])
    with pytest.raises(ValueError, match="'truck' as class 9.*9 classes and 'nothing'"):
        load_source("cifar10", fewer)


def test_flowers_are_numbered_as_in_tensorflow_datasets(tmp_path):
    names = [f"flower_photos/{c}/{i}.png" for i in (0, 1) for c in FLOWERS_CLASSES]
    source = load_source("tf_flowers", make_folder(tmp_path, names))
    assert source.class_names == FLOWERS_CLASSES
    for index in range(10):
        assert f"/{FLOWERS_CLASSES[source.labels[index]]}/" in source.where(index)
    assert source.labels.dtype == np.int32
    assert load_source("folder", tmp_path).class_names == tuple(sorted(FLOWERS_CLASSES))
    (tmp_path / "flower_photos" / "roses").rename(tmp_path / "flower_photos" / "rose")
    with pytest.raises(ValueError, match="'roses' as class 2.*'rose' there"):
        load_source("tf_flowers", tmp_path)


def test_imagenet_has_a_thousand_classes(tmp_path):
    names = [f"{part}/n{i:08}/0.png" for part in ("train", "val") for i in range(999)]
    root = make_folder(tmp_path, names)
    with pytest.raises(ValueError, match="1000 classes of imagenet2012.* 999, 'n0000"):
        load_source("imagenet2012", root)
    make_folder(root, ["train/n00000999/0.png"])
    source = load_source("imagenet2012", root)
    assert len(source.class_names) == 1000 and source.class_names[7] == "n00000007"
    assert {part: len(i) for part, i in source.official.items()} == {
        "train": 1000,
        "validation": 999,
    }


def test_catalogue_of_classes():
    # Folders are labelled in sorted order, which must be the official one.
    for names, count in ((CIFAR10_CLASSES, 10), (CIFAR100_CLASSES, 100)):
        assert len(set(names)) == count
        assert list(names) == sorted(names)


BROKEN = {
    "ant/0.png": None,
    "ant/1.png": png(0)[:60],
    "cat/2.png": None,
    "cat/3.jpg": b"no picture",
    "cat/4.png": None,
}


def test_corrupt_files_are_an_error_with_path_and_remedy(tmp_path):
    source = load_source("folder", make_folder(tmp_path, BROKEN))
    with pytest.raises(CorruptImageError) as caught:
        source.decoded(ImageSpec(HEIGHT, WIDTH))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/ant/1.png: truncated")
    assert "and 1 more files" in message and "--on-corrupt skip" in message
    with pytest.raises(CorruptImageError, match="cat/3.jpg"):
        source.array(3)


def test_corrupt_files_are_skipped_and_listed(tmp_path):
    names = {f"train/{name}": data for name, data in BROKEN.items()}
    names |= {"test/ant/5.png": None, "test/cat/6.png": b"x", "test/cat/7.png": None}
    root = make_folder(tmp_path, names)
    source = load_source("folder", root, on_corrupt="skip")
    clean = source.decoded(ImageSpec(HEIGHT, WIDTH))
    assert [file for file, _ in clean.skipped] == [
        f"{root}/{name}"
        for name in ("train/ant/1.png", "train/cat/3.jpg", "test/cat/6.png")
    ]
    assert clean.labels.tolist() == [0, 1, 1, 0, 1]
    assert {k: v.tolist() for k, v in clean.official.items()} == {
        "train": [0, 1, 2],
        "test": [3, 4],
    }
    for index, number in enumerate((0, 2, 4, 5, 7)):
        np.testing.assert_array_equal(clean.images[index], pixels(number))
        assert clean.where(index).endswith(f"/{number}.png")
    assert len(clean.files) == len(clean) == 5
    # What is in memory in this size already is not touched again.
    assert clean.decoded(ImageSpec(HEIGHT, WIDTH)) is clean


@pytest.mark.parametrize(
    "name, reason", [("ant/1.png", "the file is empty"), ("ant/1.jp2", "Expected one")]
)
def test_what_is_seen_without_decoding(tmp_path, name, reason):
    root = make_folder(tmp_path, {"ant/0.png": None, name: b"", "cat/2.png": None})
    with pytest.raises(CorruptImageError, match=f"{re.escape(name)}: {reason}"):
        load_source("folder", root)
    source = load_source("folder", root, on_corrupt="skip")
    assert len(source) == 2
    assert source.skipped[0][0] == f"{root}/{name}"
    assert source.decoded(ImageSpec(HEIGHT, WIDTH)).skipped == source.skipped


def test_readable_finds_what_decoding_finds(tmp_path):
    root = make_folder(tmp_path, BROKEN)
    with pytest.raises(CorruptImageError, match="1.png: truncated.*and 1 more files"):
        load_source("folder", root).readable()
    source = load_source("folder", root, on_corrupt="skip")
    clean, decoded = source.readable(), source.decoded(ImageSpec(HEIGHT, WIDTH))
    assert clean.images is None and clean.files == decoded.files
    assert clean.skipped == decoded.skipped
    assert clean.labels.tolist() == decoded.labels.tolist()
    for index, image in enumerate(decoded.images):
        np.testing.assert_array_equal(clean.array(index), image)
        assert clean.stamp(index)[0] == len(clean.read(index))
    (root / "ant" / "1.png").unlink()
    where, reason = source.readable().skipped[0]
    assert where.endswith("ant/1.png") and reason.startswith("cannot be read")


def test_no_readable_image(tmp_path):
    root = make_folder(tmp_path, {"ant/0.png": b"x", "cat/1.png": b"y"})
    source = load_source("folder", root, on_corrupt="skip")
    for read in (source.readable, lambda: source.decoded(ImageSpec(HEIGHT, WIDTH))):
        with pytest.raises(ValueError, match="readable images.* 2 files"):
            read()


def test_decoding_fits_to_the_spec(tmp_path):
    spec = ImageSpec(5, 7)
    source = load_source("folder", make_folder(tmp_path, ["ant/0.png", "cat/1.png"]))
    fitted = source.decoded(spec)
    assert fitted.images.shape == (2, 5, 7, 3)
    for index in range(2):
        expected = np.asarray(ImagePreprocessing(spec).fit_size(pixels(index)[None])[0])
        np.testing.assert_array_equal(fitted.images[index], expected)
        np.testing.assert_array_equal(source.array(index, spec), expected)


def array_source(**fields):
    images = np.stack([pixels(i) for i in range(4)])
    labels = np.array([0, 1, 0, 1], np.int32)
    return Source("toy", ("a", "b"), labels, images, **fields)


def test_sources_in_memory(tmp_path):
    source = array_source(annotations={"box": np.zeros((4, 4))})
    assert source.decoded(ImageSpec(HEIGHT, WIDTH)) is source
    np.testing.assert_array_equal(source.array(3), pixels(3))
    assert source.array(3, ImageSpec(4, 5)).shape == (4, 5, 3)
    assert source.where(3) == "toy[3]"
    with pytest.raises(ValueError, match="annotations are in pixels"):
        source.decoded(ImageSpec(4, 5))
    fitted = array_source().decoded(ImageSpec(4, 5)).images
    np.testing.assert_array_equal(fitted[3], source.array(3, ImageSpec(4, 5)))


def test_sources_are_compared_by_identity():
    source = array_source()
    assert source == source and source != array_source()
    assert len({source, source}) == 1


def test_generated_gets_the_options(monkeypatch):
    made = lambda examples=5, seed=0: (examples, seed)  # noqa: E731
    monkeypatch.setattr(load, "generated_source", made)
    assert load_source("generated", seed=3) == (5, 3)
    with pytest.raises(ValueError, match="among examples, seed. Received: 'sead'"):
        load_source("generated", sead=3)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_official_archive(tmp_path, name):
    files, images, labels = cifar_files(name, records=4)
    source = load_source(name, write_tar(tmp_path / "c.tar.gz", files, "w:gz"))
    np.testing.assert_array_equal(source.images, images)
    assert source.labels.tolist() == labels
    assert source.class_names == KNOWN[name].class_names
    trained = len(files) - 1
    assert source.official["train"].tolist() == list(range(4 * trained))
    assert len(source.official["test"]) == 4


def mini_imagenet(root, change=None):
    """Three csv files with 2, 1 and 1 classes of 3 images, in no sorted order."""
    classes = {"train.csv": ["n04", "n01"], "val.csv": ["n03"], "test.csv": ["n02"]}
    tables, files = {}, {}
    for table, labels in classes.items():
        rows = [(f"{label}0000{i}.jpg", label) for i in range(3) for label in labels]
        tables[table] = "filename,label\n" + "".join(f"{f},{n}\n" for f, n in rows)
        files |= {f"images/{filename}": None for filename, _ in rows}
    if change:
        change(tables, files)
    files |= {name: text.encode() for name, text in tables.items()}
    return make_folder(root, files)


@pytest.mark.parametrize("packed", [False, True])
def test_csv_splits_are_pooled(tmp_path, packed):
    path = mini_imagenet(tmp_path / "mini")
    if packed:
        with tarfile.open(tmp_path / "mini.tar", "w") as archive:
            archive.add(path, arcname="mini-imagenet")
        path = tmp_path / "mini.tar"
    source = load_source("miniimagenet", path)
    assert source.class_names == ("n01", "n02", "n03", "n04")
    assert source.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert source.official == {}
    assert "n0200001.jpg" in source.where(4)
    # Written as pictures 0, 2, 4 of the first table.
    np.testing.assert_array_equal(source.array(9), pixels(0))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, f: t.pop("val.csv"), "lacks val.csv"),
        (lambda t, f: f.pop("images/n0300002.jpg"), "lacks n0300002.jpg"),
        (
            lambda t, f: t.update({"val.csv": "file,label\nn0300000.jpg,n03\n"}),
            "columns filename and label.*val.csv",
        ),
        (
            lambda t, f: t.update({"val.csv": "filename,label\nn0300000.jpg\n"}),
            "label in every row. Received: line 2 of .*val.csv",
        ),
        (
            lambda t, f: t.update(dict.fromkeys(t, "filename,label\n")),
            "at least 2 classes",
        ),
        (
            lambda t, f: t.update({"val.csv": t["train.csv"]}),
            "Expected every image once.*val.csv",
        ),
    ],
)
def test_csv_splits_that_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_source("miniimagenet", mini_imagenet(tmp_path, change))


def test_csv_with_an_empty_image(tmp_path):
    def change(tables, files):
        files["images/n0300002.jpg"] = b""

    root = mini_imagenet(tmp_path, change)
    with pytest.raises(CorruptImageError, match="n0300002.jpg: the file is empty"):
        load_source("miniimagenet", root)
    assert len(load_source("miniimagenet", root, on_corrupt="skip")) == 11


def test_mini_imagenet_by_folders_with_disjoint_parts_is_pooled(tmp_path):
    names = [f"{part}/{i}{part}/0.png" for part in ("train", "test") for i in range(2)]
    source = load_source("miniimagenet", make_folder(tmp_path, names))
    assert len(source.class_names) == 4 and source.official == {}


class FakeDatasets:
    """Stands for the module tensorflow_datasets, with three images per part."""

    def __init__(self, failure=None):
        self.failure, self.asked = failure, []

    def ReadConfig(self, **options):
        return options

    def builder(self, name, data_dir):
        self.asked.append((name, data_dir))
        return self

    def download_and_prepare(self):
        if self.failure:
            raise self.failure

    def as_dataset(self, split, shuffle_files, read_config):
        assert shuffle_files is False
        assert read_config == {"interleave_cycle_length": 1}
        start = {"train": 0, "test": 3}[split]
        rows = [
            {"image": np.full((32, 32, 3), i, np.uint8), "label": np.int64(9 - i)}
            for i in range(start, start + 3)
        ]
        return SimpleNamespace(batch=lambda size: rows)

    def as_numpy(self, rows):
        return [{k: v[None] for k, v in row.items()} for row in rows]


def test_tensorflow_datasets(monkeypatch):
    fake = FakeDatasets()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    source = load_source("cifar10", data_dir="somewhere")
    assert fake.asked == [("cifar10", "somewhere")]
    assert source.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert source.labels.tolist() == [9, 8, 7, 6, 5, 4]
    assert source.labels.dtype == np.int32
    assert {k: v.tolist() for k, v in source.official.items()} == {
        "train": [0, 1, 2],
        "test": [3, 4, 5],
    }
    assert source.class_names == CIFAR10_CLASSES


def test_without_network_the_alternative_is_named(monkeypatch):
    fake = FakeDatasets(ConnectionError("Name or service not known"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    with pytest.raises(
        FileNotFoundError,
        match="cifar100 .ConnectionError.*cifar-100-binary.tar.gz.*--data PATH",
    ):
        load_source("cifar100")


def test_without_tensorflow_datasets_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-attn\[datasets\]'"):
        load_source("cifar10")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.filterwarnings("ignore")
def test_with_the_real_package_and_made_up_images(name):
    datasets = pytest.importorskip("tensorflow_datasets")
    with datasets.testing.mock_data(num_examples=5):
        source = load_source(name)
    assert source.images.shape == (10, 32, 32, 3)
    assert source.images.dtype == np.uint8
    assert source.labels.max() < len(source.class_names)
    assert len(source.official["test"]) == 5


LAZY = ("tf_flowers", "imagenet2012")


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.filterwarnings("ignore")
def test_images_stay_in_the_files_of_the_real_package(name):
    datasets = pytest.importorskip("tensorflow_datasets")
    with datasets.testing.mock_data(num_examples=3):
        source = load_source(name)
        again = load_source(name)
        assert source.images is None and source.files is None
        parts = KNOWN[name].parts
        assert len(source) == 3 * len(parts)
        if len(parts) > 1:
            assert source.official["validation"].tolist() == [3, 4, 5]
        assert source.labels.dtype == np.int32
        for index in (0, 2, len(source) - 1):
            assert source.array(index).ndim == 3
            assert source.read(index) == again.read(index)
        fitted = source.decoded(ImageSpec(5, 7))
        assert fitted.images.shape == (len(source), 5, 7, 3)
        np.testing.assert_array_equal(
            fitted.images[1], source.array(1, ImageSpec(5, 7))
        )
        names = datasets.builder(name).info.features["label"].names
    assert source.class_names == tuple(names)
    if name == "tf_flowers":
        assert source.class_names == KNOWN[name].class_names
    else:
        # So that a folder has the same numbers.
        assert names == sorted(names) and len(names) == KNOWN[name].num_classes
    assert source.where(2) == f"{name}[2]"


class FakeRandomAccess:
    """Stands for tensorflow_datasets with images in files, in two parts."""

    decode = SimpleNamespace(SkipDecoding=object)

    def __init__(self, data_dir, failure=None):
        self.data_dir, self.failure = str(data_dir), failure
        self.formats, self.labels_read = [], 0
        features = {"label": SimpleNamespace(names=["a", "b"])}
        self.info = SimpleNamespace(features=features, full_name="imagenet2012/5.1.0")

    def builder(self, name, data_dir, file_format=None):
        self.formats.append(file_format)
        return self

    def download_and_prepare(self):
        if self.failure:
            raise self.failure

    def as_data_source(self, part, decoders):
        rows = {"train": [0, 1, 1], "validation": [1, 0]}[part]
        return FakeReader(self, part, rows)


class FakeReader:
    def __init__(self, datasets, part, rows):
        self.datasets, self.part, self.rows = datasets, part, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.datasets.labels_read += 1
        image = f"{self.part} {index}".encode()
        return {"image": image, "label": np.array(self.rows[index])}


def test_labels_of_a_large_data_set_are_kept(tmp_path, monkeypatch):
    fake = FakeRandomAccess(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    source = load_source("imagenet2012")
    assert source.labels.tolist() == [0, 1, 1, 1, 0] and not list(tmp_path.iterdir())
    assert [source.read(np.int64(i)) for i in (2, 3, 4)] == [
        b"train 2",
        b"validation 0",
        b"validation 1",
    ]
    monkeypatch.setattr(tensorflow_datasets, "MANY", 1)
    load_source("imagenet2012")
    kept = tmp_path / tensorflow_datasets.LABELS_FILE
    assert list(tmp_path.iterdir()) == [kept]
    fake.labels_read = 0
    assert load_source("imagenet2012").labels.tolist() == [0, 1, 1, 1, 0]
    assert fake.labels_read == 0
    for wrong in (b"", kept.read_bytes()[:-4], b"junk"):
        kept.write_bytes(wrong)
        assert load_source("imagenet2012").labels.tolist() == [0, 1, 1, 1, 0]
        assert len(np.load(kept)) == 5
    assert fake.formats == [None] * 6


def test_imagenet_says_what_to_put_where(tmp_path, monkeypatch):
    data_dir = tmp_path / "imagenet2012" / "5.1.0"
    fake = FakeRandomAccess(data_dir, AssertionError("Manual directory\nmissing"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    with pytest.raises(FileNotFoundError) as caught:
        load_source("imagenet2012", data_dir=str(tmp_path))
    message = str(caught.value)
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in message
    assert f"in {tmp_path}/downloads/manual" in message and "\n" not in message
    assert "--data PATH" in message and "image-net.org" in message
    # The format that is read at any place is asked for where nothing is there yet.
    assert fake.formats == [None, "array_record"]


def test_a_format_without_random_access_is_named(tmp_path, monkeypatch):
    fake = FakeRandomAccess(tmp_path, NotImplementedError("tfrecord\nis not supported"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    with pytest.raises(FileNotFoundError, match="array_record.*another data_dir"):
        load_source("tf_flowers")
    fake.failure = ConnectionError("no network")
    with pytest.raises(FileNotFoundError, match="flower_photos.tgz .*--data PATH"):
        load_source("tf_flowers")
    with pytest.raises(ValueError, match="tf_flowers among .*download. Received"):
        load_source("tf_flowers", seed=1)


def test_known_facts_hold_of_what_is_loaded():
    assert KNOWN["cifar100"].class_count == 100 and KNOWN["folder"].class_count == 0
    synthetic = [name for name, known in KNOWN.items() if known.synthetic]
    assert synthetic == ["generated"]
    source = load_source("generated", examples=2)
    assert len(source.class_names) == KNOWN["generated"].class_count
    assert KNOWN["generated"].has_objects and "box" in source.annotations


def test_every_known_data_set_has_a_loader():
    assert list(LOADERS) == list(KNOWN)
