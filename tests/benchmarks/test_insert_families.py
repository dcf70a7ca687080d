"""A block in every family of `keras.applications`: the smallest member, untouched."""

import pytest

from benchmarks.insert_families import (
    FAMILIES,
    PAGE,
    check_identity,
    disturb,
    family_of,
    images_of,
)

# Hundreds of layers of kinds that others have; the command that writes the page has
# them, as it has training, saving and exporting for all.
SLOW = {"DenseNet", "EfficientNetV2", "InceptionResNetV2", "NASNet"}


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - SLOW))
def test_a_block_that_does_nothing_changes_nothing(name):
    family = FAMILIES[name]
    backbone = disturb(family.build())
    check_identity(backbone, family.at[0], images_of(family, count=1))


def test_the_page_has_every_place():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    places = {(family_of(line), line.split("`")[1]) for line in lines if "`" in line}
    for name, family in FAMILIES.items():
        for at in family.at:
            assert (name, at) in places
