"""The house rules that a program can check: imports, public names, test files."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
API_FILE = Path(__file__).with_name("public_api.txt")
PUBLIC_MODULES = [
    "keras_attn",
    "keras_attn.convert",
    "keras_attn.explain",
    "keras_attn.layers",
    "keras_attn.losses",
    "keras_attn.metrics",
    "keras_attn.models",
    "keras_attn.ops",
]
# What each package of the repository may import from the others.
ALLOWED_PACKAGES = {
    "keras_attn": {"keras_attn"},
    "pipelines": {"pipelines", "keras_attn"},
    "training": {"training", "pipelines", "keras_attn"},
    "examples": {"pipelines", "keras_attn"},
}
# Inside keras_attn a room may import from itself and from those before it.
ROOMS = ["ops", "layers", "models", "explain", "convert"]


def imports(path, package_root=ROOT):
    """Absolute names of all modules that a file imports, wherever it does."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = path.relative_to(package_root).parts[: -node.level or None]
            base = ".".join(parents) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def offences(folder, is_allowed):
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(folder)
        for name in imports(path)
        if not is_allowed(name)
    ]


def under(name, module):
    return name == module or name.startswith(module + ".")


@pytest.mark.parametrize("package", ALLOWED_PACKAGES)
def test_imports_run_from_training_to_pipelines_to_keras_attn(package):
    forbidden = set(ALLOWED_PACKAGES) | {"tests", "benchmarks"}
    forbidden -= ALLOWED_PACKAGES[package]
    assert files(package), f"No Python files in {package}"
    found = offences(package, lambda name: name.split(".")[0] not in forbidden)
    assert not found, "\n".join(found)


def test_keras_attn_imports_keras_and_numpy_only():
    third_party = {"keras", "numpy", "keras_attn"}

    def is_allowed(name):
        top = name.split(".")[0]
        return top in third_party or top in sys.stdlib_module_names

    found = offences("keras_attn", is_allowed)
    assert not found, "\n".join(found)


def test_keras_attn_uses_no_private_keras():
    found = offences("keras_attn", lambda name: not under(name, "keras.src"))
    for path in files("keras_attn"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "keras.src":
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} uses keras.src")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_keras_attn_import_downwards(room):
    above = [f"keras_attn.{name}" for name in ROOMS[ROOMS.index(room) + 1 :]]

    def is_allowed(name):
        # The package itself imports every room.
        return name != "keras_attn" and not any(under(name, room) for room in above)

    found = offences(f"keras_attn/{room}", is_allowed)
    assert not found, "\n".join(found)


def test_the_import_check_sees_every_kind_of_import(tmp_path):
    folder = tmp_path / "package" / "room"
    folder.mkdir(parents=True)
    path = folder / "module.py"
    path.write_text(
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "def function():\n    import h\n"
    )
    expected = ["a.b", "c.d", "package.room.e", "package.f.g", "h"]
    assert imports(path, tmp_path) == expected


def public_api():
    lines = []
    for module in PUBLIC_MODULES:
        names = getattr(importlib.import_module(module), "__all__", [])
        assert len(set(names)) == len(names), f"{module}.__all__ repeats a name."
        lines += [f"{module}.{name}" for name in names]
    return sorted(lines)


def test_public_api_is_frozen():
    now = public_api()
    frozen = API_FILE.read_text(encoding="utf-8").split()
    message = (
        f"The public API changed. Added: {sorted(set(now) - set(frozen))}; "
        f"removed: {sorted(set(frozen) - set(now))}. If this is meant, write it down "
        "in CHANGELOG.md and run: python -m tests.test_architecture"
    )
    assert now == frozen, message


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_public_names_exist(module):
    imported = importlib.import_module(module)
    for name in getattr(imported, "__all__", []):
        assert hasattr(imported, name), f"{module}.{name}"


def layer_files():
    paths = (ROOT / "keras_attn" / "layers").glob("*.py")
    return sorted(path for path in paths if not path.name.startswith("_"))


@pytest.mark.parametrize("path", layer_files(), ids=lambda path: path.stem)
def test_every_layer_file_has_one_public_layer_and_its_test(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert len(public) == 1, f"{path.name} defines {public}, not one public layer."
    assert public[0].lower() == path.stem.replace("_", ""), (
        f"{path.name} holds {public[0]}; file and layer are named alike."
    )
    layers = importlib.import_module("keras_attn.layers")
    assert public[0] in layers.__all__, f"{public[0]} is not in keras_attn.layers."
    test = ROOT / "tests" / "keras_attn" / "layers" / f"test_{path.name}"
    assert test.is_file(), f"{test.relative_to(ROOT)} is missing."
    assert "check_layer(" in test.read_text(encoding="utf-8"), (
        f"{test.relative_to(ROOT)} does not run the layer harness."
    )


if __name__ == "__main__":
    API_FILE.write_text("\n".join(public_api()) + "\n", encoding="utf-8")
