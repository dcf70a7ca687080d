"""A server that is asked over real sockets."""

import base64
import concurrent.futures
import contextlib
import http.client
import io
import json
import pathlib
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from google.protobuf import json_format
from PIL import Image
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from tests.pipelines.images.test_headers import long_png, many_scans, png_header
from tests.training.serving.server import malformed_requests
from tests.training.serving.server.tiny import encoded, running, save, until

MAX_BATCH = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    save(path / "tiny" / "7")
    return path


@pytest.fixture(scope="module")
def direct(folder):
    return tf.saved_model.load(str(folder / "tiny" / "7"))


@pytest.fixture(scope="module")
def server(folder):
    with running(
        folder, max_batch=MAX_BATCH, max_body_mb=1, max_pixels=10**6, queue=32
    ) as found:
        yield found


def palette_bmp():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 255, 255] + [0] * 762)
    file = io.BytesIO()
    image.save(file, "BMP")
    return file.getvalue()


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


# ---- right answers -------------------------------------------------------------------


def test_grpc_answers_are_those_of_the_saved_model(server, direct):
    images = [encoded(40), encoded(200, 11, 3, "JPEG"), encoded(130, kind="GIF")]
    found = server.predict("tiny", image_bytes=images)
    wanted = direct.signatures["serving_default"](image_bytes=tf.constant(images))
    assert set(found) == set(wanted) == {"class", "probabilities"}
    assert found["class"].tolist() == [b"dark", b"light", b"light"]
    np.testing.assert_array_equal(found["probabilities"], wanted["probabilities"])
    x = np.linspace(-3, 7, 5, dtype="float32")
    wanted = direct.signatures["half_plus"](x=tf.constant(x))["y"]
    found = server.predict("tiny", "half_plus", 7, x=x)
    np.testing.assert_array_equal(found["y"], wanted)
    matrix = np.arange(6, dtype="float32").reshape(2, 3)
    found = server.predict("tiny", "fixed", matrix=matrix)
    assert found["mean"] == 2.5 and found["row"].tolist() == [0, 1, 2]


def test_only_the_outputs_that_are_asked_for(server):
    found = server.predict("tiny", image_bytes=[encoded(3)], filters=["class"])
    assert list(found) == ["class"]


def test_rest_answers_are_those_of_the_saved_model(server, direct):
    images = [encoded(40), encoded(200, 11, 3, "JPEG")]
    wanted = direct.signatures["serving_default"](image_bytes=tf.constant(images))
    response = server.post("tiny:predict", json={"instances": [*map(b64, images)]})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("application/json")
    rows = response.json()["predictions"]
    assert [row["class"] for row in rows] == ["dark", "light"]
    found = np.array([row["probabilities"] for row in rows], "float32")
    np.testing.assert_array_equal(found, wanted["probabilities"])
    named = [{"image_bytes": b64(image)} for image in images]
    for path in ("tiny:predict", "tiny/versions/7:predict"):
        assert server.post(path, json={"instances": named}).json() == response.json()
    column = server.post("tiny:predict", json={"inputs": [*map(b64, images)]}).json()
    assert column["outputs"]["class"] == ["dark", "light"]


def test_the_documented_example(server):
    body = {"signature_name": "half_plus", "instances": [1.0, 2.0, 5.0]}
    answer = server.post("tiny:predict", json=body)
    assert answer.json() == {"predictions": [3.5, 4.0, 5.5]}
    body = {"signature_name": "half_plus", "inputs": {"x": [1.0, 2.0, 5.0]}}
    assert server.post("tiny:predict", json=body).json() == {"outputs": [3.5, 4.0, 5.5]}


def test_explanations_by_the_verb_of_kserve(server):
    answer = server.post("tiny:explain", json={"instances": [1.0, 2.0]}).json()
    rows = [{"box": 2.0, "map": 1.0}, {"box": 4.0, "map": 2.0}]
    assert answer == {"explanations": rows}
    labelled = {"instances": [{"x": 1.0, "label": 3}]}
    answer = server.post("tiny/versions/7:explain", json=labelled).json()
    assert answer == {"explanations": [{"map": 1.0, "label_given": 3}]}
    assert server.post("tiny:classify", json={}).status_code == 501


