"""Starting and stopping, in a process of its own where signals are sent."""

import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from keras_attn.training import cli
from keras_attn.training.serving.client import Client
from keras_attn.training.serving.export import export
from tests.training.processes import CONTEXT
from tests.training.serving.server.tiny import encoded, running, save, until
from tests.training.tiny_models import plain_image, save_colour_model, save_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    save(path / "tiny" / "1")
    return path


def test_sigterm_finishes_what_is_in_flight(folder):
    arguments = ["serve", str(folder), "--port", "0", "--rest-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_attn.training.cli", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    lines = []

    def read():
        lines.extend(iter(process.stdout.readline, ""))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        until(lambda: any("Ctrl+C" in line for line in lines), 300)
        text = "".join(lines)
        assert "for development" in text and "TensorFlow Serving" in text
        url = re.search(r"http://[0-9.]+:\d+", text)[0]

        def ask(steps):
            body = {"signature_name": "slow", "instances": [steps]}
            url_of_model = f"{url}/v1/models/tiny:predict"
            return requests.post(url_of_model, json=body, timeout=300)

        ask(1000)
        start = time.monotonic()
        ask(1000)
        steps = int(1000 / (time.monotonic() - start)) + 1
        with concurrent.futures.ThreadPoolExecutor(3) as clients:
            asked = [clients.submit(ask, steps) for _ in range(3)]
            metrics = f"{url}/metrics"
            active = "keras_attn_active_requests 3.0"
            until(lambda: active in requests.get(metrics, timeout=60).text)
            process.send_signal(signal.SIGTERM)
            answers = [future.result() for future in asked]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert answers[0].json() == {"predictions": [float(steps)]}
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)


def _serve(folder, log):
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main(["serve", str(folder), "--port", "0", "--rest-port", "0"])


def test_ctrl_c_waits_a_moment_only(folder, tmp_path):
    log = tmp_path / "output.txt"
    process = CONTEXT.Process(target=_serve, args=(folder, log))
    process.start()
    try:
        until(lambda: log.exists() and "Ctrl+C" in log.read_text(), 300)
        url = re.search(r"http://[0-9.]+:\d+", log.read_text())[0]
        body = {"signature_name": "slow", "instances": [2**30]}
        asked = threading.Thread(target=_lost, args=(url, body))
        asked.start()
        active = "keras_attn_active_requests 1.0"
        until(lambda: active in requests.get(f"{url}/metrics", timeout=60).text)
        os.kill(process.pid, signal.SIGINT)
        # Far below the 28 s of SIGTERM, on a busy machine too.
        process.join(14)
        assert process.exitcode == 0
    finally:
        process.kill()
    asked.join()


def _lost(url, body):
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{url}/v1/models/tiny:predict", json=body, timeout=300)


def test_a_real_export_is_served(tmp_path):
    model = save_colour_model(tmp_path)
    target = export(model, output=tmp_path / "models")
    name, version = target.parent.name, int(target.name)
    paths = [
        save_image(tmp_path / f"{colour}.png", plain_image(**{colour: 250}))
        for colour in ("green", "red")
    ]
    direct = tf.saved_model.load(str(target))
    wanted = direct.signatures["serving_default"](
        image_bytes=tf.constant([path.read_bytes() for path in paths])
    )
    with running(tmp_path / "models") as server:
        for url in (f"{server.url}/v1/models/{name}", f"{server.address}/{name}"):
            with Client(url) as client:
                (answers,) = client.classify(paths)
            assert [answer["class"] for answer in answers] == ["green", "red"]
            np.testing.assert_allclose(
                [answer["probabilities"] for answer in answers],
                wanted["probabilities"],
                atol=1e-6,
            )
        assert server.server.repository.available() == [(name, version)]


