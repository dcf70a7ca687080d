"""Generated pages and links of the site: called by MkDocs, see mkdocs.yml.

The pages of `docs/` can be read in the repository too, so their links lead to files
there. Here links are changed to the pages of these files, and links to files without a
page, such as source code, become plain text.
"""

import argparse
import functools
import pathlib
import posixpath
import re
import sys
import tempfile
import unittest.mock

import groups
import latex2mathml.converter
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Files outside docs/ that become pages.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "TESTING.md": "testing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "saved_models/README.md": "exported_models.md",
}
# Modules whose public functions and classes the reference has, by page.
PIPELINES = (
    "sources.load",
    "images.source",
    "sources.splits",
    "images.streaming",
    "generated.dataset",
    "augment.composition",
    "augment.operations",
    "batches.build",
    "attention_maps.batches",
    "batches.multi_crop",
    "batches.pairs",
)
PROGRAM = (
    "recipes.schema",
    "fit.train",
    "runs.run",
    "trained",
    "evaluation.evaluate",
    "evaluation.mistakes",
    "evaluation.class_scores",
    "evaluation.report",
    "evaluation.predict",
    "explain.files",
    "retrieval.index",
    "retrieval.search",
    "bulk.plan",
    "bulk.run",
    "bulk.merge",
    "experiments.reproduce",
    "serving.export",
)
# Public names that `keras_attn.ops` finds at their first use, not by an import.
LATE = {
    "keras_attn.ops.ReceptiveField": "receptive_field.ReceptiveField",
    "keras_attn.ops.WindowStep": "window_steps.WindowStep",
    "keras_attn.ops.receptive_field": "receptive_field.receptive_field",
}
FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
CODE = re.compile(r"(?<![\[`\w])`([\w.]+)`(?!\]|`)")
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\w$\\])\$(?![\s$])([^$\n]*[^$\s\\])\$(?![\w$])", re.S)  # fmt: skip # noqa: E501
TOKEN = "mathematics{}token"


# Before mkdocstrings, which takes its search path from here.
@event_priority(100)
def on_config(config):
    # Page -> its formulas, put in when Markdown is done.
    config.extra["formulas"] = {}
    handlers = config.plugins["mkdocstrings"].config.handlers
    handlers["python"]["paths"] = [installed().name]
    return config


@functools.cache
def installed():
    """A folder with the package as it is installed; two rooms lie elsewhere here."""
    folder = tempfile.TemporaryDirectory()
    package = pathlib.Path(folder.name, "keras_attn")
    package.mkdir()
    rooms = (ROOT / "pipelines", ROOT / "training", *(ROOT / "keras_attn").iterdir())
    for room in rooms:
        (package / room.name).symlink_to(room)
    return folder


def on_files(files, config):
    """Adds the generated pages, and leaves the missing ones out of the navigation."""
    made = {
        **{page: (ROOT / path).read_text() for path, page in PAGES.items()},
        **{f"reference/{name}.md": text for name, text in reference().items()},
        "commands.md": commands(),
    }
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    for path in sorted((ROOT / "results").glob("*")):
        if path.suffix in (".md", ".png", ".csv"):
            uri = f"results/{path.name}"
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    uris = {file.src_uri for file in files}
    config.nav = [found for entry in config.nav if (found := _present(entry, uris))]
    # Pages that the navigation leaves out stand at the end of the guide.
    named = set(_named_in(config.nav))
    pages = {uri for uri in uris if uri.endswith(".md")}
    guide = next(entry["Guide"] for entry in config.nav if "Guide" in entry)
    guide += sorted(pages - named)
    return files


def on_page_markdown(markdown, page, config, files):
    """Links files to their pages and names to the reference; takes formulas out."""
    source = _sources().get(page.file.src_uri, f"docs/{page.file.src_uri}")
    if page.file.src_uri.startswith("results/"):
        source = page.file.src_uri
    uris = {file.src_uri for file in files}
    formulas = config.extra["formulas"][page.file.src_uri] = []
    parts = FENCE.split(markdown)
    for number in range(0, len(parts), 2):
        text = parts[number]
        if source.startswith("docs/"):
            text = MATH.sub(lambda found: _taken_out(found, formulas), text)
        text = LINK.sub(
            lambda found: _led(found, source, page.file.src_uri, uris), text
        )
        if not page.file.src_uri.startswith("reference/"):
            text = _named(text)
        parts[number] = text
    return "".join(parts)


def on_page_content(html, page, config, files):
    """Inserts the formulas as MathML."""
    formulas = config.extra["formulas"].pop(page.file.src_uri, [])
    for number, formula in enumerate(formulas):
        html = html.replace(TOKEN.format(number), formula)
    return html


# ---- pages ---------------------------------------------------------------------------


@functools.cache
def public_names():
    """Module -> its public names, as frozen in `tests/public_api.txt`."""
    names = {}
    for line in (ROOT / "tests" / "public_api.txt").read_text().split():
        module, _, name = line.rpartition(".")
        names.setdefault(module, []).append(name)
    return names