def test_several_inputs_and_binary_outputs(server):
    rows = [{"signal": [1, 2], "count": 3}, {"signal": [4, 5], "count": 6}]
    body = {"signature_name": "two", "instances": rows}
    assert server.post("tiny:predict", json=body).json()["predictions"] == [
        {"total": 3.0, "twice": 6},
        {"total": 9.0, "twice": 12},
    ]
    body = {"signature_name": "echo", "instances": ["é", b64(b"\xff")]}
    rows = server.post("tiny:predict", json=body).json()["predictions"]
    assert rows[0] == {"text": "é", "raw_bytes": b64("é".encode())}
    assert rows[1] == {"text": b64(b"\xff"), "raw_bytes": b64(b"\xff")}


def test_a_signature_that_takes_one_shape(server):
    body = {"signature_name": "fixed", "inputs": [[0, 1, 2], [3, 4, 5]]}
    answer = server.post("tiny:predict", json=body).json()
    assert answer == {"outputs": {"mean": 2.5, "row": [0, 1, 2]}}
    body = {"signature_name": "fixed", "instances": [[0, 1, 2], [3, 4, 5]]}
    assert "inputs" in server.post("tiny:predict", json=body).json()["error"]


def test_status_and_metadata_are_the_same_in_both_interfaces(server, folder):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    (version,) = server.models.GetModelStatus(request).model_version_status
    assert (version.version, version.state, version.status.error_code) == (7, 30, 0)
    for path in ("", "/versions/7"):
        assert server.get(f"/v1/models/tiny{path}").json() == {
            "model_version_status": [
                {
                    "version": "7",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        }
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    request.model_spec.name = "tiny"
    response = server.predictions.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    two = signatures.signature_def["two"]
    assert two.inputs["count"].dtype == types_pb2.DT_INT64
    assert [dim.size for dim in two.inputs["signal"].tensor_shape.dim] == [-1, 2]
    found = server.get("/v1/models/tiny/metadata").json()
    assert found["model_spec"] == {"name": "tiny", "signature_name": "", "version": "7"}
    again = get_model_metadata_pb2.SignatureDefMap()
    json_format.ParseDict(found["metadata"]["signature_def"], again)
    assert again == signatures


def test_health_and_metrics(server):
    assert server.get("/healthz").json() == {"status": "ok"}
    before = requests_counted(server)
    server.predict("tiny", "half_plus", x=np.ones(2, "float32"))
    server.post("nothing:predict", json={})
    text = server.get("/metrics").text
    assert 'keras_attn_model_version{model="tiny",version="7"} 1.0' in text
    assert 'api="rest",code="NOT_FOUND",model=""' in text
    assert "nothing" not in text
    assert requests_counted(server) == before + 2
    assert server.get("/monitoring/prometheus/metrics").status_code == 200


def requests_counted(server):
    lines = server.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("keras_attn_requests_total")]
    return sum(float(line.split()[-1]) for line in counted)


# ---- bad requests --------------------------------------------------------------------

IMAGE = encoded(99, 61, 67, "JPEG")
PALETTE = palette_bmp()
ROW = {"instances": [1.0], "signature_name": "half_plus"}
BAD_BODIES = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"instances": ["\xff\xfe"]}',
    "deep": b'{"instances": ' + b"[" * 200_000,
    "deep and closed": b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}",
    "no key": b"{}",
    "unknown signature": b'{"instances": [1], "signature_name": "nothing"}',
    "wrong base64": b'{"instances": [{"b64": "%%%"}]}',
    "beyond double": b'{"instances": [1e400], "signature_name": "half_plus"}',
    "many digits": b'{"instances": [1'
    + b"0" * 400
    + b'.0], "signature_name": "half_plus"}',
    "wrong type": b'{"instances": [1.5]}',
    "text for a number": b'{"instances": ["1"], "signature_name": "half_plus"}',
    "NaN for an integer": (
        b'{"inputs": {"signal": [[1, 2]], "count": [NaN]}, "signature_name": "two"}'
    ),
    "two batch sizes": (
        b'{"inputs": {"signal": [[1, 2]], "count": [1, 2]}, "signature_name": "two"}'
    ),
    "wrong shape": (
        b'{"inputs": {"signal": [[1]], "count": [1]}, "signature_name": "two"}'
    ),
    "huge batch": json.dumps({**ROW, "instances": [1.0] * (MAX_BATCH + 1)}).encode(),
    "no image": json.dumps({"instances": ["text"]}).encode(),
    "truncated": json.dumps({"instances": [b64(IMAGE[:-90])]}).encode(),
    "truncated header": json.dumps({"instances": [b64(IMAGE[:30])]}).encode(),
    "bomb": json.dumps({"instances": [b64(png_header(60000, 60000))]}).encode(),
    "long PNG": json.dumps({"instances": [b64(long_png(2 * 10**8))]}).encode(),
    "many scans": json.dumps({"instances": [b64(many_scans(500))]}).encode(),
    "palette": json.dumps({"instances": [b64(PALETTE)]}).encode(),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_answered_by_400_and_a_reason(server, name):
    response = server.post("tiny:predict", data=BAD_BODIES[name])
    assert response.status_code == 400, response.text
    assert list(response.json()) == ["error"]
    assert 5 < len(response.json()["error"]) < 600
    assert server.post("tiny:predict", json=ROW).status_code == 200


