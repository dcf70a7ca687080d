"""The documentation builds without a warning, and everything in it can be reached."""

import html.parser
import importlib
import os
import pathlib
import posixpath
import re
import runpy
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NEEDED = ("mkdocs", "material", "mkdocstrings_handlers.python", "latex2mathml")


class Page(html.parser.HTMLParser):
    """Links of a page, files that it loads, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.names = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.names |= {attributes.get("id"), attributes.get("name")}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag in ("link", "script", "img", "source", "iframe"):
            loads = attributes.get("href"), attributes.get("src")
            self.loads += [address for address in loads if address]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in NEEDED:
        pytest.importorskip(package, reason="keras-attn[docs] is not installed")
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {
        path.relative_to(folder).as_posix(): Page(path.read_text())
        for path in sorted(folder.rglob("*.html"))
    }, folder


PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "benchmarks" / "README.md",
    ROOT / "saved_models" / "README.md",
]
FILES = "keras_attn|pipelines|training|tests|benchmarks|examples|docs|results"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_of_a_page_exist(page):
    text = page.read_text()
    for pattern in re.findall(rf"`((?:{FILES})/[\w./*]+)`", text):
        assert list(ROOT.glob(pattern.replace("NAME", "*"))), pattern
    for name in re.findall(r"`(keras_attn(?:\.\w+)+)", text):
        assert exists(name), name


def exists(name):
    """True for a module, or for a name in a module or class."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
            break
        except ModuleNotFoundError:
            continue
    for part in parts[end:]:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def test_reference_has_every_public_name(site):
    pages, _ = site
    names = set().union(*(page.names for page in pages.values()))
    wanted = (ROOT / "tests" / "public_api.txt").read_text().split()
    assert len(wanted) > 100
    assert not [name for name in wanted if name not in names]


def test_headings_of_the_reference_have_public_names_once():
    public = (ROOT / "tests" / "public_api.txt").read_text().split()
    groups = runpy.run_path(str(ROOT / "docs" / "build" / "groups.py"))["NAMES"]
    for module, headings in groups.items():
        names = " ".join(headings.values()).split()
        assert len(set(names)) == len(names)
        assert not [name for name in names if f"{module}.{name}" not in public]


def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    pages, folder = site
    broken, followed = [], 0
    for name, page in pages.items():
        if name == "404.html":
            continue
        for address in page.links + page.loads:
            if re.match(r"https?:|//", address):
                assert address not in page.loads, f"{name} loads {address}"
                continue
            path, _, anchor = address.partition("#")
            target = posixpath.normpath(
                posixpath.join(posixpath.dirname(name), path) if path else name
            )
            followed += 1
            if not (folder / target).exists():
                broken.append(f"{name}: {address}")
            elif anchor and target in pages and anchor not in pages[target].names:
                broken.append(f"{name}: {address}, no such place")
    assert followed > 1000
    assert not broken, "\n".join(broken)


def test_results_and_commands_are_those_that_are_there(site):
    pages, folder = site
    for path in (ROOT / "results").glob("*.md"):
        assert f"results/{path.stem}.html" in pages
    text = (folder / "commands.html").read_text()
    for command in ("keras-attn train", "keras-attn report", "exit-policy fit"):
        assert f"usage: {command}" in text or command in text


def test_formulas_are_mathml(site):
    pages, folder = site
    methods = [name for name in pages if name.startswith("methods/")]
    assert methods
    for name in [*methods, "finetune.html", "transformers.html"]:
        text = (folder / name).read_text()
        assert "<math" in text and not re.search(r"mathematics\d+token", text), name
        assert "$" not in re.sub(r"<(pre|code|script).*?</\1>", "", text, flags=re.S)


def test_examples_of_docstrings_are_code(site):
    _, folder = site
    text = (folder / "reference" / "layers.html").read_text()
    assert "&gt;&gt;&gt;" in text
    assert "<blockquote>" not in text
