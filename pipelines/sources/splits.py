"""Named splits of a source: stratified, disjoint, deterministic.

Every class is divided in the same proportion. The counts are rounded so that a class is
off its exact share by at most one image and each split's total is its exact share,
rounded.
"""

import numpy as np

from keras_attn._checks import one_of

# Parts (train, validation, test) of all images pooled.
POOLED = {
    "pooled_65_15_20": (65, 15, 20),
    "pooled_40k_10k_10k": (4, 1, 1),
    "pooled_80_20": (4, 0, 1),
}
SPLIT_NAMES = (*POOLED, "official", "45k_5k")
NOTHING = np.zeros(0, np.int64)


def split_indices(source, name, seed=0):
    """The indices of a named split of a source.

    Names:

    - `pooled_65_15_20`: all images pooled, 65/15/20 % for train/validation/test, the
      split of the class-embedding paper for Mini-ImageNet (39,000/9,000/12,000).
    - `pooled_40k_10k_10k`: all images pooled, 4/6, 1/6 and 1/6 of them (of 60,000:
      40,000/10,000/10,000).
    - `pooled_80_20`: all images pooled, 80 % for training, none for validation and 20 %
      for the test.
    - `official`: the source's own train and test images, and its own validation
      images, or else a tenth of the train images.
    - `45k_5k`: nine tenths of the official train images (of all images, when there is
      no official test set) for training, one tenth for validation; the test images
      are the official ones, or none.

    Args:
        source: A `Source`: its `labels`, `class_names` and `official` are read.
        name: One of the names above.
        seed: Seed of the choice of images in a class; official parts do not move.

    Returns:
        A dict of sorted int64 index arrays: `train`, `validation`, `test` (which may
        be empty).

    Raises:
        ValueError: Unknown name; fewer than two classes; `official` for a source that
            has no such split.

    Example:

    >>> indices = split_indices(load_source("folder", "photos"), "pooled_65_15_20")
    >>> len(indices["train"]), len(indices["validation"]), len(indices["test"])
    """
    one_of("split", name, SPLIT_NAMES)
    if len(source.class_names) < 2:
        raise ValueError(
            "Expected at least 2 classes. "
            f"Received: {source.name} with classes {list(source.class_names)}."
        )
    everything = np.arange(len(source.labels))
    official = {key: np.sort(np.asarray(i)) for key, i in source.official.items()}
    if name in POOLED:
        train, validation, test = stratified(source, everything, POOLED[name], seed)
    elif name == "45k_5k":
        pool = official["train"] if "test" in official else everything
        train, validation = stratified(source, pool, (9, 1), seed)
        test = official.get("test", NOTHING)
    else:
        if "train" not in official:
            raise ValueError(
                f"{source.name} has no official split. Expected one of "
                f"{', '.join(sorted(set(SPLIT_NAMES) - {name}))}. Received: {name!r}."
            )
        train, test = official["train"], official.get("test", NOTHING)
        if "validation" in official:
            validation = official["validation"]
        else:
            train, validation = stratified(source, train, (9, 1), seed)
    return {"train": train, "validation": validation, "test": test}


def at_most(source, indices, count, seed=0):
    """At most `count` images of every class among the indices, sorted.

    Args:
        source, indices, seed: See `stratified`.
        count: Number of images; 0: all.
    """
    if not count:
        return indices
    order = np.random.default_rng(seed).permutation(indices)
    labels = np.asarray(source.labels)[order]
    chosen = [order[labels == label][:count] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def missing_classes(source, indices):
    """Lines on the classes that a part lacks, for people; empty parts are left out.

    Args:
        source: A `Source`.
        indices: Result of `split_indices`.
    """
    lines = []
    for part, chosen in indices.items():
        counts = np.bincount(source.labels[chosen], minlength=len(source.class_names))
        absent = [source.class_names[label] for label in np.flatnonzero(counts == 0)]
        if absent and len(chosen):
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            names = ", ".join(absent[:5])
            lines.append(f"No {part} images of {len(absent)} classes: {names}{more}")
    return lines


def stratified(source, indices, parts, seed=0):
    """Divide some images of a source in the same proportion in every class.

    The proportion is that of `parts`, whole numbers; each part is a sorted index array.
    The seed and a class's number decide the choice in that class.
    """
    labels = np.asarray(source.labels)[indices]
    sizes = np.bincount(labels, minlength=len(source.class_names))
    counts = part_counts(sizes, parts)
    # A class with too few images for every part is at least in the first, the training.
    for row in counts:
        if row[0] == 0 < row.sum():
            row[0], row[row.argmax()] = 1, row.max() - 1
    pieces = [[] for _ in parts]
    for label, row in enumerate(counts):
        members = np.sort(np.asarray(indices)[labels == label])
        keys = np.random.default_rng([seed, label]).random(len(members))
        members = members[np.argsort(keys, kind="stable")]
        for piece, chosen in zip(
            pieces, np.split(members, np.cumsum(row)[:-1]), strict=True
        ):
            piece.append(chosen)
    return [np.sort(np.concatenate(piece)).astype(np.int64) for piece in pieces]


def part_counts(sizes, parts):
    """Numbers of images of each class in each part.

    Starts from the shares rounded down. The images left in a class, always fewer than
    there are parts, go one by one to the parts that still lack most of their total;
    serving the largest need first always meets the totals (the
    construction in the Gale-Ryser theorem).

    Args:
        sizes: Images in each class, (classes,).
        parts: Whole numbers, the proportion of the parts.

    Returns:
        An int64 array (classes, parts). Rows sum to `sizes`; every entry is off its
        exact share by at most one, and every column total by less than one.
    """
    sizes = np.asarray(sizes, np.int64)
    parts = np.asarray(parts, np.int64)
    counts = sizes[:, None] * parts // parts.sum()
    totals = sizes.sum() * parts // parts.sum()
    lost = sizes.sum() * parts % parts.sum()
    totals[np.argsort(-lost, kind="stable")[: sizes.sum() - totals.sum()]] += 1
    need = totals - counts.sum(axis=0)
    for row, left in zip(counts, sizes - counts.sum(axis=1), strict=True):
        chosen = np.argsort(-need, kind="stable")[:left]
        row[chosen] += 1
        need[chosen] -= 1
    return counts
