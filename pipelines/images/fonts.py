"""Fonts for names in pictures, by the characters that they have.

DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Arabic and Hebrew;
other scripts are drawn by fonts of the system. A class whose name no font has is
written as its number, and `numbered` gives the names as text.
"""

import functools
import pathlib

PACKAGE = "fonts-noto-cjk"
# Fonts without outlines, or whose glyphs are boxes.
UNFIT = ("emoji", "lastresort")
# Names in a line of text.
NAMES = 20


def drawable(name, label):
    """A class's name, or `class 3` for label 2 where no font has its characters."""
    return name if font_file(name) else f"class {label + 1}"


def drawable_names(class_names):
    """`drawable` of all names."""
    return tuple(drawable(name, label) for label, name in enumerate(class_names))


def numbered(class_names):
    """A line on the classes that pictures have as numbers; empty without any."""
    found = [
        f"class {label + 1} is {name}"
        for label, name in enumerate(class_names)
        if not font_file(name)
    ]
    if not found:
        return ""
    names = ", ".join(found[:NAMES]) + ", ..." * (len(found) > NAMES)
    return f"Without a font for it in pictures (such as {PACKAGE}): {names}"


def font_file(text):
    """Path of a font that has all characters of a text, or `None`."""
    wanted = frozenset(ord(letter) for letter in text if not letter.isspace())
    return next((file for file in _files() if wanted <= _characters(file)), None)


def is_plain(text):
    """True for a text of ASCII's letters and signs, which every font has."""
    return all(" " <= letter <= "~" or letter == "\n" for letter in text)


def picture_font(text, size):
    """Pillow's font for a text; for one that no font has, its default."""
    from PIL import ImageFont

    file = None if is_plain(text) else font_file(text)
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def without_boxes(text):
    """A text with `?` for every character that DejaVu Sans lacks."""
    known = _characters(_files()[0])
    return "".join(c if c.isspace() or ord(c) in known else "?" for c in text)


@functools.cache
def _files():
    """DejaVu Sans, then the fonts of the system, sans serif and regular ones first."""
    import matplotlib
    from matplotlib import font_manager

    first = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    # Not matplotlib's list, which does not see fonts that are installed later.
    found = [
        file
        for file in font_manager.findSystemFonts()
        if not any(part in pathlib.Path(file).name.lower() for part in UNFIT)
    ]
    found.sort(key=lambda file: ("Sans" not in file, "Regular" not in file, file))
    return [str(first), *found]


@functools.cache
def _characters(file):
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()
