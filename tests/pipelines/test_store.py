"""Shards of a described folder: whoever writes them, whenever, in whatever state."""

import itertools
import json
import re

import numpy as np
import pytest

from keras_attn.pipelines.store import Store


class Squares(Store):
    CONTENT, FORMAT = "squares", "keras-attn squares"
    DESCRIPTION, MAKER, SHARD = "squares.json", "`make squares`", 3

    def layout(self, count):
        return {"squares": ("int64", (count,)), "any": ("uint8", (None, 2))}

    def check(self, arrays, shard):
        if (arrays["squares"] < 0).any():
            raise ValueError("negative squares")


MAKER = {"examples": 8, "of": (1, 2), "digest": "0" * 64}


def squares(shard):
    numbers = np.arange(shard.start, shard.stop)
    return {"squares": numbers**2, "any": np.full((shard.start, 2), 7, "uint8")}


def filled(path, order=(0, 1, 2)):
    store = Squares.open_or_create(path, MAKER, notes={"a": 1})
    for number in order:
        shard = store.shards()[number]
        store.write_shard(shard, squares(shard))
    return store


def files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_shards_cover_all_examples_and_are_joined_in_their_order(tmp_path):
    store = filled(tmp_path / "a" / "b", (2, 0, 1))
    bounds = [(shard.start, shard.stop) for shard in store.shards()]
    assert bounds == [(0, 3), (3, 6), (6, 8)] and len(store) == 8
    opened = Squares.open(store.path)
    assert opened.missing() == [] and opened.notes == {"a": 1}
    arrays = opened.read_shards()
    assert arrays["squares"].tolist() == [n**2 for n in range(8)]
    assert arrays["any"].shape == (0 + 3 + 6, 2)
    # As many as a file holds, and one more.
    for examples in (3, 4):
        store = Squares(tmp_path, {"examples": examples})
        assert [s.stop - s.start for s in store.shards()] == [3, 1][: examples - 2]


def test_neither_who_writes_nor_when_changes_the_folder(tmp_path):
    wanted = files(filled(tmp_path / "one").path)
    for number, order in enumerate(itertools.permutations(range(3))):
        path = tmp_path / str(number)
        # Each shard by a process of its own, one of them twice.
        for each in (*order, order[0]):
            filled(path, (each,))
        assert files(path) == wanted
    filled(tmp_path / "again", (1,))
    store = Squares.open(tmp_path / "again")
    assert [shard.start for shard in store.missing()] == [0, 6]
    with pytest.raises(ValueError, match="of 8 examples.* those of 5 .*`make squares`"):
        store.read_shards()


def test_another_maker_is_refused_in_one_line_that_names_what_differs(tmp_path):
    before = files(filled(tmp_path, (1,)).path)
    other = {**MAKER, "of": (1, 3), "digest": "1" * 64, "new": True}
    with pytest.raises(ValueError, match="squares in .* were made otherwise") as caught:
        Squares.open_or_create(tmp_path, other)
    message = str(caught.value)
    assert "of=[1, 2] there, [1, 3] now; digest=000000000000... there" in message
    assert "new=None there, True now" in message and "\n" not in message
    assert files(tmp_path) == before
    # Where nothing was computed yet nothing is lost.
    filled(tmp_path / "empty", ())
    assert Squares.open_or_create(tmp_path / "empty", other).maker["new"]
    assert Squares.open(tmp_path / "empty").maker["of"] == [1, 3]


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="of squares.*without squares.json. `ma"
    ):
        Squares.open(tmp_path)
    (tmp_path / ".squares.json.host-77.partial").write_bytes(b"{")
    filled(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"")
    for path in (tmp_path / "other", tmp_path / "other" / "photo.jpg"):
        with pytest.raises(ValueError, match="which holds something else"):
            Squares.open_or_create(path, MAKER)


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "{", "[]", "null", "\x00\x01", {"format": "other"}, {"shard": 0}),
        *({"maker": {}}, {"maker": None}, {"maker": {"examples": "8"}}),
    ],
)
def test_a_damaged_description_is_one_line(tmp_path, wrong):
    file = filled(tmp_path).path / "squares.json"
    if isinstance(wrong, dict):
        wrong = json.dumps({**json.loads(file.read_text()), **wrong})
    file.write_text(wrong)
    for use in (Squares.open, lambda path: Squares.open_or_create(path, MAKER)):
        with pytest.raises(
            ValueError, match="squares.json, which is damaged"
        ) as caught:
            use(tmp_path)
        assert str(caught.value).endswith("and `make squares` makes it anew.")
        assert "\n" not in str(caught.value)


def test_another_version_is_one_line(tmp_path):
    filled(tmp_path)
    file = tmp_path / "squares.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 3}))
    wanted = (
        f"Cannot read {file}, which is of version 3; this program reads version 1. "
        "Delete the folder, and `make squares` makes it anew."
    )
    with pytest.raises(ValueError, match=re.escape(wanted)):
        Squares.open(tmp_path)


def test_damaged_shards_are_one_line_and_are_computed_again(tmp_path):
    store = filled(tmp_path)
    shard = store.shards()[1]
    good, arrays = shard.path.read_bytes(), squares(shard)
    store.check_shards()
    for damage in (
        b"",
        good[:-30],
        good[:60] + b"\xff\xfe" + good[62:],
        {**arrays, "squares": arrays["squares"][1:]},
        {**arrays, "squares": arrays["squares"].astype("int32")},
        {**arrays, "squares": -arrays["squares"]},
        {**arrays, "any": arrays["any"][:, :1]},
        # Unpickling it would run code of the file.
        {**arrays, "any": np.array([[None, None]])},
        {"squares": arrays["squares"]},
    ):
        if isinstance(damage, bytes):
            shard.path.write_bytes(damage)
        else:
            np.savez(shard.path, **damage)
        for read in (store.read_shards, store.check_shards):
            with pytest.raises(ValueError, match="00000003-00000006.npz, which is dam"):
                read()
    shard.path.unlink()
    assert store.missing() == [shard]
    filled(tmp_path, (1,))
    assert shard.path.read_bytes() == good
    store.delete()
    assert not tmp_path.exists()


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    store = filled(tmp_path, ())

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(ValueError, match="to write squares to .*No space left"):
        store.write_shard(store.shards()[0], squares(store.shards()[0]))
    assert list(files(tmp_path)) == ["squares.json"]