def test_a_refusal_is_one_line_and_no_traceback(server, capsys):
    del server.lines[:]
    server.post("tiny:predict", data=BAD_BODIES["truncated"])
    with pytest.raises(grpc.RpcError):
        server.predict("tiny", "nothing\n\x1b[2J", x=np.ones(1, "float32"))
    rest, rpc = server.lines
    assert rest.startswith("REST /v1/models/tiny:predict: INVALID_ARGUMENT, ")
    assert rpc.startswith("gRPC /tensorflow.serving.PredictionService/Predict: INV")
    assert rpc.isprintable() and "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_cannot_be_unpacked(server, encoding):
    headers = {"Content-Encoding": encoding}
    response = server.post("tiny:predict", data=b"xxxxx", headers=headers)
    assert response.status_code == 400 and "decode" in response.json()["error"]


def test_what_is_no_http_request_is_answered_in_json(server):
    url = f"{server.url}/v1/models/tiny"
    response = requests.get(url, headers={"X": "y" * 9000}, timeout=60)
    assert response.status_code == 400 and list(response.json()) == ["error"]


def test_base64_and_paths_as_tensorflow_serving_takes_them(server):
    for text in ("aGk", "aGk=", "a\nG k=\n"):
        body = {"signature_name": "echo", "instances": [{"b64": text}]}
        url = f"{server.url}/V1/MODELS/tiny/Versions/7:PREDICT"
        answer = requests.post(url, json=body, timeout=60)
        assert answer.json()["predictions"][0]["text"] == "hi"
    body = {"signature_name": "echo", "instances": ["GIF89a is a format"]}
    answer = server.post("tiny:predict", json=body).json()
    assert answer["predictions"][0]["text"] == "GIF89a is a format"


def test_malformed_requests_are_refused(folder, capsys):
    with running(folder, **malformed_requests.LIMITS) as server:
        counts, wrong = malformed_requests.send(server, 25, seed=1)
        assert server.post("tiny:predict", json=ROW).status_code == 200
    assert wrong == [] and counts["REST", "400"] > 5
    assert counts["gRPC", "INVALID_ARGUMENT"] > 5
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "path, status",
    [
        ("nothing:predict", 404),
        ("tiny/versions/8:predict", 404),
        ("tiny/versions/99999999999999999999:predict", 400),
        ("tiny/labels/stable:predict", 400),
        ("tiny:classify", 501),
        ("tiny:regress", 501),
        ("tiny:run", 400),
        ("tiny", 400),
        ("..%2F..%2Fetc:predict", 400),
        ("%2e%2e:predict", 404),
        ("tiny%00:predict", 404),
        ("tiny%0a:predict", 404),
        ("x" * 3000 + ":predict", 404),
    ],
)
def test_bad_paths(server, path, status):
    response = server.post(path, json=ROW)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]


