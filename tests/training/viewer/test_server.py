import os
import signal
import socket
import sys
import threading
import time
import urllib.request

import pytest

from keras_attn.training import cli
from keras_attn.training.viewer import server
from tests.training import tiny_models as tiny

pytest.importorskip("flask", reason="The viewer needs Flask (extra: view)")


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C as in a terminal: processes of a background job or of xdist ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a run and images beside it."""
    tiny.generated_run(tmp_path / "runs" / "demo" / "model", ("best",))
    tiny.colour_folder(tmp_path / "runs" / "demo" / "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(folder, capsys, number):
    found, before = [], signal.getsignal(signal.SIGTERM)

    def visit():
        for _ in range(200):
            time.sleep(0.05)
            text = "".join(found) + capsys.readouterr().out
            found[:] = [text]
            if "http://" in text:
                break
        address = text.split("Viewer: ")[1].split()[0]
        with urllib.request.urlopen(address, timeout=30) as page:
            found.append(page.read().decode())
        os.kill(os.getpid(), number)

    visitor = threading.Thread(target=visit, daemon=True)
    visitor.start()
    assert cli.main(["view", "--port", "0", "--no-browser"]) == 0
    visitor.join()
    told, page = found
    assert told.startswith("Viewer: http://127.0.0.1:")
    assert capsys.readouterr().out.endswith("Stopped.\n")
    # The run was found, and the images beside it.
    assert '<option value="runs/demo/model"' in page
    assert page.count('name="example"') == 6
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_browser_is_opened(folder, monkeypatch):
    opened = threading.Event()
    addresses = []

    def open_browser(address):
        addresses.append(address)
        opened.set()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(server.webbrowser, "open", open_browser)
    server.view(port=0)
    assert opened.is_set() and addresses[0].startswith("http://127.0.0.1:")


def test_what_is_wrong_is_told_in_one_line(folder, capsys, monkeypatch):
    def error(*arguments):
        assert cli.main(["view", "--no-browser", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"Port {port} is not available" in error("--port", port)
    assert "from 0 to 65535. Received: port=70000" in error("--port", 70000)
    assert "none, which does not exist" in error("none")
    assert "does not exist" in error("--examples", "nothing.png")
    assert error("--index", "nowhere").startswith("error: ")
    monkeypatch.chdir(folder / "runs" / "demo" / "images")
    assert "keras-attn demo" in error()
    monkeypatch.setitem(sys.modules, "flask", None)
    assert error().endswith("pip install 'keras-attn[view]'")
