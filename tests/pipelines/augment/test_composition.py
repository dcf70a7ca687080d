"""Compositions of operations as texts."""

import pytest

from keras_attn.pipelines.augment.composition import (
    AUGMENTATIONS,
    check_augmentation,
    parse,
)


def test_a_composition_is_read_with_its_defaults():
    assert parse(" resize(72) | random_crop(64, 48)|flip|erase(0.25)") == (
        ("resize", (72, 72)),
        ("random_crop", (64, 48)),
        ("flip", (0.5,)),
        ("erase", (0.25,)),
    )
    assert parse("translate()") == parse("translate") == (("translate", (4,)),)


def test_names_are_compositions_and_part_of_others():
    assert parse("none") == () and parse("none|flip") == parse("flip")
    assert parse("translate_flip_erase") == parse("translate_flip|erase")
    assert parse("rotate_crop_flip") == (("rotate_crop", (15.0, 0.875, 0.5)),)
    for name in AUGMENTATIONS:
        check_augmentation(name, (32, 48))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "translate_flipp",
            "Received: 'translate_flipp'. Did you mean 'translate_flip'",
        ),
        ("resise(72)|flip", "Did you mean 'resize'"),
        ("", "or operations joined by | among translate, flip"),
        ("flip|", "Received: 'flip|'"),
        ("flip(0.5", "Received: 'flip"),
        ("none(1)", "Received: 'none"),
        ("flip(1, 2)", "at most 1 arguments of flip"),
        (
            "resize",
            "height of resize to be an integer in [1, inf). Received: 'resize'",
        ),
        ("resize(7.5)", "height of resize to be an integer"),
        (
            "erase(1.5)",
            "probability of erase to be a number in [0, 1]",
        ),
        ("erase(nan)", "probability of erase"),
        ("erase(__import__)", "probability of erase"),
    ],
)
def test_mistakes_have_one_clear_error(text, message):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_size_of_the_images_is_kept():
    check_augmentation("resize(72)|random_crop(64)", (64, 64))
    check_augmentation("resize(72)")
    with pytest.raises(ValueError, match="end with images of 64 x 64 .*with 72 x 72"):
        check_augmentation("resize(72)|flip", (64, 64))
    with pytest.raises(ValueError, match="at most 64 x 32 pixels.*with 64 x 64"):
        check_augmentation("random_crop(64)", (64, 32))
