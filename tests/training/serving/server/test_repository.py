import pathlib
import threading
import time

import pytest

from keras_attn.training.serving.server.errors import ServingError
from keras_attn.training.serving.server.repository import Repository
from tests.training.serving.server.tiny import until


class Loader:
    """Loads a model that is a string; what is written as `broken` it cannot."""

    def __init__(self):
        self.loaded = []

    def __call__(self, name, version, folder):
        text = (folder / "saved_model.pb").read_text()
        if text == "broken":
            raise ValueError("a broken file\nand more about it")
        self.loaded.append((name, version))
        return f"{name} {version} {text}"


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def repository(tmp_path, loader):
    lines = []
    found = Repository(tmp_path, report=lines.append, load=loader)
    found.lines = lines
    return found


def write(folder, name, version, text="fine"):
    path = folder / name / str(version)
    path.mkdir(parents=True, exist_ok=True)
    (path / "saved_model.pb").write_text(text)
    return path


def served(repository, name="flowers", version=None):
    with repository.lease(name, version) as model:
        return model


def test_the_latest_version_is_served(repository, tmp_path, loader):
    for version in (1, 2, 10):
        write(tmp_path, "flowers", version)
    write(tmp_path, "birds", 3)
    repository.poll(settled=True)
    assert loader.loaded == [("birds", 3), ("flowers", 10)]
    assert served(repository) == "flowers 10 fine"
    assert served(repository, version=10) == "flowers 10 fine"
    assert repository.available() == [("birds", 3), ("flowers", 10)]
    with pytest.raises(ServingError, match=r"Specific\(flowers, 2\)"):
        served(repository, version=2)
    with pytest.raises(ServingError, match=r"Latest\(trees\)") as caught:
        served(repository, "trees")
    assert caught.value.http_status == 404


def test_several_versions_if_asked_for(tmp_path, loader):
    for version in (1, 2, 3):
        write(tmp_path, "flowers", version)
    repository = Repository(tmp_path, latest=2, report=[].append, load=loader)
    repository.poll(settled=True)
    assert served(repository) == "flowers 3 fine"
    assert served(repository, version=2) == "flowers 2 fine"
    assert repository.available() == [("flowers", 3), ("flowers", 2)]


def test_versions_with_a_label_stay(tmp_path, loader):
    labels = {"flowers": {"stable": 1, "canary": 3}}

    def read_labels(folder):
        if not labels:
            raise ValueError("unreadable")
        return dict(labels)

    for version in (1, 2, 3):
        write(tmp_path, "flowers", version)
    lines = []
    repository = Repository(
        tmp_path, report=lines.append, load=loader, read_labels=read_labels
    )
    repository.poll(settled=True)
    assert repository.available() == [("flowers", 3), ("flowers", 1)]
    assert repository.version_of("flowers", "stable") == 1
    assert served(repository) == "flowers 3 fine"
    for name, label in (("flowers", "other"), ("birds", "stable")):
        with pytest.raises(ServingError, match="Unrecognized servable version label"):
            repository.version_of(name, label)
    labels["flowers"] = {"stable": 3}
    repository.poll(settled=True)
    assert repository.available() == [("flowers", 3)]
    labels.clear()
    for _ in range(3):
        repository.poll(settled=True)
    assert repository.version_of("flowers", "stable") == 3
    assert lines.count("unreadable") == 1


def test_a_new_version_takes_over_once_its_files_stay(repository, tmp_path):
    write(tmp_path, "flowers", 1)
    repository.poll(settled=True)
    folder = write(tmp_path, "flowers", 2, "fin")
    repository.poll()
    assert repository.statuses("flowers")[0][:2] == (2, "START")
    (folder / "saved_model.pb").write_text("fine")
    repository.poll()
    assert served(repository) == "flowers 1 fine"
    repository.poll()
    assert served(repository) == "flowers 2 fine"
    assert [status[:2] for status in repository.statuses("flowers")] == [
        (2, "AVAILABLE"),
        (1, "END"),
    ]


@pytest.mark.parametrize("text", ["broken", None])
def test_a_broken_version_never_takes_the_old_one_down(repository, tmp_path, text):
    write(tmp_path, "flowers", 1)
    repository.poll(settled=True)
    folder = tmp_path / "flowers" / "2"
    folder.mkdir()
    if text:
        write(tmp_path, "flowers", 2, text)
    for _ in range(4):
        repository.poll()
    assert served(repository) == "flowers 1 fine"
    number, state, error = repository.statuses("flowers", 2)[0]
    assert (number, state) == (2, "END")
    assert "\n" not in error.message
    # It is reported once, and tried again only when its files have changed.
    assert len([line for line in repository.lines if "Cannot load" in line]) == 1
    write(tmp_path, "flowers", 2, "repaired")
    repository.poll()
    repository.poll()
    assert served(repository) == "flowers 2 repaired"


