"""Sources of shards: the same images as the folder that they are packed from."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.images.streaming import StreamedImages
from keras_attn.pipelines.sources import load_source, pack
from keras_attn.pipelines.sources.splits import split_indices
from keras_attn.preprocessing import ImageSpec
from tests.pipelines.collections.shard_files import write_parquet, write_tar
from tests.pipelines.collections.test_open import memory

SPEC = ImageSpec(height=8, width=8)


def png(number):
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_folder(root, parts=("",), each=4):
    for number, part in enumerate(parts):
        for label in "ab":
            folder = root / part / label
            folder.mkdir(parents=True)
            for image in range(each):
                content = png(100 * number + 10 * ord(label) + image)
                (folder / f"{image}.png").write_bytes(content)
    return root


def assert_same(one, other):
    assert one.class_names == other.class_names
    np.testing.assert_array_equal(one.labels, other.labels)
    assert [one.read(i) for i in range(len(one))] == [
        other.read(i) for i in range(len(other))
    ]
    split = "official" if one.official else "pooled_65_15_20"
    for mine, theirs in zip(
        split_indices(one, split).values(),
        split_indices(other, split).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)
    # The digest that checkpoints and caches hold.
    digests = {StreamedImages(source, SPEC).digest() for source in (one, other)}
    assert len(digests) == 1


@pytest.mark.parametrize("parts", [("",), ("test", "train", "val")])
def test_packed_shards_are_the_folder(tmp_path, parts):
    folder = load_source("folder", write_folder(tmp_path / "photos", parts))
    paths = pack.pack(folder, tmp_path / "shards", shard_size=3)
    assert [path.name for path in paths[:2]] == ["data-000000.tar", "data-000001.tar"]
    pattern = tmp_path / f"shards/data-{{000000..{len(paths) - 1:06}}}.tar"
    url = memory(tmp_path / "shards")
    for place in (tmp_path / "shards", pattern, url, f"file://{tmp_path}/shards"):
        assert_same(folder, load_source("folder", place))
    assert bool(folder.official) == (len(parts) > 1)


def test_packing_gives_the_same_bytes_and_resumes(tmp_path):
    folder = load_source("folder", write_folder(tmp_path / "photos"))
    paths = pack.pack(folder, tmp_path / "one", shard_size=3)
    whole = [path.read_bytes() for path in paths]
    paths[1].unlink()
    times = [path.stat().st_mtime_ns for path in paths[2:]]
    again = pack.pack(folder, tmp_path / "one", shard_size=3)
    assert [path.read_bytes() for path in again] == whole
    assert times == [path.stat().st_mtime_ns for path in paths[2:]]
    with pytest.raises(ValueError, match="shards of the same images.*--output"):
        pack.pack(folder, tmp_path / "one", shard_size=4)
    with pytest.raises(ValueError, match="holds something else"):
        pack.pack(folder, tmp_path / "photos")


def test_names_of_one_key_stay_apart(tmp_path):
    root = tmp_path / "photos"
    write_folder(root)
    for name, number in (("0.jpg", 1), ("0.v2.png", 2), ("0_v2.png", 3)):
        (root / "a" / name).write_bytes(png(number))
    folder = load_source("folder", root)
    pack.pack(folder, tmp_path / "shards")
    shards = load_source("folder", tmp_path / "shards")
    np.testing.assert_array_equal(folder.labels, shards.labels)
    assert [folder.read(i) for i in range(11)] == [shards.read(i) for i in range(11)]


def test_folder_behind_a_url_has_all_layouts(tmp_path):
    here = load_source("folder", write_folder(tmp_path / "photos", ("train", "val")))
    assert_same(here, load_source("folder", memory(tmp_path / "photos")))
    rows = [f"{part}/{c}/0.png,{c}{c}" for part in ("train", "val") for c in "ab"]
    (tmp_path / "photos/labels.csv").write_text("file,label\n" + "\n".join(rows))
    there = load_source("folder", memory(tmp_path / "photos"))
    assert_same(load_source("folder", tmp_path / "photos"), there)
    assert there.class_names == ("aa", "bb")


def test_shards_without_labels_have_class_folders(tmp_path):
    folder = load_source("folder", write_folder(tmp_path / "photos"))
    for label in "ab":
        files = sorted((tmp_path / "photos" / label).iterdir())
        members = [(f"{label}/{file.name}", file.read_bytes()) for file in files]
        write_tar(tmp_path / f"{label}.tar", members)
    assert_same(folder, load_source("folder", tmp_path / "{a,b}.tar"))
    write_tar(tmp_path / "c.tar", members)
    with pytest.raises(ValueError, match="every file in one archive"):
        load_source("folder", tmp_path / "{b,c}.tar")


def test_archive_beside_images_is_none_of_them(tmp_path):
    folder = load_source("folder", write_folder(tmp_path / "photos"))
    write_tar(tmp_path / "photos/backup.tar", [("1.jpg", b"1"), ("1.cls", b"7")])
    again = load_source("folder", tmp_path / "photos")
    assert_same(folder, again)
    assert again.ignored == ("backup.tar",)


@pytest.mark.parametrize("pattern", ["{a,b}", "{x,y}.tar.gz"])
def test_several_of_what_is_read_alone(tmp_path, pattern):
    write_folder(tmp_path)
    for name in "xy":
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz"):
            pass
    with pytest.raises(ValueError, match="not compressed, where there are several"):
        load_source("folder", tmp_path / pattern)


def test_parquet_parts_labels_and_names(tmp_path):
    pytest.importorskip("pyarrow")
    for part in ("train", "test"):
        rows = [{"bytes": png(i), "path": None} for i in range(6)]
        columns = {"image": rows, "label": [0, 1, 0, 1, 2, 2]}
        write_parquet(tmp_path / f"{part}-00000-of-00001.parquet", columns)
    source = load_source("folder", tmp_path)
    assert source.class_names == ("0", "1", "2") and len(source) == 12
    assert source.official["train"].tolist() == list(range(6, 12))
    assert source.labels[:6].tolist() == [0, 1, 0, 1, 2, 2]
    assert source.read(7) == png(1)
    assert "row 1 in" in source.where(7)


def test_csv_and_list_name_images_elsewhere(tmp_path):
    folder = load_source("folder", write_folder(tmp_path / "photos"))
    names = [f"photos/{label}/{i}.png" for label in "ab" for i in range(4)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    assert_same(folder, load_source("folder", tmp_path / "list.txt"))
    rows = [
        f"{name},{name[7]},{'train' if i % 2 else 'test'}"
        for i, name in enumerate(names)
    ]
    (tmp_path / "table.csv").write_text("path,label,split\n" + "\n".join(rows))
    table = load_source("folder", tmp_path / "table.csv")
    assert table.official["test"].tolist() == [0, 2, 4, 6]
    np.testing.assert_array_equal(table.labels, folder.labels)


def test_several_labels_of_shards(tmp_path):
    members = [("1.png", png(1)), ("1.txt", b"cat;dog"), ("2.png", png(2))]
    path = write_tar(tmp_path / "a.tar", members)
    source = load_source("folder", path, several=True)
    assert source.class_names == ("cat", "dog")
    assert source.annotations["labels"].tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(
    "members, message",
    [
        ([("1.jpg", b"1"), ("1.cls", b"0"), ("2.jpg", b"2")], "1 of 2 images.*2.jpg"),
        ([("1.jpg", b"1"), ("1.cls", b"0")], "at least 2 classes"),
        ([("1.cls", b"0")], "holds none"),
        ([("1.jpg", b""), ("1.cls", b"0"), ("2.jpg", b"1"), ("2.cls", b"1")], "empty"),
    ],
)
def test_shards_that_do_not_fit(tmp_path, members, message):
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=message):
        load_source("folder", path)


def test_empty_images_are_left_out_on_demand(tmp_path):
    members = [("0.jpg", b""), ("0.cls", b"0")]
    for i in range(4):
        members += [(f"x/{i}.png", png(i)), (f"x/{i}.cls", b"%d" % (i % 2))]
    source = load_source("folder", write_tar(tmp_path / "a.tar", members), "skip")
    assert len(source) == 4 and "0.jpg" in source.left_out
    assert source.read(3) == png(3) and source.labels.tolist() == [0, 1, 0, 1]
