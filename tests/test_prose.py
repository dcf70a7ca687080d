"""The language of docstrings, comments, messages, help texts and pages.

`python -m tests.test_prose FOLDER...` lists what is found in folders or files.
"""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# All but this file, which quotes the patterns.
CLEAN = (
    "keras_attn",
    "pipelines",
    "training",
    "benchmarks",
    "examples",
    "docs",
    "results",
    "saved_models/README.md",
    *sorted(
        f"tests/{path.name}"
        for path in (ROOT / "tests").iterdir()
        if path.name not in ("test_prose.py", "__pycache__")
    ),
    *sorted(path.name for path in ROOT.glob("*.md")),
)

UNITS = (
    "second|minute|hour|day|run|image|picture|photo|epoch|step|batch|class|method"
    "|model|layer|head|channel|pixel|row|line|patch|file|map|token|sample|example"
    "|group|page|sheet|seed|stage|branch|block|box|call|candidate|command|core|device"
    "|part|object|kernel|cell|region|network|entry|column|level|process|query|recipe"
    "|request|room|shard|split|window|worker|axis"
)
COUNTED = (
    "seconds|minutes|hours|images|pictures|photos|times|steps|epochs|bytes|numbers"
    "|rows|lines|patches|multiply-adds|files|masks|maps|requests|values|weights"
    "|channels|floats|once|twice|ms|MB|GB|MiB|GiB|crops|views|examples|points"
)
NOT_NOUNS = (
    "is|was|as|of|in|on|at|by|for|with|has|had|have|takes?|gives?|makes?|than|to|and|or"
    "|not|from|into|per|that|only|under|over|like|reads?|holds?|needs?|if|but|which"
    "|where|while|shows?|when|after|before|between"
)
CODE = (
    "argument|cache|class|command|config|configuration|docstring|file|folder|function"
    "|header|index|layer|loss|message|method|metric|model|module|name|network|object"
    "|optimi[sz]er|option|page|program|recipe|report|run|server|spec|table|test|viewer"
)

TITLE = "a title that is an imperative or a noun phrase"
# What to write instead, and what it replaces; a space stands for any white space.
PATTERNS = {
    TITLE: r"\A\s*(What|Where|How|Who|Which|Whether)\b",
    "a noun phrase, not 'Of'": r"^\s*[-*]*\s*[`\w]+(, [`\w]+)*: Of\b",
    "'See `x`', or the line itself": r"\bas of `|: (?-i:As) (of|for|in|with) ",
    "'per': distributive a": (
        rf"\b({COUNTED}|one) an? ({UNITS})\b"
        rf"|\b(one|two|three|\d+) (?!({NOT_NOUNS})\b)[\w-]+ an? ({UNITS})\b"
        rf"|\ban? (?!({NOT_NOUNS})\b)[\w-]+ an? ({UNITS})\b"
    ),
    "'that many', or the number's name": r"\bso many\b(?! that\b)",
    "'is not a ...'": r"\b(?<!there\s)(is|are|was) (?-i:none)\b(?! of\b)",
    "'has', 'is given', 'defines'": (
        rf"\bnobody told\b|\b(is|are|was|were|be|been) told\b(?! apart)"
        rf"|(`|\b(the|a|an|its?|this|that|each|every|no) ([\w-]+ )?({CODE})s?) "
        r"(tells?|told|says?|said|knows?|knew)\b"
    ),
    "'resumes', 'continues'": r"\b(go|goes|going|gone|went) on\b",
    "'optionally', or nothing": r"\bperhaps\b",
    "'the same', 'similar', 'also'": r"\b(alike|likewise)\b",
    "plain word": (
        r"\b(liveliest|dear(er|est)?|strange(ly)?|surprised|mend(s|ed|ing)?)\b"
    ),
}
COMPILED = {
    name: re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE | re.MULTILINE)
    for name, pattern in PATTERNS.items()
}


def python_texts(source):
    """Yields `(line, text, has_title)` of all strings and comments of a module."""
    tree = ast.parse(source)
    titles, inner = set(), set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            titles.add(body[0].value)
        if isinstance(node, ast.keyword) and node.arg in ("help", "description"):
            titles.add(node.value)
        if isinstance(node, ast.JoinedStr):
            inner |= set(node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node not in inner:
                yield node.lineno, node.value, node in titles
        elif isinstance(node, ast.JoinedStr):
            parts = [getattr(part, "value", "") for part in node.values]
            parts = [part if isinstance(part, str) else "{}" for part in parts]
            yield node.lineno, "".join(parts), node in titles
    yield from comments(source)


def comments(source):
    """Yields comments; those of lines in sequence are one text."""
    first, last, lines = 0, 0, []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] != last + 1:
            yield first, "\n".join(lines), False
            lines = []
        first = token.start[0] if not lines else first
        last = token.start[0]
        lines.append(token.string.lstrip("# "))
    if lines:
        yield first, "\n".join(lines), False


def findings(path):
    """Yields `(line, phrase, pattern)` of a Python or Markdown file."""
    source = path.read_text(encoding="utf-8")
    is_python = path.suffix == ".py"
    texts = python_texts(source) if is_python else [(1, source, False)]
    for line, text, has_title in texts:
        for name, pattern in COMPILED.items():
            if name == TITLE and not has_title:
                continue
            for match in pattern.finditer(text):
                start = line + text.count("\n", 0, match.start())
                yield start, " ".join(match.group().split()), name


def files_of(names):
    for name in names:
        path = ROOT / name
        inside = [p for s in ("*.py", "*.md", "*.html") for p in path.rglob(s)]
        yield from sorted(inside) if path.is_dir() else [path]


def report(names):
    return [
        f"{path.relative_to(ROOT)}:{line}: {phrase!r}: write {name}"
        for path in files_of(names)
        for line, phrase, name in sorted(findings(path))
    ]


EXAMPLES = [
    ('"""What the layers ask of them."""', '"""Helpers of layers."""'),
    (
        '"""Port.\n\nArgs:\n    port: Of gRPC.\n"""',
        '"""Port.\n\n    port: For gRPC."""',
    ),
    ('"""Cost.\n\n    run, spec: As of `write`."""', '"""Cost, as of 2020."""'),
    ("# One module a method", "# One module per method, one is a method"),
    ("# Reads at once an image", "# Reads an image at once"),
    ("# Up to so many images", "# So many that none fits"),
    ('f"{path}, which is none."', 'f"{path}: there is none"'),
    ("# The model\n# tells its size", "# The model has a size; we tell a from b"),
    ("# A killed run goes\n# on", "# A killed run resumes"),
    ('error("X, " "perhaps Y")', 'error("X, " "optionally Y")'),
    ("# Maps of a class are alike", "# Maps of a class are the same"),
    ("# Mend this", "# Fix this"),
]


@pytest.mark.parametrize("bad, good", EXAMPLES)
def test_patterns_find_what_they_are_for(bad, good, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(bad, encoding="utf-8")
    assert list(findings(path))
    path.write_text(good, encoding="utf-8")
    assert not list(findings(path))


@pytest.mark.parametrize("name", CLEAN)
def test_language(name):
    assert (ROOT / name).exists()
    found = report([name])
    assert not found, "\n".join(found)


if __name__ == "__main__":
    print("\n".join(report(sys.argv[1:])))
