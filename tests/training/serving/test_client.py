import concurrent.futures
import http.server
import json
import os
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf

from keras_attn.training import cli
from keras_attn.training.serving import client as module
from keras_attn.training.serving.client import Client, format_answers
from keras_attn.training.serving.protocols import Refused
from tests.training.serving.server.tiny import encoded, running, save


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save(folder / "tiny" / "7")
    with running(folder, max_batch=8) as found:
        yield found


@pytest.fixture
def images(tmp_path):
    paths = []
    for light in (10, 250, 90, 130, 0):
        paths.append(tmp_path / "images" / f"{light:03}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        paths[-1].write_bytes(encoded(light))
    return sorted(paths)


def urls(server):
    return [
        f"{server.url}/v1/models/tiny",
        f"{server.url}/v1/models/tiny/versions/7:predict",
        f"grpc://{server.address}/tiny",
        f"grpc://{server.address}/tiny/7",
    ]


@pytest.mark.parametrize("which", range(4))
def test_answers_in_order_over_both_protocols(server, images, which):
    with Client(urls(server)[which]) as client:
        batches = list(client.classify(images, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    answers = sum(batches, [])
    assert [answer["image"] for answer in answers] == [str(path) for path in images]
    wanted = np.array([0, 10, 90, 130, 250]) / 255
    found = [answer["probabilities"][1] for answer in answers]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert [answer["class"] for answer in answers] == ["dark"] * 3 + ["light"] * 2


def test_both_protocols_give_the_same_json(server, images):
    found = []
    for url in urls(server):
        with Client(url, signature="echo") as client:
            found.append(next(client.classify(images[:2])))
    assert found[0] == found[1] == found[2] == found[3]
    assert set(found[0][0]) == {"image", "text", "raw_bytes"}
    json.dumps(found)


def test_a_folder_stands_for_its_images(server, images, capsys):
    note = images[0].parent / "note.txt"
    note.write_text("no image")
    with Client(server.address, model="tiny") as client:
        (answers,) = client.classify([images[0].parent])
    assert [answer["image"] for answer in answers] == [str(path) for path in images]
    assert capsys.readouterr().err == f"Left out: 1 file that is no image ({note})\n"


@pytest.mark.skipif(
    not hasattr(tf.io, "decode_webp"), reason="TensorFlow decodes no WebP"
)
@pytest.mark.parametrize("which", [0, 2])
def test_formats_that_a_server_refuses_are_converted(server, tmp_path, which):
    for name, kind in (("a.tif", "TIFF"), ("b.webp", "WEBP")):
        (tmp_path / name).write_bytes(encoded(250, kind=kind))
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (tmp_path / "d.tiff").write_bytes(encoded(9, kind="TIFF")[:60])
    with Client(urls(server)[which]) as client:
        (answers,) = client.classify([tmp_path])
        assert [row.get("class") for row in answers] == ["light", "light", None, None]
        assert "HEIC" in answers[2]["error"] and "damaged" in answers[3]["error"]
        with pytest.raises(Refused, match="JPEG, PNG, .* Received: TIFF"):
            client._ask([(tmp_path / "a.tif").read_bytes()])


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize(
    "options, batch, message",
    [
        ({"signature": "nothing"}, 1, "nothing"),
        ({"signature": "half_plus"}, 1, "half_plus|float32"),
    ],
)
def test_what_the_server_refuses_is_one_line(
    server, images, which, options, batch, message
):
    for path in images:
        path.with_stem(f"{path.stem}_again").write_bytes(path.read_bytes())
    with Client(urls(server)[which], **options) as client:
        with pytest.raises(ValueError, match=message) as caught:
            list(client.classify([images[0].parent], batch))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("which", [0, 2])
def test_what_is_refused_is_named_and_the_others_are_answered(
    server, images, which, monkeypatch
):
    folder = images[0].parent
    (folder / "100.jpg").write_bytes(encoded(50, kind="JPEG")[:300])
    (folder / "101.png").symlink_to("nowhere.png")
    (folder / "102.png").mkdir()
    os.mkfifo(folder / "103.png")
    (folder / "104.png").write_bytes(b"")
    with Client(urls(server)[which]) as client:
        batches = list(client.classify([folder], 8))
    assert batches[0] == [
        {"image": str(folder / f"{name}.png"), "skipped": "not a file"}
        for name in (101, 102, 103)
    ]
    answers = sum(batches[1:], [])
    refused = {row["image"]: row["error"] for row in answers if "error" in row}
    assert set(refused) == {str(folder / "100.jpg"), str(folder / "104.png")}
    assert "JPEG" in refused[str(folder / "100.jpg")]
    assert [row["image"] for row in answers if "class" in row] == list(map(str, images))
    # More than the server takes at a time.
    with Client(urls(server)[which]) as client:
        assert len(sum(client.classify(images * 3, 15), [])) == 5
    # Files that no longer fit into one request.
    monkeypatch.setattr(
        module, "MAX_IMAGES", 2 * max(image.stat().st_size for image in images)
    )
    with Client(urls(server)[which]) as client:
        assert [len(batch) for batch in client.classify(images)] == [2, 2, 1]


def test_labels(images, scripted):
    scripted.script = [FINE]
    answers, _ = ask(scripted, images, "any/labels/stable")
    assert answers[0]["output"] == 0.5
    assert scripted.paths == ["/v1/models/any/labels/stable:predict"]
    with Client("grpc://host:1/any/labels/stable") as client:
        assert client._server._spec["version_label"] == "stable"


def test_nothing_of_a_server_controls_the_terminal(images, scripted, capsys):
    row = {"class": "\x1b]0;title\x07", "probabilities": [1.0], "image": "ELSEWHERE"}
    scripted.script = [(200, json.dumps({"predictions": [row]}).encode())]
    (answer,), _ = ask(scripted, images)
    assert answer["image"] == str(images[0])
    assert answer["output_image"] == "ELSEWHERE"
    assert format_answers([answer]).isprintable()
    assert format_answers([{"image": "a", "probabilities": 3, "class": 1}])
    scripted.script = [(500, json.dumps({"error": "\x1b[2J"}).encode())]
    with pytest.raises(OSError) as caught:
        ask(scripted, images)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_an_unknown_model(server, images, scheme):
    where = server.url if scheme == "http" else f"grpc://{server.address}"
    with Client(where, model="half") as client:
        with pytest.raises(ValueError, match="Servable not found"):
            list(client.classify(images))


@pytest.mark.parametrize(
    "url, model",
    [
        ("ftp://host/tiny", None),
        ("http://host:1", None),
        ("http://host:1/v2/models/tiny/x/y", None),
        ("http:///v1/models/tiny", None),
        ("host:1/tiny", "other"),
        ("", None),
    ],
)
def test_urls_that_are_none(url, model):
    with pytest.raises(ValueError, match="Expected"):
        Client(url, model=model)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"retries": -1}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match="Expected"):
        Client("http://host/tiny", **options)


# ---- retries -------------------------------------------------------------------------


class Scripted(http.server.BaseHTTPRequestHandler):
    """Gives the answers of `server.script`, one per request."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.server.script.pop(0)
        self.server.paths.append(self.path)
        if status is None:  # Says nothing.
            self.server.release.wait(20)
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))  # Of bytes, or of a list.
        self.end_headers()
        for part in body if isinstance(body, list) else [body]:
            self.wfile.write(part)
            if part is not body:
                self.server.release.wait(0.1)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def scripted():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.release = threading.Event()
    server.paths = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


FINE = (200, b'{"predictions": [0.5]}')
BUSY = (503, b'{"error": "The queue is full"}')


def ask(server, images, path="any", **options):
    waits = []
    url = f"http://127.0.0.1:{server.server_port}/v1/models/{path}"
    with Client(url, sleep=waits.append, **options) as client:
        return next(client.classify(images[:1])), waits


def test_503_is_asked_again_ever_more_slowly(scripted, images):
    scripted.script = [BUSY, BUSY, BUSY, FINE]
    answers, waits = ask(scripted, images)
    assert answers == [{"image": str(images[0]), "output": 0.5}]
    assert waits == [0.2, 0.4, 0.8]


def test_not_for_ever(scripted, images):
    scripted.script = [BUSY] * 9
    with pytest.raises(OSError, match="503, The queue is full"):
        ask(scripted, images, retries=2)
    assert len(scripted.script) == 6


@pytest.mark.parametrize(
    "status, body, error, message",
    [
        (400, b'{"error": "no"}', ValueError, "400, no"),
        (404, b"[]", ValueError, "404, Not Found"),
        (429, b"<html>", ValueError, "429"),
        (500, b"", OSError, "500, Internal Server Error"),
        (302, b"", OSError, "302"),
        (200, b"<html>", OSError, "no answer of TensorFlow Serving"),
        (200, b'{"predictions": 3}', OSError, "no answer of TensorFlow Serving"),
        (200, b'{"predictions": [1, 2]}', OSError, "Received: 2"),
    ],
)
def test_nothing_else_is_asked_again(scripted, images, status, body, error, message):
    scripted.script = [(status, body), FINE]
    with pytest.raises(error, match=message):
        ask(scripted, images)
    assert scripted.script == [FINE]


def test_no_answer_in_time(scripted, images):
    scripted.script = [(None, b""), FINE]
    with pytest.raises(OSError, match="no answer in 0.2 s"):
        ask(scripted, images, timeout=0.2)
    assert scripted.script == [FINE]


def test_a_byte_now_and_then_is_no_answer_in_time(scripted, images):
    scripted.script = [(200, [b" "] * 40)]
    start = time.monotonic()
    with pytest.raises(OSError, match="no answer in 0.5 s"):
        ask(scripted, images, timeout=0.5)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_connection_that_is_refused(images, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{free.getsockname()[1]}/any"
    waits = []
    with Client(url, sleep=waits.append, retries=2, timeout=20) as client:
        with pytest.raises(module.Unavailable, match="connect"):
            list(client.classify(images))
    assert waits == [0.2, 0.4]


def test_grpc_asks_again_when_the_server_is_not_available(images):
    """A server that counts, and is available from the third request on."""
    asked = []

    def answer(request, context):
        asked.append(request)
        code = ("UNAVAILABLE", "UNAVAILABLE", "INTERNAL")[len(asked) - 1]
        context.abort(grpc.StatusCode[code], "for now")

    handler = grpc.unary_unary_rpc_method_handler(answer)
    service = "tensorflow.serving.PredictionService"
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"GetModelMetadata": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    waits = []
    with Client(f"127.0.0.1:{port}/any", sleep=waits.append) as client:
        with pytest.raises(OSError, match="INTERNAL, for now"):
            list(client.classify(images))
    server.stop(None)
    assert len(asked) == 3 and waits == [0.2, 0.4]


# ---- the command ---------------------------------------------------------------------


def test_command(server, images, capsys):
    url = f"{server.url}/v1/models/tiny"
    assert cli.main(["request", url, *map(str, images)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [str(images[0]), "100.00", "%", "dark"]
    assert lines[4].split() == [str(images[4]), "98.04", "%", "light"]
    assert cli.main(["request", server.address, str(images[0]), "--model", "tiny"]) == 0
    assert capsys.readouterr().out.splitlines() == lines[:1]
    assert cli.main(["request", url, str(images[0]), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["class"] == "dark" and len(answer["probabilities"]) == 2


def test_command_names_what_is_refused(server, images, capsys):
    url = f"{server.url}/v1/models/tiny"
    images[1].write_bytes(images[1].read_bytes()[:40])
    assert cli.main(["request", url, *map(str, images), "--json"]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert printed.err.startswith(f"{images[1]}: 400, ")
    assert cli.main(["request", url, str(images[1])]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: {images[1]}: 400, ") and "\n" not in error


def test_command_fails_with_one_line(server, images, capsys):
    url = f"{server.url}/v1/models/tiny"
    for arguments in ([url, "nowhere.jpg"], ["ftp://x", "a"], [url, "--batch", "0"]):
        assert cli.main(["request", *arguments, str(images[0])]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ") and "\n" not in error


def test_other_outputs_are_named():
    answers = [{"image": "a.png", "maps": [1], "boxes": [2]}]
    assert format_answers(answers) == "a.png  maps, boxes; --json prints them"
