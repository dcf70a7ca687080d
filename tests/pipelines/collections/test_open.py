"""Collections of images wherever they lie."""

import dataclasses
import gzip
import os
import pickle
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.pipelines.collections import open_collection
from keras_attn.pipelines.collections.open import expand
from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.pipelines.images.files import image_files
from keras_attn.pipelines.images.source import Source
from keras_attn.pipelines.images.streaming import StreamedImages, clear_errors
from keras_attn.preprocessing import ImageSpec
from tests.pipelines.collections.shard_files import write_parquet, write_tar

FILES = ("a/1.jpg", "a/2.png", "a-b/1.gif", "b/c/x.JPG", "b/Ä.webp")
LONG = "folder/" * 40 + "3.jpg"


@pytest.fixture
def folder(tmp_path):
    for name in (*FILES, "b/notes.doc", ".hidden/1.jpg", "b/.2.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 3)
    return tmp_path / "photos"


@pytest.fixture(params=[tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def shards(tmp_path, request):
    first = [
        ("./c/1.jpg", b"11"),
        ("c/1.cls", b"1\n"),
        ("c/2.v.jpg", b"222"),
        ("c/2.v.json", b'{"label": 0}'),
        (LONG, b"3" * 1000),
        (LONG.replace("jpg", "cls"), b"3"),
    ]
    second = [("c/1.png", b"4"), ("c/1.seg.png", b"5"), ("c/1.cls", b"0")]
    write_tar(tmp_path / "data-00.tar", first, request.param)
    write_tar(tmp_path / "data-01.tar", second, request.param)
    return tmp_path


def memory(path):
    """The URL of a copy of a folder in the memory of fsspec."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    system.rm("/test", recursive=True) if system.exists("/test") else None
    for file in path.rglob("*"):
        if file.is_file():
            system.pipe(f"/test/{file.relative_to(path)}", file.read_bytes())
    return "memory://test"


def test_folder_has_the_images_in_the_order_of_image_files(folder):
    images = open_collection(folder)
    assert [str(path) for path in image_files([folder])] == [
        os.path.join(folder, name) for name in images.names()
    ]
    assert set(images.names()) == set(FILES)
    assert images.names(1, 3) == images.names()[1:3]
    assert "notes.doc" in images.left_out and images.left_out.startswith("1 file")
    order = [3, 0, 3]
    assert list(images.read(order)) == [images.name(i).encode() * 3 for i in order]
    assert images.class_names() == () and set(images.class_numbers()) == {-1}


def test_url_is_the_folder(folder):
    here = open_collection(folder)
    for url in (f"file://{folder}", memory(folder)):
        there = open_collection(url)
        assert there.names() == here.names() and there.describe() == here.describe()
        assert list(there.read([4, 1])) == list(here.read([4, 1]))
        assert there.stamp(1)[0] == here.stamp(1)[0] == here.size(1)


def test_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    scandir = os.scandir

    def fail(path):
        if os.fsdecode(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(PermissionError, match="denied: '/.*/photos/b'"):
        open_collection(folder)


def test_digest_is_of_names_and_sizes(folder, tmp_path):
    before = open_collection(folder).describe()
    assert before["kind"] == "folder" and before["count"] == len(FILES)
    (folder / FILES[0]).write_bytes(b"another size")
    changed = open_collection(folder).describe()
    (folder / FILES[0]).rename(folder / "a/0.jpg")
    renamed = open_collection(folder).describe()
    assert len({each["digest"] for each in (before, changed, renamed)}) == 3


def test_tar_shards_are_read_at_any_place(shards):
    images = open_collection(shards / "data-{00..01}.tar")
    assert images.names() == [
        "data-00.tar/c/1.jpg",
        "data-00.tar/c/2.v.jpg",
        f"data-00.tar/{LONG}",
        "data-01.tar/c/1.png",
    ]
    assert list(images.read([3, 2, 0, 1])) == [b"4", b"3" * 1000, b"11", b"222"]
    assert images.class_names() == ("0", "1", "2", "3")
    assert images.class_numbers().tolist() == [1, 0, 3, 0]
    assert "c/1.seg.png" in images.left_out
    assert images.entry(3) == (str(shards / "data-01.tar"), "c/1.png")
    for same in (open_collection(shards), open_collection(memory(shards))):
        assert same.describe() == images.describe()
        assert list(same.read([2, 3])) == [b"3" * 1000, b"4"]


def test_text_is_a_label_where_no_folder_is(tmp_path):
    members = [("1.jpg", b"1"), ("1.txt", b"cat"), ("a/2.jpg", b"2"), ("a/2.txt", b"x")]
    images = open_collection(write_tar(tmp_path / "a.tar", members))
    assert images.class_names() == ("cat",)
    assert images.class_numbers().tolist() == [0, -1]


def test_names_of_classes_are_beside_the_shards(shards):
    (shards / "classes.txt").write_text("cat\ndog\nowl\nbee\n")
    images = open_collection(shards)
    assert images.class_names() == ("cat", "dog", "owl", "bee")
    assert images.class_numbers().tolist() == [1, 0, 3, 0]


def test_another_process_gets_it_pickled(folder, shards):
    for source in (folder, shards / "data-00.tar"):
        images = open_collection(source)
        copy = pickle.loads(pickle.dumps(images))
        assert copy.describe() == images.describe()
        assert copy.read_one(1) == images.read_one(1)


def test_changed_shard_is_named(shards):
    images = open_collection(shards / "data-00.tar")
    write_tar(shards / "data-00.tar", [("c/1.jpg", b"other")])
    with pytest.raises(OSError, match="as it was listed.*bytes instead"):
        images.read_one(0)


def test_parquet_has_bytes_or_structs(tmp_path):
    pytest.importorskip("pyarrow")
    structs = [{"bytes": b"aa", "path": "x.jpg"}, {"bytes": b"bb", "path": None}]
    write_parquet(
        tmp_path / "a.parquet",
        {"image": [*structs, {"bytes": None, "path": "z"}], "label": ["v", "u", None]},
        row_group_size=2,
    )
    images = open_collection(tmp_path / "a.parquet")
    assert images.names() == ["a.parquet#0", "a.parquet#1", "a.parquet#2"]
    images = pickle.loads(pickle.dumps(images))
    *given, problem = images.read([1, 0, 2], errors="give")
    assert given == [b"bb", b"aa"] and "row 2" in str(problem)
    assert images.class_names() == ("u", "v")
    assert images.class_numbers().tolist() == [1, 0, -1]
    write_parquet(tmp_path / "b.parquet", {"x": [b"1"], "y": [b"2"], "n": [7]})
    assert open_collection(tmp_path / "b.parquet", column="y").read_one(0) == b"2"
    with pytest.raises(ValueError, match=r"one column.*x \(binary\), y .*, n \(int64"):
        open_collection(tmp_path / "b.parquet")


def test_lists_name_paths_and_urls(folder):
    (folder.parent / "list.txt").write_text(
        f"# a comment\nphotos/a/1.jpg\n\nfile://{folder}/b/c/x.JPG\nphotos/no.jpg\n"
    )
    images = open_collection(folder.parent / "list.txt")
    first, second, missing = images.read(range(3), errors="give")
    assert (first, second) == (b"a/1.jpg" * 3, b"b/c/x.JPG" * 3)
    assert isinstance(missing, FileNotFoundError)
    url = f"{memory(folder.parent)}/list.txt"
    assert open_collection(url).describe()["count"] == 3
    assert list(open_collection(url).read([1, 0])) == [second, first]
    for text in ("Label, Path\nx,photos/a/1.jpg\ny,photos/a/2.png\n", "a/1.jpg,x\n"):
        where = folder if text.startswith("a/1") else folder.parent
        (where / "table.csv").write_text(text)
        images = open_collection(where / "table.csv")
        assert images.read_one(0) == b"a/1.jpg" * 3
        assert images.class_names()[images.class_numbers()[0]] == "x"


def test_patterns_of_braces():
    assert expand("d-{08..10}.tar") == ["d-08.tar", "d-09.tar", "d-10.tar"]
    assert expand("{a,b}{0..1}") == ["a0", "a1", "b0", "b1"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "empty"),
        (bytes(10240), "holds none"),
        (b"hello" * 200, "no tar archive"),
        (gzip.compress(b"x", mtime=0), "compressed"),
    ],
)
def test_file_that_is_no_shard(tmp_path, content, message):
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.tar.*{message}"):
        open_collection(tmp_path / "bad.tar")


def test_truncated_shard_at_every_block(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.jpg", b"1" * 600), ("1.cls", b"1")])
    whole = path.read_bytes()
    used = len(whole.rstrip(b"\0"))
    for end in range(512, used, 512):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="truncated"):
            open_collection(path)


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg"])
def test_name_that_leads_out_of_a_shard(tmp_path, name):
    path = write_tar(tmp_path / "a.tar", [(name, b"1")])
    with pytest.raises(ValueError, match="leads out of it"):
        open_collection(path)


@pytest.mark.parametrize(
    "source, error, message",
    [
        ("nothing", FileNotFoundError, "does not exist"),
        ("memory://nothing", FileNotFoundError, "memory:///nothing.*does not exist"),
        ("zzz://bucket", ValueError, "Protocol not known: zzz"),
        ("data-{5..4}.tar", ValueError, "counts up"),
    ],
)
def test_place_without_images(source, error, message):
    with pytest.raises(error, match=message):
        open_collection(source)


def test_place_that_cannot_be_reached(monkeypatch):
    memory = pytest.importorskip("fsspec").filesystem("memory")

    def fail(*_, **__):
        raise TimeoutError("no answer\nmore lines")

    monkeypatch.setattr(type(memory), "info", fail)
    with pytest.raises(
        OSError, match="memory:///x. Received: TimeoutError: no answer$"
    ):
        open_collection("memory://x")


@pytest.mark.parametrize(
    "package, source", [("fsspec", "memory://x"), ("pyarrow", "a.parquet")]
)
def test_missing_package_is_named(monkeypatch, tmp_path, package, source):
    (tmp_path / "a.parquet").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"Expected {package}.*keras-attn\[shards"):
        open_collection(source)


def test_listing_holds_no_object_per_image(tmp_path):
    write_tar(tmp_path / "a.tar", [(f"{i}.jpg", b"1") for i in range(2000)])
    images = open_collection(tmp_path / "a.tar")
    assert len(pickle.dumps(images)) < 2000 * 50
    assert images.names(1998) == ["a.tar/1998.jpg", "a.tar/1999.jpg"]
    assert np.array_equal(images.class_numbers(), np.full(2000, -1))


def test_many_requests_run_at_a_time_and_keep_their_order(folder, monkeypatch):
    images = open_collection(memory(folder))
    running, most, lock = 0, 0, threading.Lock()
    system = type(images.files.filesystem.filesystem)
    cat_file = system.cat_file

    def slow(*arguments, **options):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return cat_file(*arguments, **options)

    monkeypatch.setattr(system, "cat_file", slow)
    order = [*range(len(images))] * 8
    wanted = [images.name(i).encode() * 3 for i in order]
    assert list(images.read(order)) == wanted
    assert most > 8
    source = Source("folder", (), np.zeros(5), remote=True)
    source = dataclasses.replace(source, read=images.read_one, on_corrupt="skip")
    most = 0
    streamed = StreamedImages(source, ImageSpec(height=8, width=8))
    with pytest.raises(CorruptImageError), clear_errors():
        list(streamed.batches(tf.data.Dataset.range(5).repeat(8).batch(8), 8))
    assert most > 4


def test_shard_elsewhere_that_is_cut_off_is_named(shards):
    images = open_collection(memory(shards))
    images.files.filesystem.filesystem.pipe("/test/data-01.tar", b"short")
    with pytest.raises(OSError, match="Expected 1 bytes at byte 512 of memory:///test"):
        images.read_one(3)