def test_reasons_are_those_of_tensorflow_without_its_graph(server):
    response = server.post("tiny:predict", data=BAD_BODIES["no image"])
    assert response.json()["error"].startswith("Unknown image file format. One of JPEG")
    response = server.post("tiny:predict", data=BAD_BODIES["truncated"])
    assert "JPEG" in response.json()["error"] and "node" not in response.text
    response = server.post("tiny:predict", data=BAD_BODIES["bomb"])
    assert "Received: 3600000000" in response.json()["error"]


def test_documented_error_of_an_unknown_model(server):
    response = server.post("half:predict", json={"instances": [1.0, 5.0]})
    assert response.status_code == 404
    assert response.json() == {"error": "Servable not found for request: Latest(half)"}
    assert server.get("/v1/models/half").status_code == 404
    assert server.get("/v1/models/half/metadata").status_code == 404
    assert server.get("/").status_code == 404
    assert server.get("/v1/models/tiny:predict").status_code == 400


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_refused(server, chunked):
    body = b'{"instances": [' + b"1," * 2**20
    data = (body[k : k + 2**16] for k in range(0, len(body), 2**16))
    response = server.post("tiny:predict", data=data if chunked else body)
    assert response.status_code == 413
    assert "at most 1048576 bytes" in response.json()["error"]


def bad_requests():
    def request(signature="half_plus", name="tiny", **inputs):
        made = predict_pb2.PredictRequest()
        made.model_spec.name, made.model_spec.signature_name = name, signature
        for key, value in inputs.items():
            made.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        return made

    x = np.ones(1, "float32")
    hostile = request(x=x)
    hostile.inputs["x"].tensor_shape.dim[0].size = 2**60
    version = request(x=x)
    version.model_spec.version.value = 8
    label = request(x=x)
    label.model_spec.version_label = "stable"
    filtered = request(x=x)
    filtered.output_filter.append("nothing")
    return {
        "no name": (request(name="", x=x), "INVALID_ARGUMENT"),
        "unknown model": (request(name="nothing", x=x), "NOT_FOUND"),
        "path": (request(name="../tiny", x=x), "NOT_FOUND"),
        "version": (version, "NOT_FOUND"),
        "label": (label, "INVALID_ARGUMENT"),
        "unknown signature": (request("nothing", x=x), "INVALID_ARGUMENT"),
        "no inputs": (request(), "INVALID_ARGUMENT"),
        "another input": (request(y=x), "INVALID_ARGUMENT"),
        "too many inputs": (request(x=x, y=x), "INVALID_ARGUMENT"),
        "dtype": (request(x=np.ones(1, "int32")), "INVALID_ARGUMENT"),
        "rank": (request(x=np.ones((1, 1), "float32")), "INVALID_ARGUMENT"),
        "shape": (hostile, "INVALID_ARGUMENT"),
        "huge batch": (request(x=np.ones(9, "float32")), "INVALID_ARGUMENT"),
        "filter": (filtered, "INVALID_ARGUMENT"),
        "truncated image": (
            request("", image_bytes=[IMAGE[:-90]]),
            "INVALID_ARGUMENT",
        ),
        "bomb": (
            request("", image_bytes=[png_header(60000, 60000)]),
            "INVALID_ARGUMENT",
        ),
        "empty string tensor": (
            request("", image_bytes=np.zeros((1, 1))),
            "INVALID_ARGUMENT",
        ),
        "huge body": (request("echo", text=["x" * 2**21]), "RESOURCE_EXHAUSTED"),
    }


@pytest.mark.parametrize("name", bad_requests())
def test_bad_grpc_requests(server, name):
    request, code = bad_requests()[name]
    with pytest.raises(grpc.RpcError) as caught:
        server.predictions.Predict(request, timeout=60)
    assert caught.value.code().name == code, caught.value.details()
    assert caught.value.details()


