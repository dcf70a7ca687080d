"""Docstrings of public layers: Keras's sections, papers of docs/papers.md."""

import inspect
import re

import pytest

from keras_attn import layers
from tests.harness import own_parameters
from tests.test_architecture import ROOT

SECTIONS = (
    "Args",
    "Call arguments",
    "Input shape",
    "Output shape",
    "Convention",
    "Returns",
    "Raises",
    "Example",
    "Reference",
)
SECTION = re.compile(rf"^({'|'.join(SECTIONS)}):(.*)", re.MULTILINE)
CHECK = re.compile(r"raise ValueError|\b(positive_|one_of|number_in|pair\(|check_)")
KEY = re.compile(r"\[(\w+)\]\s*(?:arXiv:(\d{4}\.\d{5}))?")


def sections_of(layer):
    """Dict from title to text of the sections of a docstring, in their order."""
    parts = SECTION.split(inspect.getdoc(layer))[1:]
    titles, texts = parts[::3], zip(parts[1::3], parts[2::3], strict=True)
    assert len(set(titles)) == len(titles), f"{layer.__name__} repeats a section."
    return dict(zip(titles, map("".join, texts), strict=True))


def papers():
    """Dict from key to arXiv number, empty where there is none."""
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+ \| ?([\d.]*) ?\|$", text, re.MULTILINE)
    assert [key for key, _ in rows] == sorted({key for key, _ in rows})
    return dict(rows)


def all_layers():
    public = [getattr(layers, name) for name in layers.__all__]
    return [each for each in public if inspect.isclass(each)]


@pytest.mark.parametrize("layer", all_layers(), ids=lambda layer: layer.__name__)
def test_sections(layer):
    sections = sections_of(layer)
    needed = {"Call arguments", "Input shape", "Output shape", "Example", "Reference"}
    source = inspect.getsource(layer)
    parameters = own_parameters(layer) if "__init__" in vars(layer) else {}
    needed |= {"Args"} if parameters else set()
    needed |= {"Raises"} if CHECK.search(source) else set()
    shapes = sections.get("Input shape", "") + sections.get("Output shape", "")
    needed |= {"Convention"} if re.search("boxes|fields", shapes) else set()
    assert needed <= set(sections), f"Missing: {sorted(needed - set(sections))}"
    order = [SECTIONS.index(title) for title in sections]
    if order != sorted(order):
        titles = [SECTIONS[index] for index in sorted(order)]
        raise AssertionError(f"Expected the order {titles}. Received: {[*sections]}")
    for name in parameters:
        assert re.search(rf"\b{name}\b[^:]*:", sections["Args"]), (
            f"`{name}` is missing."
        )
    arguments = [*inspect.signature(layer.call).parameters][1:]
    for name in arguments:
        found = re.search(rf"^ +{name}:", sections["Call arguments"], re.MULTILINE)
        assert found, f"The argument `{name}` of the call is missing."


@pytest.mark.parametrize("layer", all_layers(), ids=lambda layer: layer.__name__)
def test_references_are_in_the_list_of_papers(layer):
    known = papers()
    found = KEY.findall(sections_of(layer)["Reference"])
    assert found, "Expected a key of docs/papers.md."
    for key, number in found:
        assert known.get(key) == number, f"{key}: {known.get(key)!r}, {number!r}"
