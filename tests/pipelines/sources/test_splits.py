"""Splits: stratified, disjoint, complete, deterministic."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from keras_attn.pipelines.sources.splits import (
    SPLIT_NAMES,
    missing_classes,
    part_counts,
    split_indices,
)


def source(counts, official=None, order_seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = np.random.default_rng(order_seed).permutation(labels)
    names = tuple(f"class{i}" for i in range(len(counts)))
    return SimpleNamespace(
        name="toy", class_names=names, labels=labels, official=official or {}
    )


def per_class(data, indices):
    return np.bincount(data.labels[indices], minlength=len(data.class_names))


@pytest.mark.parametrize(
    "name, totals",
    [
        ("pooled_65_15_20", (39_000, 9_000, 12_000)),
        ("pooled_80_20", (48_000, 0, 12_000)),
        ("pooled_40k_10k_10k", (40_000, 10_000, 10_000)),
    ],
)
def test_pooled_totals_of_sixty_thousand(name, totals):
    data = source([600] * 100)
    split = split_indices(data, name)
    assert tuple(len(split[key]) for key in ("train", "validation", "test")) == totals
    for indices, total in zip(split.values(), totals, strict=True):
        assert np.abs(per_class(data, indices) - total / 100).max() <= 1


@pytest.mark.parametrize("name", SPLIT_NAMES)
@pytest.mark.parametrize("seed", [0, 7])
def test_disjoint_sorted_complete(name, seed):
    official = {"train": np.arange(500, 0, -1), "test": np.arange(501, 700)}
    data = source([301, 97, 150, 152], official)
    split = split_indices(data, name, seed)
    assert list(split) == ["train", "validation", "test"]
    for indices in split.values():
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()
    together = np.sort(np.concatenate(list(split.values())))
    everything = np.arange(700) if name.startswith("pooled") else np.arange(1, 700)
    np.testing.assert_array_equal(together, everything)


def test_forty_five_thousand():
    split = split_indices(source([5000] * 10), "45k_5k")
    assert [len(i) for i in split.values()] == [45_000, 5_000, 0]


def test_forty_five_thousand_with_an_official_test_set():
    official = {"train": np.arange(100), "test": np.arange(100, 130)}
    split = split_indices(source([60, 70], official), "45k_5k")
    assert [len(i) for i in split.values()] == [90, 10, 30]
    np.testing.assert_array_equal(split["test"], official["test"])


def test_official_takes_a_tenth_for_validation_or_the_official_one():
    official = {"train": np.arange(100), "test": np.arange(100, 130)}
    split = split_indices(source([60, 70], official), "official")
    assert [len(i) for i in split.values()] == [90, 10, 30]
    official["validation"] = official["test"][:10]
    official["test"] = official["test"][10:]
    split = split_indices(source([60, 70], official), "official")
    assert [len(i) for i in split.values()] == [100, 10, 20]


def test_official_may_lack_a_test_set():
    official = {"train": np.arange(100), "validation": np.arange(100, 130)}
    split = split_indices(source([60, 70], official), "official")
    assert [len(i) for i in split.values()] == [100, 30, 0]


def test_same_seed_same_split_other_seed_other_split():
    data = source([40, 50, 60])
    first, again, other = (
        split_indices(data, "pooled_65_15_20", seed) for seed in (3, 3, 4)
    )
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
        assert not np.array_equal(first[key], other[key])


def test_the_split_is_pinned():
    # Published numbers hang on it: no platform or NumPy version may move an image.
    data = source([600] * 100)
    data.labels = np.arange(60_000) % 100
    split = split_indices(data, "pooled_65_15_20", seed=0)
    digest = hashlib.sha256(split["test"].astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "2bf4dc34e18d8915"


@pytest.mark.parametrize("parts", [(65, 15, 20), (4, 1, 1), (9, 1), (1, 1, 1, 1)])
def test_counts_are_within_one_and_totals_exact(parts):
    generator = np.random.default_rng(5)
    share = np.array(parts) / sum(parts)
    for _ in range(200):
        sizes = generator.integers(0, 60, generator.integers(1, 40))
        counts = part_counts(sizes, parts)
        np.testing.assert_array_equal(counts.sum(axis=1), sizes)
        assert counts.min() >= 0
        assert np.abs(counts - np.outer(sizes, share)).max() <= 1 + 1e-9
        assert np.abs(counts.sum(axis=0) - sizes.sum() * share).max() < 1


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_small_classes_are_trained_and_what_lacks_them_is_named(count):
    data = source([40, count, 60])
    split = split_indices(data, "pooled_65_15_20")
    there = np.concatenate(list(split.values()))
    assert sorted(there) == list(range(100 + count))
    assert 1 in data.labels[split["train"]]
    absent = [part for part in split if 1 not in data.labels[split[part]]]
    lines = missing_classes(data, split)
    assert [line.split()[1] for line in lines] == absent
    assert all(line.endswith("images of 1 classes: class1") for line in lines)
    assert absent or count > 2


def test_unknown_name_names_the_nearest():
    with pytest.raises(
        ValueError, match="'pooled_65_15_25'. Did you mean 'pooled_65_15_20'"
    ):
        split_indices(source([40, 40]), "pooled_65_15_25")


def test_one_class_only():
    with pytest.raises(ValueError, match="Expected at least 2 classes"):
        split_indices(source([40]), "45k_5k")


def test_no_official_split():
    with pytest.raises(ValueError, match="toy has no official split"):
        split_indices(source([40, 40]), "official")