def test_labels_are_those_of_the_configuration_of_tensorflow_serving(folder):
    (folder / "models.config").write_text(
        'model_config_list { config { name: "tiny" base_path: "/models/tiny" '
        'version_labels { key: "stable" value: 1 } } }'
    )
    with running(folder) as server:
        body = {"signature_name": "half_plus", "instances": [1.0]}
        answer = server.post("tiny/labels/stable:predict", json=body)
        assert answer.json() == {"predictions": [3.5]}
        for path in ("", "/metadata"):
            url = f"/v1/models/tiny/labels/stable{path}"
            assert server.get(url).status_code == 200
        assert server.post("tiny/labels/other:predict", json=body).status_code == 400
    (folder / "models.config").unlink()


def test_recorded_requests_are_run_before_a_version_is_served(tmp_path):
    path = save(tmp_path / "tiny" / "1")
    extra = path / "assets.extra"
    extra.mkdir()

    def record(image):
        log = prediction_log_pb2.PredictionLog()
        request = log.predict_log.request
        request.model_spec.CopyFrom(predict_pb2.PredictRequest().model_spec)
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image]))
        with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
            writer.write(log.SerializeToString())

    record(b"no image")
    with running(tmp_path) as server:
        assert "Unknown image file format" in server.lines[0]
        assert server.get("/healthz").status_code == 503
        assert server.post("tiny:predict", json={}).status_code == 404
        record(encoded(7))
        until(lambda: "Serving tiny, version 1" in server.lines)
        assert server.get("/healthz").status_code == 200


@pytest.mark.parametrize("damage", ["empty graph", "no variables", "cut variables"])
def test_a_damaged_export_is_reported(tmp_path, damage):
    path = save(tmp_path / "tiny" / "1")
    data = path / "variables" / "variables.data-00000-of-00001"
    if damage == "empty graph":
        (path / "saved_model.pb").write_bytes(b"")
    elif damage == "no variables":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:1])
    with running(tmp_path) as server:
        assert len(server.lines) == 1 and "Cannot load tiny" in server.lines[0]
        (status,) = server.get("/v1/models/tiny").json()["model_version_status"]
        assert status["state"] == "END"
        assert status["status"]["error_code"] != "OK"
        assert status["status"]["error_message"]


def test_what_takes_long_is_given_up_at_the_end(folder):
    with running(folder, grace_seconds=1) as server:
        body = {"signature_name": "slow", "instances": [10**8]}
        asked = threading.Thread(
            target=lambda: pytest.raises(
                requests.ConnectionError, server.post, "tiny:predict", json=body
            )
        )
        asked.start()
        active = "keras_attn_active_requests 1.0"
        until(lambda: active in server.get("/metrics").text)
        start = time.monotonic()
    assert time.monotonic() - start < 10
    asked.join(10)
    assert not asked.is_alive()


def test_ipv6(folder):
    with running(folder, host="::1") as server:
        url = f"http://[::1]:{server.server.rest_port}/v1/models/tiny"
        assert requests.get(url, timeout=60).status_code == 200
        with Client(f"grpc://[::1]:{server.server.port}/tiny", signature="echo") as one:
            assert len(list(one.classify([folder / "tiny/1/saved_model.pb"]))) == 1


def test_ports_that_are_taken_are_an_error(folder):
    with running(folder) as server:
        for name in ("port", "rest_port"):
            taken = {name: getattr(server.server, name)}
            with pytest.raises(OSError, match="Cannot listen at 127.0.0.1"):
                with running(folder, **taken):
                    pass


def test_folders_that_hold_no_models(folder, tmp_path, capsys):
    for path in (tmp_path / "nowhere", folder / "tiny", folder / "tiny" / "1"):
        assert cli.main(["serve", str(path)]) == 2
        assert capsys.readouterr().err.startswith("error: Expected")
    with running(tmp_path) as server:
        assert server.get("/healthz").status_code == 503


@pytest.mark.parametrize(
    "arguments", [["--max-batch", "0"], ["--port", "70000"], ["--queue", "-1"]]
)
def test_options_that_make_no_sense(folder, arguments, capsys):
    assert cli.main(["serve", str(folder), *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: Expected")
