"""Malformed requests to a server on loopback, the same ones for a seed.

`python -m tests.training.serving.server.malformed_requests --count 500` sends that many
over each protocol and prints how they were answered.
"""

import argparse
import base64
import collections
import contextlib
import io
import json
import pathlib
import random
import re
import socket
import sys
import tempfile
import time
import zlib

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from tests.pipelines.images.test_headers import long_png, many_scans, png_header
from tests.training.serving.server.tiny import encoded, running, save

SECONDS = 20
METHOD = "/tensorflow.serving.PredictionService/Predict"
# A request whose end is missing is waited for.
LIMITS = {"max_batch": 8, "max_body_mb": 8, "patience_seconds": 0.5}
CLIENT_CODES = {
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"),
    *("FAILED_PRECONDITION", "OUT_OF_RANGE"),
}
SIGNATURES = ("serving_default", "half_plus", "two", "echo", "fixed", "nothing", "\0é")
VALUES = (
    *(
        1,
        -1,
        1.5,
        10**400,
        float("nan"),
        float("inf"),
        True,
        None,
        "",
        "text",
        "\ud800",
    ),
    *([], [[]], [1, [2]], {}, {"b64": 3}, {"b64": "%"}, {"b64": "AA", "x": 1}),
    *({"x": [1]}, {"signal": [1, 2], "count": 2**70}, [[0] * 3] * 2, ["a", 1]),
)


def bad_image(draw):
    """An encoded image that is damaged, or costly to decode."""
    kind = draw.choice(("PNG", "JPEG", "GIF", "BMP", "WEBP", "long", "scans", "huge"))
    if kind == "long":
        return long_png(draw.choice((10**5, 10**8)))
    if kind == "scans":
        return many_scans(draw.choice((100, 2000)))
    if kind == "huge":
        return png_header(draw.choice((0, 3, 2**16, 2**31)), 2**16)
    return damaged(draw, encoded(draw.randrange(256), 16, 9, kind))


def damaged(draw, data):
    """Bytes that are cut, changed or repeated."""
    data = bytearray(data)
    if draw.random() < 0.5:
        del data[draw.randrange(len(data)) :]
    for _ in range(draw.randrange(1, 6)):
        place = draw.randrange(len(data) + 1)
        data[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
    return bytes(data)


def rest_request(draw):
    """The bytes of an HTTP request."""
    if draw.random() < 0.3:
        value = {"b64": base64.b64encode(bad_image(draw)).decode()}
    else:
        value = draw.choice(VALUES)
    many = [value] * draw.choice((0, 1, 2, 9))
    body = {
        draw.choice(("instances", "inputs", "input")): draw.choice((value, many)),
        "signature_name": draw.choice((*SIGNATURES, 3)),
    }
    data = json.dumps(body).encode()
    headers = [b"Host: a", b"Connection: close"]
    kind = draw.randrange(8)
    if kind == 0:
        data = damaged(draw, data)
    elif kind == 1:
        headers.append(b"Content-Encoding: " + draw.choice((b"gzip", b"deflate", b"x")))
        data = damaged(draw, zlib.compress(data))
    elif kind == 2:
        data = draw.choice((b"[" * 10**5, b"\xff\xfe", b'{"instances": [1e999]}', b"{"))
    headers.append(b"Content-Length: %d" % len(data))
    path = b"/v1/models/tiny:predict"
    if kind == 3:
        path = draw.choice((b"/", b"/v1/models/%0a:predict", b"/v1/models/tiny:run"))
        path = draw.choice((path, b"/v1/models/tiny/versions/99999999999999999999"))
    head = b"POST " + path + b" HTTP/1.1\r\n" + b"\r\n".join(headers) + b"\r\n\r\n"
    if kind == 4:
        head = damaged(draw, head)
    return head + data


def rest_answer(server, data):
    """The status of an answer, or how the connection ended."""
    address = ("127.0.0.1", server.server.rest_port)
    with socket.create_connection(address, timeout=SECONDS) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
        answer = b""
        try:
            while more := client.recv(2**16):
                answer += more
        except ConnectionError:
            pass
    if not answer:
        return "closed"
    found = re.match(rb"HTTP/1\.[01] (\d{3}).*?\r\n\r\n(.*)", answer, re.DOTALL)
    status = int(found[1])
    if status >= 400 and b"\r\nContent-Type: application/json" in answer:
        # A request that is cut may be answered twice.
        assert found[2].lstrip().startswith(b'{\n "error": "')
    elif status >= 400:
        return f"{status} without JSON"
    return status


def grpc_request(draw):
    """The bytes of a request for a prediction."""
    made = predict_pb2.PredictRequest()
    made.model_spec.name = draw.choice(("tiny", "tiny", "tiny", "", "..", "\n"))
    made.model_spec.signature_name = draw.choice(SIGNATURES)
    for name in draw.sample(
        ("image_bytes", "x", "text", "matrix", "signal", "count"), 2
    ):
        value = draw.choice(
            (
                [bad_image(draw)],
                np.zeros(draw.choice(((), (0,), (3,), (2, 3))), "float32"),
                np.zeros(
                    (1, 2), draw.choice(("int64", "complex64", "float16", "bool"))
                ),
            )
        )
        tensor = tf.make_tensor_proto(value)
        if draw.random() < 0.3:
            tensor.dtype = draw.randrange(30)
        if draw.random() < 0.3:
            tensor.tensor_shape.dim.add().size = draw.choice((-1, 0, 2, 2**62))
        made.inputs[name].CopyFrom(tensor)
        if draw.random() < 0.5:
            break
    data = made.SerializeToString()
    return damaged(draw, data) if draw.random() < 0.4 else data


def grpc_answer(server, data):
    """The name of the status."""
    method = METHOD if len(data) % 16 else METHOD + "s"
    try:
        server.channel.unary_unary(method)(data, timeout=SECONDS)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def send(server, count, seed=0):
    """Sends that many requests over each protocol.

    Returns:
        `(counts, wrong)`: a `Counter` of protocol and answer, and the answers that no
        malformed request may have, or took too long.
    """
    counts, wrong = collections.Counter(), []
    kinds = {
        "REST": (rest_request, rest_answer),
        "gRPC": (grpc_request, grpc_answer),
    }
    for api, (make, ask) in kinds.items():
        draw = random.Random(seed)
        for index in range(count):
            data = make(draw)
            start = time.monotonic()
            try:
                answer = ask(server, data)
            except (TimeoutError, AssertionError) as error:
                answer = type(error).__name__
            counts[api, str(answer)] += 1
            fine = answer in CLIENT_CODES or answer in ("closed", 200, 501)
            fine = fine or isinstance(answer, int) and 400 <= answer < 500
            if not fine or time.monotonic() - start > SECONDS:
                wrong.append((api, index, answer))
    return counts, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    errors = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(errors):
        save(pathlib.Path(folder) / "tiny" / "1")
        with running(pathlib.Path(folder), **LIMITS) as server:
            counts, wrong = send(server, options.count, options.seed)
            good = server.predict("tiny", "half_plus", x=np.ones(1, "float32"))
    for (api, answer), number in sorted(counts.items()):
        print(f"{api}  {answer:<20} {number:>6}")
    sys.stderr.write(errors.getvalue())
    tracebacks = errors.getvalue().count("Traceback")
    print(f"wrong: {wrong}; tracebacks: {tracebacks}; afterwards: {good['y'][0]}")
    return bool(wrong or tracebacks or good["y"][0] != 3.5)


if __name__ == "__main__":
    sys.exit(main())