def test_bytes_that_are_no_request(server):
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    for data in (b"\xff\xff", b"", b"\x0a\xff"):
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=60)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_other_methods_are_not_implemented(server):
    request = classification_pb2.ClassificationRequest()
    with pytest.raises(grpc.RpcError) as caught:
        server.predictions.Classify(request, timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_an_empty_batch_has_an_answer(server):
    assert server.predict("tiny", "half_plus", x=np.ones(0, "float32"))["y"].size == 0
    body = {"signature_name": "half_plus", "inputs": []}
    assert server.post("tiny:predict", json=body).json() == {"outputs": []}


# ---- many clients --------------------------------------------------------------------


def ask_light(server, light, rest):
    """The probability of an image of this grey, over either interface."""
    data = encoded(light)
    if not rest:
        return server.predict("tiny", image_bytes=[data])["probabilities"][0, 1]
    response = server.post("tiny:predict", json={"instances": [b64(data)]})
    return response.json()["predictions"][0]["probabilities"][1]


def test_each_of_many_clients_gets_its_own_answer(server):
    greys = range(0, 256, 4)
    with concurrent.futures.ThreadPoolExecutor(16) as clients:
        found = list(
            clients.map(lambda grey: ask_light(server, grey, grey % 8 == 0), greys)
        )
    np.testing.assert_allclose(found, np.array(greys) / 255, atol=1e-6)


def test_a_bad_image_among_joined_requests_fails_alone(folder):
    with running(folder, batch_timeout_ms=300) as server:
        images = [encoded(k) for k in range(0, 250, 50)]
        images.insert(2, IMAGE[:-90])

        def ask(image):
            try:
                return server.predict("tiny", image_bytes=[image])["probabilities"]
            except grpc.RpcError as error:
                return error.code().name

        with concurrent.futures.ThreadPoolExecutor(6) as clients:
            answers = list(clients.map(ask, images))
        assert answers.pop(2) == "INVALID_ARGUMENT"
        light = [answer[0, 1] * 255 for answer in answers]
        np.testing.assert_allclose(light, range(0, 250, 50), atol=1e-3)
        text = server.get("/metrics").text
        assert 'batch_size_bucket{le="2.0"}' in text
        joined = text.split("keras_attn_batch_size_sum ")[1].split()[0]
        assert float(joined) > 6


def test_no_request_fails_while_a_version_takes_over(tmp_path):
    save(tmp_path / "tiny" / "1")
    save(tmp_path / "aside", factor=4)
    with running(tmp_path) as server:
        stop = threading.Event()

        def ask(rest):
            found = []
            while not stop.is_set():
                if rest:
                    body = {"signature_name": "half_plus", "instances": [1.0]}
                    response = server.post("tiny:predict", json=body)
                    found.append(response.json().get("predictions", [None])[0])
                else:
                    x = np.ones(1, "float32")
                    found.append(server.predict("tiny", "half_plus", x=x)["y"][0])
            return found

        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(ask, rest) for rest in (False, True) * 2]
            try:
                # Half-written, then whole.
                (tmp_path / "tiny" / "3").mkdir()
                until(lambda: any("Cannot load" in line for line in server.lines))
                (tmp_path / "aside").rename(tmp_path / "tiny" / "2")
                until(lambda: "Stopped serving tiny, version 1" in server.lines)
                time.sleep(0.1)
            finally:
                stop.set()
        for answers in asked:
            values = [float(value) for value in answers.result()]
            assert set(values) == {3.5, 5.0}
            # Nobody goes back to the old one.
            assert values == sorted(values)


# ---- limits --------------------------------------------------------------------------


def test_a_full_queue_is_answered_at_once(folder):
    with running(folder, queue=2) as server:
        steps = calibrated(server, 1.0)
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "tiny", "slow"
        request.inputs["steps"].CopyFrom(tf.make_tensor_proto([steps], tf.int32))
        working = [server.predictions.Predict.future(request) for _ in range(2)]
        until(lambda: "keras_attn_active_requests 2.0" in server.get("/metrics").text)
        response = server.post("tiny:predict", json=ROW)
        assert response.status_code == 503
        assert "queue is full" in response.json()["error"]
        with pytest.raises(grpc.RpcError) as caught:
            server.predictions.Predict(request, timeout=60)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        for future in working:
            assert future.result(60).outputs["done"].float_val
        assert server.post("tiny:predict", json=ROW).status_code == 200


def calibrated(server, seconds):
    """Steps that the signature `slow` takes, about that many seconds."""
    steps = np.array([2000], "int32")
    server.predict("tiny", "slow", steps=steps)
    start = time.monotonic()
    server.predict("tiny", "slow", steps=steps)
    return int(2000 * seconds / (time.monotonic() - start)) + 1


