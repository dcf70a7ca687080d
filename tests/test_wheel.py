"""The wheel: its names, its files, and its command without any dependency."""

import importlib.metadata
import pathlib
import subprocess
import sys
import venv

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("keras_attn", "pipelines", "training")


def pip(*arguments):
    subprocess.run(
        [sys.executable, "-m", "pip", *arguments], check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment that holds the wheel and nothing else."""
    pytest.importorskip("pip")
    # Not imported: setuptools takes the place of distutils, which others have loaded.
    if int(importlib.metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools 77 or newer is needed to build the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    # Builds leave files behind: not in the repository.
    (folder / "source").mkdir()
    for name in (*FOLDERS, "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (folder / "source" / name).symlink_to(ROOT / name)
    options = "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir"
    pip("wheel", *options, folder, folder / "source")
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    return folder / "venv"


@pytest.fixture(scope="module")
def packages(environment):
    (folder,) = environment.glob("lib/python*/site-packages")
    return folder


def test_no_other_top_level_name_than_keras_attn(packages):
    names = {path.name for path in packages.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"keras_attn"}


def test_every_file_of_the_packages_is_installed(packages):
    wanted = {
        ("" if folder == "keras_attn" else f"{folder}/")
        + path.relative_to(ROOT / folder).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(name.endswith(".css") for name in wanted)
    installed = {
        path.relative_to(packages / "keras_attn").as_posix()
        for path in (packages / "keras_attn").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert installed == wanted


@pytest.mark.parametrize("argument", ["--help", "recipes"])
def test_help_and_recipes_need_no_package(environment, argument):
    done = subprocess.run(
        [environment / "bin" / "keras-attn", argument],
        cwd=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 20


WORKS = """
import pathlib, sys
import keras_attn
from keras_attn.models import from_preset, list_presets
from keras_attn.training.serving.configs import write_templates

assert pathlib.Path(keras_attn.__file__).is_relative_to(sys.prefix)
assert not pathlib.Path.cwd().joinpath("setup.cfg").exists()
print(len([from_preset(name) for name in list_presets()]))
write_templates(pathlib.Path("served"), "tiny")
"""


def test_files_are_found_from_any_folder(environment, packages, tmp_path):
    """With the packages of these tests as its dependencies, behind the wheel's own."""
    folders = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("\n".join(folders))
    python = environment / "bin" / "python"
    (tmp_path / "served" / "tiny").mkdir(parents=True)
    try:
        done = subprocess.run(
            [python, "-c", WORKS], cwd=tmp_path, capture_output=True, text=True
        )
    finally:
        (packages / "dependencies.pth").unlink()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list(ROOT.glob("keras_attn/models/presets/*/")))
    assert "models.config" in (tmp_path / "served" / "compose.yaml").read_text()
