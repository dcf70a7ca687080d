"""The folder of an index: what is written is read back, whatever happens meanwhile."""

import json

import numpy as np
import pytest

from keras_attn.training.retrieval import store as store_module
from keras_attn.training.retrieval.store import IndexParts, IndexStore, Maker

MAKER = Maker("/runs/a", "best", "recipe", "0" * 64, 3, {"height": 8})
FILES = {"a/1 é.jpg": (5, 2**62), "b.png": (7, 1), "c.png": (7, 2)}
ROWS = np.arange(9, dtype="float32").reshape(3, 3)


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "index"
    return IndexStore.open_or_create(path, MAKER, "/images", "global", {"a": 1})


def rows_of(store):
    return np.array(store.read_array(store.array, "float32", (None, 3)))


def test_what_is_written_is_read_back(store):
    store.write(FILES, ROWS)
    opened = IndexStore.open(store.path)
    assert opened == store and list(opened.files) == list(FILES)
    assert opened.maker == MAKER and opened.settings == {"a": 1}
    np.testing.assert_array_equal(rows_of(opened), ROWS)
    opened.write({"b.png": (7, 1)}, ROWS[1:2])
    assert IndexStore.open(store.path).files == {"b.png": (7, 1)}
    assert sorted(file.name for file in store.path.iterdir()) == [
        "index.json",
        "rows-000002.npy",
    ]


@pytest.mark.parametrize("fail_at", [0, 1])
def test_a_kill_leaves_the_index_before_or_after(store, monkeypatch, fail_at):
    store.write(FILES, ROWS)
    calls = []
    write = store_module.write_then_rename.__exit__

    def killed(self, *arguments):
        calls.append(self.path)
        if len(calls) > fail_at:
            # As a kill does: nothing is renamed, and nothing is tidied.
            self.file.close()
            raise SystemExit
        return write(self, *arguments)

    monkeypatch.setattr(store_module.write_then_rename, "__exit__", killed)
    with pytest.raises(SystemExit):
        store.write({"b.png": (7, 1)}, ROWS[1:2])
    monkeypatch.undo()
    opened = IndexStore.open(store.path)
    assert opened.files == FILES
    np.testing.assert_array_equal(rows_of(opened), ROWS)
    opened.write({"c.png": (7, 2)}, ROWS[2:])
    np.testing.assert_array_equal(rows_of(IndexStore.open(store.path)), ROWS[2:])


def test_two_processes_do_not_change_it_at_once(store):
    pytest.importorskip("fcntl")
    with store.locked():
        with pytest.raises(ValueError, match="another process is changing"):
            with IndexStore.open(store.path).locked():
                pass
    with IndexStore.open(store.path).locked():
        pass


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="which holds something else"):
            IndexStore.open_or_create(path, MAKER, "/images", "global", {})
    with pytest.raises(FileNotFoundError, match="an index. .* without index.json"):
        IndexStore.open(tmp_path)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".index.json.partial").write_text("{")
    new = IndexStore.open_or_create(tmp_path / "begun", MAKER, "/images", "global", {})
    assert new.files == {} and new.array is None


@pytest.mark.parametrize(
    "changes",
    [
        *({"format": "something"}, {"array": "../../etc/rows-000001.npy"}),
        *({"array": 7}, {"method": "other"}, {"settings": 1}, {"images": None}),
        *({"maker": {"path": "/runs/a"}}, {"maker": None}),
        *({"files": [["a", 1]]}, {"files": [["a", "1", 2]]}, {"files": 3}),
        *("", "{", "[]", "null", "\x00\x01"),
    ],
)
def test_a_wrong_description_is_one_error(store, changes):
    file = store.path / "index.json"
    if isinstance(changes, dict):
        changes = json.dumps({**json.loads(file.read_text()), **changes})
    file.write_text(changes)
    with pytest.raises(ValueError, match="index.json, which is damaged") as caught:
        IndexStore.open(store.path)
    assert "`keras-attn index` makes it anew." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_index_of_an_earlier_version_is_refused_in_one_line(tmp_path):
    """As commit a8c9ace wrote it."""
    maker = {"path": "/runs/a", "checkpoint": "best", "name": "a", "digest": "0" * 64}
    described = {
        "format": "keras-attn index",
        "version": 1,
        "maker": {**maker, "dimension": 3, "preprocessing": {}},
        "images": "/images",
        "index_type": "flat",
        "parts": ["part-000001.npz"],
    }
    (tmp_path / "index.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="of version 1; this program reads version 2"):
        IndexStore.open(tmp_path)


def damaged_arrays(path):
    good = path.read_bytes()
    yield good[:-5]
    yield b""
    yield b"\xff" + good[1:]
    # Unpickling the last one would run code of the file.
    for array in (ROWS[:, :2], ROWS.astype("float64"), np.array([{"a": 1}])):
        np.save(path, array)
        yield path.read_bytes()


def test_damaged_arrays_are_one_error_each(store):
    store.write(FILES, ROWS)
    path = store.path / store.array
    for data in damaged_arrays(path):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="rows-000001.npy, which is damaged"):
            rows_of(store)
    path.unlink()
    with pytest.raises(ValueError, match="rows-000001.npy, which is damaged"):
        rows_of(store)


def test_parts_are_found_again_and_belong_to_their_index(store, monkeypatch):
    monkeypatch.setattr(IndexParts, "SHARD", 2)
    assert not IndexParts.are_left(store)
    parts = IndexParts.begun(store, "float32", FILES)
    first, second = parts.shards()
    # One file could not be read; the other has several descriptors.
    parts.write_described(first, [1], [ROWS])
    again = IndexParts.begun(store, "float32")
    assert IndexParts.are_left(store) and again.files == FILES
    assert again.missing() == [second]
    again.write_described(second, [2], ROWS[:1])
    found = list(again.described())
    assert [arrays["numbers"].tolist() for arrays in found] == [[1], [2]]
    assert [arrays["counts"].tolist() for arrays in found] == [[3], [1]]
    np.testing.assert_array_equal(found[0]["descriptors"], ROWS)
    with pytest.raises(ValueError, match="made otherwise: .*dtype=float32 there"):
        IndexParts.begun(store, "float16")
    for wrong in ([0], [3]):
        again.write_described(second, wrong, ROWS[:1])
        with pytest.raises(ValueError, match="damaged .files that are not of this sha"):
            again.read_shard(second)
