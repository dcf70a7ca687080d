"""The local server against calling the SavedModel directly.

RN26 with class embeddings of 128x128 pixels and random weights, exported. Every request
holds one JPEG file of 256x192 pixels. The server runs in a process of its own, and so
do all clients together; each of them asks again as soon as it has its answer. The
reference calls the SavedModel in this process with as many files at once as there are
clients, while the server has nothing to do.
"""

import base64
import contextlib
import io
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks import measure

MODEL = "rn26"
IMAGE_SIZE = 128
FILE_SIZE = (256, 192)
CLASSES = 10
CLIENTS = (1, 8, 32)
PROTOCOLS = ("gRPC", "REST")
PERCENTILES = (50, 95, 99)
START_SECONDS = 180


def run(quick):
    """Measurements of throughput and of latency, for each number of clients."""
    import tensorflow as tf

    rounds, seconds = (2, 2.0) if quick else (7, 4.0)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        target = _export(folder)
        files = jpeg_files(max(CLIENTS))
        loaded = tf.saved_model.load(str(target))
        classify = loaded.signatures["serving_default"]
        with _server(folder / "models") as addresses:
            bodies = _write_bodies(folder, files)
            measurements = []
            for clients in CLIENTS:
                batch = tf.constant(files[:clients])
                measurements += _measure(
                    clients,
                    lambda batch=batch: _direct(classify, batch, seconds),
                    lambda protocol, count=clients: _clients(
                        protocol, addresses[protocol], bodies[protocol], count, seconds
                    ),
                    rounds,
                )
    return measurements


def _measure(clients, direct, served, rounds):
    """Measurements for a number of clients, whose cases take turns.

    Args:
        direct: Function that returns images per second and the seconds of each call.
        served: The same of a protocol.
    """
    speeds = {"direct": [], **{protocol: [] for protocol in PROTOCOLS}}
    latencies = {name: [] for name in speeds}
    for _ in range(rounds):
        for name in speeds:
            speed, times = direct() if name == "direct" else served(name)
            speeds[name].append(speed)
            latencies[name] += times
    found = []
    base = float(np.percentile(latencies["direct"], 50))
    for name in speeds:
        asked = f"batch {clients}" if name == "direct" else f"clients {clients}"
        found.append(
            measure.Measurement(
                f"{name}, {asked}",
                float(statistics.median(speeds[name])),
                "images/s",
                measure.median_ratio(speeds[name], speeds["direct"]),
            )
        )
        for percentile in PERCENTILES:
            value = float(np.percentile(latencies[name], percentile))
            case = f"{name}, {asked}, p{percentile}"
            found.append(measure.Measurement(case, 1000 * value, "ms", value / base))
    return found


# ---- measurements -------------------------------------------------------------------


def _direct(classify, batch, seconds):
    """Images per second, and the seconds of each call."""
    times = []
    for _ in range(2):
        classify(image_bytes=batch)["class"].numpy()
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        classify(image_bytes=batch)["class"].numpy()
        times.append(time.perf_counter() - now)
    return len(times) * len(batch) / sum(times), times


def _clients(protocol, address, bodies, clients, seconds):
    """The same as `_direct` for clients in another process."""
    command = [sys.executable, "-m", "benchmarks.serving_clients", protocol, address]
    done = subprocess.run(
        [*command, str(bodies), str(clients), str(seconds)],
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(done.stdout)
    return result["answers"] / result["seconds"], result["latencies"]


@contextlib.contextmanager
def _server(folder):
    """Runs the command, and yields the address of each protocol."""
    command = [sys.executable, "-m", "keras_attn.training.cli", "serve", str(folder)]
    ports = ["--port", "0", "--rest-port", "0", "--max-batch", str(max(CLIENTS))]
    log = folder.parent / "server.log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*command, *ports],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        )
    try:
        end = time.monotonic() + START_SECONDS
        while "Ctrl+C" not in (text := log.read_text()):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The server did not start:\n{text}")
            time.sleep(0.1)
        rest = re.search(r"http://[0-9.:]+", text)[0]
        yield {
            "gRPC": re.search(r"gRPC at ([0-9.:]+)", text)[1],
            "REST": f"{rest}/v1/models/{MODEL}:predict",
        }
    finally:
        process.terminate()
        process.wait()


# ---- server and pictures -------------------------------------------------------------


def _export(folder):
    from keras_attn.preprocessing import ImageSpec
    from keras_attn.training.fit.train import make_model
    from keras_attn.training.recipes.schema import Recipe
    from keras_attn.training.serving.export import export

    names = tuple(f"class {number}" for number in range(CLASSES))
    spec = ImageSpec(IMAGE_SIZE, IMAGE_SIZE, class_names=names)
    recipe = Recipe(name=MODEL, row="class_embedding")
    path = folder / f"{MODEL}.keras"
    make_model(recipe, spec).save(path)
    return export(path, name=MODEL, output=folder / "models")


def jpeg_files(count):
    """Smooth pictures with a little noise, whose files are as large as photographs'."""
    from PIL import Image

    random = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = random.integers(0, 255, (12, 16, 3), dtype="uint8")
        image = Image.fromarray(coarse).resize(FILE_SIZE, Image.Resampling.BICUBIC)
        noisy = np.asarray(image, "int16") + random.integers(
            -8, 8, (*FILE_SIZE[::-1], 3)
        )
        file = io.BytesIO()
        pixels = noisy.clip(0, 255).astype("uint8")
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files


def _write_bodies(folder, files):
    """Folders of requests, ready to be sent, of each protocol."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    folders = {protocol: folder / protocol for protocol in PROTOCOLS}
    for path in folders.values():
        path.mkdir()
    for number, data in enumerate(files):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = MODEL
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([data]))
        name = f"{number:03}"
        (folders["gRPC"] / name).write_bytes(request.SerializeToString())
        rest = {"instances": [{"b64": base64.b64encode(data).decode()}]}
        (folders["REST"] / name).write_text(json.dumps(rest))
    return folders