def test_requests_that_trickle_take_no_place_in_the_queue(folder):
    """Over both protocols, and are cut off."""
    method = "/tensorflow.serving.PredictionService/Predict"
    head = (
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
    )
    with running(folder, queue=2, patience_seconds=1) as server:
        release = threading.Event()

        def nothing():
            release.wait(20)
            yield b""

        stalled = [
            server.channel.stream_unary(method).future(nothing()) for _ in range(3)
        ]
        address = ("127.0.0.1", server.server.rest_port)
        with contextlib.ExitStack() as clients:
            for _ in range(3):
                client = clients.enter_context(socket.create_connection(address))
                client.sendall(head)
            time.sleep(0.2)
            x = np.ones(1, "float32")
            assert server.predict("tiny", "half_plus", x=x)["y"] == 3.5
            assert server.post("tiny:predict", json=ROW).status_code == 200
            codes = [one.exception(20).code().name for one in stalled]
        release.set()
        assert set(codes) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


def test_a_kept_connection_in_use_is_not_cut(folder):
    with running(folder, patience_seconds=0.8) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.server.rest_port)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            client.request("POST", "/v1/models/tiny:predict", json.dumps(ROW))
            answer = client.getresponse()
            assert answer.read() and answer.status == 200
            time.sleep(0.1)
        client.close()


def test_large_images_hold_up_nobody_and_end_with_their_client(folder):
    with running(folder) as server:
        ask_light(server, 51, rest=True)
        large = io.BytesIO()
        Image.new("RGB", (5000, 4000), 9).save(large, "JPEG", progressive=True)
        body = {"inputs": 4 * [b64(large.getvalue())]}
        gone = threading.Thread(
            target=lambda: pytest.raises(
                requests.Timeout,
                requests.post,
                f"{server.url}/v1/models/tiny:predict",
                json=body,
                timeout=0.1,
            )
        )
        gone.start()
        time.sleep(0.05)
        start = time.monotonic()
        assert ask_light(server, 51, rest=True) == pytest.approx(0.2)
        assert time.monotonic() - start < 1
        gone.join()
        running_batch = server.server._service._large
        until(lambda: running_batch._running == ((), None), 30)


@pytest.mark.parametrize("sent", ["nothing", "headers", "body"])
def test_a_slow_client_is_let_go(folder, sent):
    text = {
        "nothing": b"",
        "headers": b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: a\r\nX-a: ",
        "body": b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: a\r\n"
        b'Content-Length: 100\r\n\r\n{"instances": ',
    }[sent]
    with running(folder, patience_seconds=0.3) as server:
        address = ("127.0.0.1", server.server.rest_port)
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(text)
            answer = b""
            while more := client.recv(4096):
                answer += more
        assert not answer or b" 408 " in answer.split(b"\r\n")[0]
        assert bool(answer) == (sent == "body")
        assert server.post("tiny:predict", json=ROW).status_code == 200


def test_what_is_no_http_is_answered_or_closed(server):
    for text in (
        b"\0\xff" * 500 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP",
    ):
        address = ("127.0.0.1", server.server.rest_port)
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(4096)
            assert not answer or b" 40" in answer.split(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", server.server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    assert server.predict("tiny", "half_plus", x=np.ones(1, "float32"))["y"] == 3.5


def test_clients_that_leave_do_no_harm(server):
    body = json.dumps(ROW).encode()
    head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: a\r\n"
    for part in (body, body[:5]):
        for _ in range(10):
            address = ("127.0.0.1", server.server.rest_port)
            with socket.create_connection(address) as client:
                client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
                client.sendall(part)
    active = "keras_attn_active_requests 0.0"
    until(lambda: active in server.get("/metrics").text)


def test_nothing_is_left_behind_by_many_requests(server):
    def ask(count):
        for k in range(count):
            assert ask_light(server, k % 256, k % 2) == pytest.approx(k % 256 / 255)
            if k % 10 == 0:
                name = list(BAD_BODIES)[k // 10 % len(BAD_BODIES)]
                server.post("tiny:predict", data=BAD_BODIES[name])

    ask(60)
    threads, memory = threading.active_count(), resident()
    ask(440)
    assert threading.active_count() <= threads + 1
    assert resident() < memory + 30 * 2**20


def resident():
    """Bytes of memory of this process."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
