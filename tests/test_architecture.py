"""The house rules that a program can check: imports, public names, test files."""

import ast
import configparser
import importlib
import inspect
import re
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
    "keras_attn.retrieval",
]
# The folder of each package; installed, two of them lie inside `keras_attn`.
FOLDERS = {
    "keras_attn": "keras_attn",
    "keras_attn.pipelines": "pipelines",
    "keras_attn.training": "training",
}
# Packages in the order in which they may import: each from those before it.
PACKAGES = tuple(FOLDERS)
# A room imports from itself and from those before it.
ROOMS = {
    "keras_attn": (
        "_checks",
        "version",
        "ops",
        "graph",
        "preprocessing",
        "early_exit",
        "layers",
        "blocks",
        "losses",
        "metrics",
        "retrieval",
        "models",
        "explain",
        "convert",
        "_api",
    ),
    "keras_attn.pipelines": (
        "files",
        "progress",
        "store",
        "augment",
        "images",
        "generated",
        "batches",
        "collections",
        "sources",
        "attention_maps",
    ),
    "keras_attn.training": (
        "choices",
        "noise",
        "recipes",
        "drawing",
        "pages",
        "runs",
        "adoption",
        "methods",
        "trained",
        "data",
        "fit",
        "explain",
        "retrieval",
        "early_exit",
        "evaluation",
        "serving",
        "experiments",
        "bulk",
        "viewer",
        "demo",
        "commands",
        "cli",
    ),
}
# What Keras keeps private is touched here alone.
PRIVATE_KERAS = {"keras_attn/graph/keras_graph.py", "tests/harness.py"}


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


def package_of(name):
    """The package that a module belongs to, or `None` for other people's."""
    found = [package for package in PACKAGES if under(name, package)]
    return max(found, key=len) if found else None


def room_of(name, package):
    """The room of a module of a package, or `None` for the package itself."""
    rest = name.removeprefix(package).lstrip(".")
    return rest.split(".")[0] or None


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_from_training_to_pipelines_to_keras_attn(package):
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    others = {"tests", "benchmarks", "pipelines", "training"}

    def is_allowed(name):
        return package_of(name) not in above and name.split(".")[0] not in others

    assert files(FOLDERS[package]), f"No Python files in {package}"
    found = offences(FOLDERS[package], is_allowed)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_in_a_room(package):
    folder = ROOT / FOLDERS[package]
    modules = {path.relative_to(folder).parts[0] for path in folder.rglob("*.py")}
    strays = {name.removesuffix(".py") for name in modules} - {"__init__"}
    assert strays <= set(ROOMS[package]), "Add its room to ROOMS and to CONTRIBUTING.md"


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_downwards(package):
    order, found = ROOMS[package], []
    for path in files(FOLDERS[package]):
        room = path.relative_to(ROOT / FOLDERS[package]).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in imports(path):
            if package_of(name) != package:
                continue
            other = room_of(name, package)
            # The package itself imports every room.
            if other not in order or order.index(other) > order.index(room):
                found.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not found, "\n".join(found)


def is_private(part):
    return part.startswith("_") and not part.endswith("__")


def test_no_private_name_crosses_rooms():
    """`_name` is its module's own, and `_module` its folder's."""
    found = []
    for package, folder in FOLDERS.items():
        for path in files(folder):
            parent = path.parent.relative_to(ROOT / folder).parts
            own_folder = ".".join([package, *parent])
            for name in imports(path):
                parts = name.split(".")
                private = next(filter(is_private, parts), None)
                if package_of(name) is None or private is None:
                    continue
                holder = ".".join(parts[: parts.index(private)])
                is_module = (ROOT / module_path(holder) / f"{private}.py").is_file()
                if not (is_module and under(own_folder, holder)):
                    found.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not found, "\n".join(found)


def module_path(name):
    """Folder of a package in the repository."""
    package = package_of(name)
    rest = name.removeprefix(package).lstrip(".").replace(".", "/")
    return f"{FOLDERS[package]}/{rest}"


# Attributes of models, layers and tensors that Keras may change at any time.
PRIVATE_ATTRIBUTES = re.compile(
    r"(?<=\.)(_keras_history|_inbound_nodes|_flatten_layers|_nodes_by_depth|_nodes|_operations"
    r"|_layers|_functional|_standardize_inputs)\b"
)


@pytest.mark.parametrize(
    "folder", [*FOLDERS.values(), "tests", "benchmarks", "examples"]
)
def test_what_keras_keeps_private_is_touched_in_one_place(folder):
    found = []
    for path in files(folder):
        name = str(path.relative_to(ROOT))
        if name in PRIVATE_KERAS or name == "tests/test_architecture.py":
            continue
        found += [f"{name} imports {n}" for n in imports(path) if under(n, "keras.src")]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if PRIVATE_ATTRIBUTES.search(line):
                found.append(f"{name}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def test_setup_lists_every_folder_with_modules():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    found = {
        ".".join([package, *path.relative_to(ROOT / folder).parent.parts])
        for package, folder in FOLDERS.items()
        for path in files(folder)
    }
    assert listed == sorted(found)


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


def test_no_public_operation_hides_a_module():
    """`keras_attn.ops.warp` is a function, so no module of `ops` has that name."""
    operations = importlib.import_module("keras_attn.ops")
    modules = {path.stem for path in (ROOT / "keras_attn" / "ops").glob("*.py")}
    assert len(modules) > 10 and not modules & set(operations.__all__)


# Arguments of public functions that have no types: tensors and arrays, which the
# docstring gives the shapes of, and what has the methods that the docstring names.
TENSORS = set(
    """activations attention attention_map batches boxes center codebook confidence
    coordinates correct cost descriptors embeddings evidence features fields height idf
    images input_tensor inputs labels logits map_tensor maps mean others policy
    positives predictions projection queries ranks student teacher
    train_features train_labels true_boxes width""".split()
)


def test_arguments_of_public_functions_have_types():
    missing = set()
    for module in map(importlib.import_module, PUBLIC_MODULES):
        public = [getattr(module, name) for name in getattr(module, "__all__", [])]
        for function in filter(inspect.isfunction, public):
            missing |= {
                f"{function.__qualname__}: {parameter.name}"
                for parameter in inspect.signature(function).parameters.values()
                if parameter.annotation is parameter.empty
                and parameter.name not in TENSORS
                and parameter.kind is not parameter.VAR_KEYWORD
            }
    assert not missing, "\n".join(sorted(missing))


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
        f"{path.name} holds {public[0]}; file and layer have the same name."
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
