"""The programs of docs/bulk.md run as they stand, where their packages are."""

import pathlib
import re

import pytest

from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny
from tests.training.bulk import jobs

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "bulk.md"
SHARED, RAY, BEAM = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def names(tmp_path):
    """Names that the programs use."""
    photos = jobs.photos(tmp_path / "photos", 4) / "b"
    model = tiny.save_colour_model(tmp_path)
    # Classes of `__main__` are sent to other processes as they are.
    found = {"__name__": "__main__", "PHOTOS": str(photos), "MODEL": str(model)}
    found["OUTPUT"] = str(tmp_path / "labels")
    exec(SHARED, found)
    return found


def expected(names):
    files = sorted(pathlib.Path(names["PHOTOS"]).iterdir())
    trained = load_trained(names["MODEL"])
    contents = [file.read_bytes() for file in files]
    found = names["labels"](trained, contents, [str(file) for file in files])
    assert found.count(-1) == 1 and len(found) == 2
    return dict(zip(map(str, files), found, strict=True))


@pytest.mark.slow
def test_ray_data(names):
    pytest.importorskip("ray.data", exc_type=ImportError)
    exec(RAY, names)
    names["ray"].shutdown()
    assert {row["path"]: row["label"] for row in names["answers"]} == expected(names)


def test_beam(names, tmp_path):
    pytest.importorskip("apache_beam", exc_type=ImportError)
    exec(BEAM, names)
    lines = "".join(file.read_text() for file in tmp_path.glob("labels-*"))
    found = (line.rsplit(",", 1) for line in lines.split())
    assert {path: int(label) for path, label in found} == expected(names)