def test_at_the_start_an_older_version_stands_in_for_a_broken_one(repository, tmp_path):
    write(tmp_path, "flowers", 1)
    write(tmp_path, "flowers", 2, "broken")
    repository.poll(settled=True)
    assert served(repository) == "flowers 1 fine"


def test_an_old_version_finishes_its_requests_before_it_goes(repository, tmp_path):
    write(tmp_path, "flowers", 1)
    repository.poll(settled=True)
    with repository.lease("flowers") as model:
        write(tmp_path, "flowers", 2)
        write(tmp_path, "birds", 1)
        for _ in range(3):
            repository.poll(settled=True)
        assert model == "flowers 1 fine" and served(repository) == "flowers 2 fine"
        assert served(repository, "birds") == "birds 1 fine"
        assert repository.statuses("flowers", 1)[0][1] == "UNLOADING"
    repository.poll()
    assert repository.statuses("flowers", 1)[0][1] == "END"


def test_a_folder_that_is_taken_away(repository, tmp_path):
    write(tmp_path, "flowers", 1)
    folder = write(tmp_path, "flowers", 2)
    repository.poll(settled=True)
    folder.rename(tmp_path / ".2")
    repository.poll()
    assert served(repository) == "flowers 2 fine"
    repository.poll()
    assert served(repository) == "flowers 1 fine"
    assert repository.available() == [("flowers", 1)]


def test_the_last_version_stays_for_a_time_without_its_folder(tmp_path, loader):
    lines = []
    repository = Repository(tmp_path, 1, lines.append, loader, keep_seconds=0.3)
    folder = write(tmp_path, "flowers", 1)
    repository.poll(settled=True)
    folder.rename(tmp_path / ".1")
    repository.poll()
    (tmp_path / ".1").rename(folder)
    repository.poll()
    assert served(repository) == "flowers 1 fine"
    assert loader.loaded == [("flowers", 1)]
    # What returns with other files is loaded again, beside the one that is served.
    folder.rename(tmp_path / ".1")
    repository.poll()
    write(tmp_path, "flowers", 1, "other")
    repository.poll()
    assert served(repository) == "flowers 1 fine"
    repository.poll()
    assert served(repository) == "flowers 1 other"
    # One step: new in, old out.
    write(tmp_path, "flowers", 2)
    folder.rename(tmp_path / ".2")
    repository.poll()
    assert served(repository) == "flowers 1 other"
    repository.poll()
    assert served(repository) == "flowers 2 fine"
    (tmp_path / "flowers" / "2").rename(tmp_path / ".3")
    repository.poll()
    assert served(repository) == "flowers 2 fine"
    time.sleep(0.3)
    for _ in range(2):
        repository.poll()
    assert repository.available() == []
    with pytest.raises(ServingError, match="Could not find any versions"):
        repository.statuses("flowers")


def test_what_cannot_be_read_stops_no_other_model(tmp_path, loader, monkeypatch):
    lines = []

    def read_labels(folder):
        raise PermissionError("models.config")

    repository = Repository(tmp_path, 1, lines.append, loader, read_labels)
    write(tmp_path, "flowers", 1)
    write(tmp_path, "birds", 1)
    iterdir = pathlib.Path.iterdir

    def refused(path):
        if path.name == "birds":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    for broken in (True, False, True):
        monkeypatch.setattr(pathlib.Path, "iterdir", refused if broken else iterdir)
        repository.poll(settled=True)
        assert served(repository) == "flowers 1 fine"
    assert served(repository, "birds") == "birds 1 fine"
    assert len([line for line in lines if "Cannot look into" in line]) == 2
    assert lines.count("models.config") == 1


def test_other_names_are_left_alone(repository, tmp_path, loader):
    for name in (".hidden", "-x", "a b"):
        write(tmp_path, name, 1)
    for version in (".1.partial-77", "one", "-1", "1.5", "9" * 30):
        write(tmp_path, "flowers", version)
    (tmp_path / "flowers" / "3").write_text("a file")
    (tmp_path / "README.md").write_text("a file")
    repository.poll(settled=True)
    assert loader.loaded == []


@pytest.mark.parametrize("name", ["../flowers", "..", ".", "", "flowers/1", "/etc"])
def test_a_name_cannot_lead_out_of_the_folder(repository, tmp_path, name):
    write(tmp_path, "flowers", 1)
    repository.poll(settled=True)
    with pytest.raises(ServingError) as caught:
        served(repository, name)
    assert caught.value.code == "NOT_FOUND"


def test_watching_goes_on_when_the_folder_is_gone(repository, tmp_path):
    stop = threading.Event()
    repository.folder = tmp_path / "later"
    watcher = threading.Thread(target=repository.watch, args=(0.01, stop))
    watcher.start()
    until(lambda: repository.lines)
    write(tmp_path / "later", "flowers", 1)
    until(repository.available)
    stop.set()
    watcher.join(10)
    assert len(repository.lines) == 2
