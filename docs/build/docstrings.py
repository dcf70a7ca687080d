"""Conversion of this project's docstrings for mkdocstrings."""

import re

import griffe

SHAPES = re.compile(r"^(Input shape|Output shape|Convention|Reference): *(\S.*(?:\n[ \t]+\S.*)*)", re.M)  # fmt: skip # noqa: E501
SESSION = re.compile(r"^>>> .*(?:\n.*\S.*)*", re.M)


class Docstrings(griffe.Extension):
    """Rewrites what Google's style lacks, before it is parsed."""

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text):
    """Examples become code, and shapes paragraphs, where Google's style has titles."""
    text = re.sub(r"^Example:$", "**Example**", text, flags=re.M)
    text = SESSION.sub(lambda found: f"```pycon\n{found[0]}\n```", text)

    def paragraph(found):
        body = re.sub(r"\n\s+", "\n", found[2])
        return f"**{found[1]}**: {body}"

    return SHAPES.sub(paragraph, text)