def reference():
    """Name of a page -> its text, from which mkdocstrings makes the reference."""
    pages = {}
    for module, names in public_names().items():
        title = module.removeprefix("keras_attn.")
        # Rooms have pages of their own.
        items = [
            name
            for name in names
            if f"{module}.{name}" not in public_names() and name != "__version__"
        ]
        heading = f"# {module}\n\n::: {module}\n    options:\n      members: false\n"
        heading += "      show_root_heading: false\n      show_root_toc_entry: false\n"
        if module == "keras_attn":
            heading += _rooms()
        pages[title] = "\n\n".join([heading, *_entries(module, items), ""])
    for package, modules in (("pipelines", PIPELINES), ("training", PROGRAM)):
        items = [
            f"::: keras_attn.{package}.{module}\n    options:\n"
            "      show_root_full_path: true\n"
            for module in modules
        ]
        pages[package] = "\n\n".join([f"# {package}", *items, ""])
    return pages


def _entries(module, names):
    """The entries of a module under the headings of their groups."""
    for title, inside in groups.grouped(module, names):
        if title:
            yield f"## {title}"
        level = 3 if title else 2
        for name in inside:
            options = f"    options:\n      heading_level: {level}\n"
            yield f"{_entry(module, name)}\n{options}"


def _entry(module, name):
    """Directive from which mkdocstrings makes the entry of a public name."""
    anchor = f'<a id="{module}.{name}"></a>\n\n'
    path = _path(module, name)
    return f"{anchor if path != f'{module}.{name}' else ''}::: {path}"


def _path(module, name):
    """The path of a public name: a file of the same name hides it."""
    if f"{module}.{name}" in LATE:
        return f"keras_attn.graph.{LATE[f'{module}.{name}']}"
    hidden = _file_of(module.replace(".", "/"), name).is_file()
    return f"{module}.{name}.{name}" if hidden else f"{module}.{name}"


def _rooms():
    """Entries of the package itself: its version, and links to the pages of rooms."""
    rooms = [name for name in public_names() if name != "keras_attn"]
    lines = [
        f'- <a id="{room}"></a>[{room}]({room.removeprefix("keras_attn.")}.md)'
        for room in rooms
    ]
    version = '<a id="keras_attn.__version__"></a>`__version__` is its version.'
    return "\n".join(["", *lines, "", version, ""])


def _file_of(package, module):
    return ROOT / package / f"{module.replace('.', '/')}.py"


def commands():
    """Page with the help of every command."""
    # In the process of a command, importing the package does not import Keras.
    with unittest.mock.patch.object(sys, "argv", ["keras-attn"]):
        from keras_attn.training.cli import parser

    lines = ["# Commands", "", "The output of `keras-attn COMMAND --help`.", ""]
    for name, each in _subparsers(parser(), "keras-attn"):
        lines += [f"## {name}", "", "```text", each.format_help().strip(), "```", ""]
    return "\n".join(lines)


def _subparsers(root, name):
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, each in action.choices.items():
                inner = list(_subparsers(each, f"{name} {command}"))
                yield from inner or [(f"{name} {command}", each)]


def _present(entry, uris):
    """An entry of the navigation without missing pages; folders become lists."""
    if isinstance(entry, str):
        return entry if entry in uris else None
    ((title, inner),) = entry.items()
    if isinstance(inner, str):
        pages = sorted(u for u in uris if u.startswith(inner) and u.endswith(".md"))
        return {title: pages} if pages else None
    found = [kept for each in inner if (kept := _present(each, uris))]
    return {title: found} if found else None


def _named_in(nav):
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _named_in(*entry.values())


# ---- text ----------------------------------------------------------------------------


def _sources():
    return {page: path for path, page in PAGES.items()}


def _led(found, source, page, uris):
    """A link of a page, for the site."""
    mark, text, path, anchor = found.groups(default="")
    if not path or "://" in path or path.startswith("mailto:"):
        return found[0]
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    uri = PAGES.get(target, target.removeprefix("docs/"))
    if uri not in uris:
        return f"![{text}]({path})" if mark else text
    relative = posixpath.relpath(uri, posixpath.dirname(page) or ".")
    return f"{mark}[{text}]({relative}{anchor})"


@functools.cache
def _addresses():
    """Public name as code in a text -> its entry in the reference."""
    addresses = {}
    for module, names in public_names().items():
        for name in names:
            full = f"{module}.{name}"
            if full in public_names() or name == "__version__":
                continue
            addresses[full] = _path(module, name)
            # A short name that two rooms have is not linked.
            addresses[name] = None if name in addresses else addresses[full]
    return {name: full for name, full in addresses.items() if full}


def _named(text):
    """Public names in code become links to the reference."""
    lines = []
    for line in text.split("\n"):
        if not line.startswith(("#", "    ")):
            line = CODE.sub(_link, line)
        lines.append(line)
    return "\n".join(lines)


def _link(found):
    full = _addresses().get(found[1])
    return f"[{found[0]}][{full}]" if full else found[0]


def _taken_out(found, formulas):
    display = "block" if found[1] else "inline"
    text = (found[1] or found[2]).strip()
    formula = latex2mathml.converter.convert(text, display=display)
    if ">\\" in formula:
        raise ValueError(f"Expected commands that MathML has. Received: {text}")
    # A long one is moved sideways on a phone.
    formulas.append(f'<span class="formula">{formula}</span>' if found[1] else formula)
    token = TOKEN.format(len(formulas) - 1)
    return f"\n\n{token}\n\n" if found[1] else token
