"""Check of a data set: every image decoded, duplicates, classes; a text and a page."""

import collections
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from keras_attn.pipelines.images.contact_sheet import reduced
from keras_attn.pipelines.images.decoding import CorruptImageError
from keras_attn.pipelines.images.duplicates import Seen, near_pairs, same_pixels, see
from keras_attn.pipelines.sources.splits import missing_classes, split_indices
from keras_attn.training.data.describe import named_source
from keras_attn.training.data.own import own_split
from keras_attn.training.pages import check_name, image_uri, write_page

TEMPLATE = "data_check.html"
# Images with a shorter side are tiny.
TINY = 16
# Lines of each kind in the text, groups of each on the page, and images of a group.
LINES, GROUPS, MEMBERS = 5, 50, 4
# The largest class has more times the images of the smallest.
UNBALANCED = 10


class Checked(NamedTuple):
    """Findings on a data set.

    Attributes:
        faults: Number of faults: damaged and tiny images, duplicates, and images that
            look the same in two classes or parts of the split.
        text: Findings in lines.
    """

    faults: int
    text: str


class Finding(NamedTuple):
    """Images of one kind.

    Attributes:
        title: Kind.
        fault: Whether it is one, or only of note.
        groups: Lists of indices of the images that belong together.
        notes: Text of each group.
    """

    title: str
    fault: bool
    groups: list
    notes: list


def check(
    name,
    data=None,
    output="data_check.html",
    split=None,
    assignments=(),
    depth=0,
    progress=lambda done, total: None,
):
    """Decodes all images of a data set, and writes a page on what is wrong with them.

    Args:
        name, data, assignments, depth: See `named_source`.
        output: Path of the page.
        split: Name of the split whose parts shall have no image in common; by default
            the parts of the data set, or what `train --data` makes of a folder.
        progress: Called with (images done, images in all).

    Returns:
        `Checked`.
    """
    output = check_name(output)
    source = named_source(name, data, "skip", assignments, depth)
    split = split or own_split(source)
    indices = split_indices(source, split)
    parts = np.full(len(source), "", object)
    for part, chosen in indices.items():
        parts[chosen] = part
    seen = see(source, progress)
    found = [each for each in _findings(source, parts, seen) if each.groups]
    faults = sum(len(each.groups) for each in found if each.fault)
    faults += len(source.skipped)
    facts = _facts(source, split, indices, seen)
    classes = [
        (
            class_name,
            *(int((source.labels[i] == label).sum()) for i in indices.values()),
        )
        for label, class_name in enumerate(source.class_names)
    ]
    content = {
        "name": name if data is None else f"{name}, {data}",
        "faults": faults,
        "facts": facts,
        "parts": list(indices),
        "classes": classes,
        "skipped": source.skipped,
        "findings": [(each, _shown(source, seen, each)) for each in found],
        "limit": GROUPS,
    }
    write_page(output, TEMPLATE, content)
    return Checked(faults, "\n".join(_lines(source, found, facts, faults, output)))


def _findings(source, parts, seen):
    """The `Finding`s, the worst first."""
    corrupt = [i for i, each in enumerate(seen) if isinstance(each, CorruptImageError)]
    tiny = [
        index
        for index, each in enumerate(seen)
        if isinstance(each, Seen) and min(each.size) < TINY
    ]
    sizes = [f"{seen[i].size[0]} x {seen[i].size[1]} pixels" for i in tiny]
    yield Finding(
        "Damaged images",
        True,
        [[i] for i in corrupt],
        [seen[i].reason for i in corrupt],
    )
    yield Finding(f"Images below {TINY} pixels", True, [[i] for i in tiny], sizes)
    for same, pairs in (
        ("Same image", same_pixels(seen)),
        ("Nearly the same image", near_pairs(seen)),
    ):
        sorted_out = collections.defaultdict(list)
        for group in pairs:
            labels = {source.class_names[source.labels[index]] for index in group}
            there = {parts[index] for index in group} - {""}
            kind = "classes" if len(labels) > 1 else "parts" if len(there) > 1 else ""
            text = {"classes": labels, "parts": there}.get(kind, labels)
            sorted_out[kind].append((list(group), " and ".join(sorted(text))))
        for kind, title in (
            ("classes", f"{same} in two classes"),
            ("parts", f"{same} in two parts of the split"),
            ("", f"{same} in one class and part"),
        ):
            fault = bool(kind) or same == "Same image"
            groups = [group for group, _ in sorted_out[kind]]
            notes = [note for _, note in sorted_out[kind]]
            yield Finding(title, fault, groups, notes)


def _facts(source, split, indices, seen):
    """Dict of what is counted, as texts."""
    good = [each for each in seen if isinstance(each, Seen)]
    facts = {
        "Images": f"{len(seen)}, {len(source.class_names)} classes",
        "Split": f"{split}: "
        + ", ".join(f"{len(chosen)} {part}" for part, chosen in indices.items()),
    }
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    least, most = counts.argmin(), counts.argmax()
    names = source.class_names
    facts["Classes"] = f"{counts[most]} images each"
    if counts[least] < counts[most]:
        facts["Classes"] = (
            f"{counts[least]} ({names[least]}) to {counts[most]} images ({names[most]})"
        )
    if counts[most] > UNBALANCED * counts[least]:
        facts["Classes"] += ", unbalanced"
    if missing := missing_classes(source, indices):
        facts["Missing"] = "; ".join(missing)
    if good:
        sides = np.array([each.size for each in good])
        low, high = sides.min(axis=0), sides.max(axis=0)
        facts["Size"] = f"{low[0]} x {low[1]} to {high[0]} x {high[1]} pixels"
        facts["Formats and modes"] = _counted(each.mode for each in good)
        facts["EXIF orientation"] = _counted(each.orientation for each in good)
    if source.ignored:
        facts["Left out"] = replace(source, skipped=()).left_out
    return facts


def _counted(values):
    return ", ".join(
        f"{value}: {count}"
        for value, count in collections.Counter(values).most_common()
    )


def _lines(source, found, facts, faults, output):
    """The findings as lines of text."""
    yield from (f"{key}: {value}" for key, value in facts.items())
    if source.skipped:
        yield f"\nEmpty files and other formats: {len(source.skipped)}"
        yield from (f"  {file}: {reason}" for file, reason in source.skipped[:LINES])
    for each in found:
        yield f"\n{each.title}: {len(each.groups)}"
        for group, note in zip(each.groups[:LINES], each.notes, strict=False):
            yield f"  {', '.join(map(source.where, group))}: {note}"
        if len(each.groups) > LINES:
            yield f"  and {len(each.groups) - LINES} more, on the page"
    yield f"\nFaults: {faults}. Page: {output}"


def _shown(source, seen, finding):
    """`(note, [(name, picture or None)])` of the groups that the page shows."""
    shown = []
    groups = zip(finding.groups[:GROUPS], finding.notes, strict=False)
    for group, note in groups:
        pictures = [
            image_uri(reduced(source.array(index))[0])
            if isinstance(seen[index], Seen)
            else None
            for index in group[:MEMBERS]
        ]
        names = [source.where(index) for index in group]
        pictures += [None] * (len(names) - len(pictures))
        shown.append((note, list(zip(names, pictures, strict=True))))
    return shown
