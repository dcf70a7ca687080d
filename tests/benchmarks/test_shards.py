"""The benchmark of shards, on few images."""

import pytest

from benchmarks import shards


def test_every_source_is_read_and_listed(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(shards, "SIDE", 16)
    monkeypatch.setattr(shards, "CLASSES", 2)
    # Processes of their own, which measure memory, take seconds to start.
    monkeypatch.setattr(shards, "in_new_process", lambda function, place: (3.0, 50.0))
    rows = {row.case: row for row in shards.speeds(tmp_path, 6, 1)}
    ways = ("in order", "in random order", "decoded")
    assert list(rows) == [
        f"{name}, {way}" for way in ways for name in ("folder", "tar", "parquet")
    ]
    assert rows["folder, decoded"].ratio == 1.0
    costs = {row.case: row for row in shards.costs(tmp_path, 6)}
    assert (costs["tar, 6 listed, s"].value, costs["tar, 6 listed, s"].ratio) == (
        3,
        0.1,
    )
    assert costs["folder, 6 streamed, MB"].ratio == 0.05


def test_growth_is_above_the_memory_at_the_beginning(tmp_path):
    if not shards.pathlib.Path("/proc/self/clear_refs").exists():
        pytest.skip("needs /proc")
    with shards.Growth() as growth:
        block = bytearray(50_000_000)
        block[::4096] = b"1" * len(block[::4096])
        del block
    assert 45 < growth.megabytes < 100
    image = shards.encoded(shards.np.random.default_rng(0), 4, "PNG")
    shards.write_tars(tmp_path / "tars", 5, image)
    assert shards.list_many(str(tmp_path / "tars"))[1] < 45
