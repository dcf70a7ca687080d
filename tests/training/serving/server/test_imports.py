"""The server could be a distribution of its own."""

import ast
from pathlib import Path

from keras_attn.training.serving import server

ALLOWED = (
    "keras_attn.pipelines.files",
    "keras_attn.pipelines.images.headers",
    "keras_attn.training.serving.configs",
    "keras_attn.training.serving.server",
)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_server_imports_none_of_the_models():
    folder = Path(server.__file__).parent
    files = [*folder.glob("*.py"), folder.parent / "configs.py"]
    names = {name for path in files for name in imported(path)}
    own = {name for name in names if name.startswith("keras_attn")}
    assert len(files) > 10 and len(own) > 10
    assert not [name for name in own if not name.startswith(ALLOWED)]
