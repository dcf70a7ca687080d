"""The folder of an index against a plain dict, and what is done to its files."""

import json

import numpy as np
import pytest

from keras_attn.training.retrieval import store as store_module
from keras_attn.training.retrieval.store import IndexStore, Maker, Part

DIMENSION = 3
MAKER = Maker("/runs/a", "best", "recipe", "0" * 64, DIMENSION, {"height": 8})


def part_of(entries):
    """A `Part` of a dict from names to `(stamp, descriptor)`."""
    return Part(
        tuple(entries),
        np.array([stamp for stamp, _ in entries.values()]),
        np.array([descriptor for _, descriptor in entries.values()], "float32"),
    )


def contents(store):
    """The same dict, of all rows that count."""
    found = {}
    for name, rows in store.counting().items():
        part = store.read(name, rows)
        lines = zip(part.names, part.stamps, part.descriptors, strict=True)
        for file, stamp, descriptor in lines:
            assert file not in found
            found[file] = (tuple(stamp.tolist()), tuple(descriptor.tolist()))
    return found


def random_entries(random, count):
    return {
        f"folder/{number} é.jpg": (
            tuple(random.integers(0, 2**62, 2).tolist()),
            tuple(random.integers(-9, 9, DIMENSION).astype(float).tolist()),
        )
        for number in random.permutation(30)[:count]
    }


@pytest.fixture
def store(tmp_path):
    return IndexStore.create(tmp_path / "index", MAKER, "/images")


def test_adding_and_keeping_is_what_a_dict_does(store, monkeypatch):
    monkeypatch.setattr(store_module, "PART_ROWS", 8)
    random = np.random.default_rng(0)
    expected = {}
    for step in range(60):
        if step % 4 < 3:
            added = random_entries(random, random.integers(1, 6))
            store.add(part_of(added))
            expected.update(added)
        else:
            stamps = {
                name: stamp if random.random() < 0.9 else (stamp[0] + 1, stamp[1])
                for name, (stamp, _) in expected.items()
                if random.random() < 0.8
            }
            stamps["never seen"] = (1, 2)
            store.keep(stamps)
            expected = {
                name: entry
                for name, entry in expected.items()
                if stamps.get(name) == entry[0]
            }
            sizes = [len(rows) for rows in store.counting().values()]
            assert sum(size < 4 for size in sizes) <= 1 and max(sizes) <= 8
        store = IndexStore.open(store.path)
        assert contents(store) == expected
        stamps = {name: stamp for name, (stamp, _) in expected.items()}
        assert store.stamps() == stamps
    files = {file.name for file in store.path.iterdir()}
    assert files == {"index.json", *store.parts}


def test_what_is_known_of_the_model_is_read_back(store):
    opened = IndexStore.open(store.path)
    assert opened.maker == MAKER and opened.images == "/images"
    assert opened.index_type == "flat"


@pytest.mark.parametrize("fail_at", range(5))
def test_a_kill_leaves_the_index_before_or_after(store, monkeypatch, fail_at):
    random = np.random.default_rng(1)
    before = random_entries(random, 9)
    store.add(part_of(before))
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
    added = random_entries(random, 5)
    after = {**before, **added}
    stamps = {name: stamp for name, (stamp, _) in list(after.items())[:-2]}
    with pytest.raises(SystemExit):
        store.add(part_of(added))
        store.keep(stamps)
        store.write_description()
    monkeypatch.undo()
    opened = IndexStore.open(store.path)
    kept = {name: after[name] for name in stamps}
    assert contents(opened) == [before, before, after, after, kept][fail_at]
    opened.keep(stamps)
    assert {file.name for file in store.path.iterdir()} == {"index.json", *opened.parts}


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
    with pytest.raises(ValueError, match="which holds something else"):
        IndexStore.create(tmp_path, MAKER, "/images")
    with pytest.raises(ValueError, match="which holds something else"):
        IndexStore.create(tmp_path / "notes.txt", MAKER, "/images")
    with pytest.raises(FileNotFoundError, match="without an index.json"):
        IndexStore.open(tmp_path)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".index.json.partial").write_text("{")
    assert IndexStore.create(tmp_path / "begun", MAKER, "/images").parts == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "something"},
        {"version": 2},
        {"parts": ["../../etc/part-000001.npz"]},
        {"parts": [7]},
        {"index_type": "strange"},
        {"maker": {"path": "/runs/a"}},
        {"maker": None},
    ],
)
def test_a_strange_description_is_one_error(store, changes):
    file = store.path / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(ValueError, match="Cannot read the index .*index: ."):
        IndexStore.open(store.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\x01"])
def test_what_is_no_description_is_one_error(store, text):
    (store.path / "index.json").write_text(text)
    with pytest.raises(ValueError, match="Cannot read the index"):
        IndexStore.open(store.path)


def damaged_parts(path):
    good = path.read_bytes()
    with np.load(path) as stored:
        arrays = dict(stored)
    yield good[:-50]
    yield b""
    middle = len(good) // 2
    yield good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :]
    for changes in (
        {"descriptors": arrays["descriptors"][:, :2]},
        {"descriptors": arrays["descriptors"].astype("float64")},
        {"stamps": arrays["stamps"][:-1]},
        {"names": np.frombuffer(b"[1, 2]", "uint8")},
        # Unpickling these would run code of the file.
        {"names": np.array([{"a": 1}], dtype=object)},
        {"descriptors": arrays["descriptors"].astype(object)},
    ):
        np.savez(path, **{**arrays, **changes})
        yield path.read_bytes()


def test_damaged_parts_are_one_error_each(store):
    store.add(part_of(random_entries(np.random.default_rng(2), 2)))
    path = store.path / store.parts[0]
    for data in damaged_parts(path):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="part-000001.npz, which is damaged"):
            contents(IndexStore.open(store.path))
    path.unlink()
    with pytest.raises(ValueError, match="part-000001.npz, which is damaged"):
        IndexStore.open(store.path).stamps()
