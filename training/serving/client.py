"""A client of servers with TensorFlow Serving's protocols."""

import base64
import json
import re
import time
import urllib.parse

from keras_attn.pipelines.images.files import image_files

# Seconds before the first retry, doubled each time, and at most.
BACKOFF = (0.2, 5.0)
MAX_ERROR = 300


class Unavailable(OSError):
    """The server cannot be reached or has no room: the request may be sent again."""


class Client:
    """Sends image files to a served model.

    Args:
        url: `http://HOST:PORT/v1/models/NAME[/versions/N]`, `grpc://HOST:PORT/NAME[/N]`,
            or either without the path and with `model`.
        model: Name of the model if the URL has none.
        signature: Signature of the model that takes one input, encoded images.
        timeout: Limit of a request in seconds.
        retries: Number of further attempts while the server is not available.
        sleep: Function that waits for a number of seconds.

    Raises:
        ValueError: For another kind of URL.
        ImportError: For gRPC without its packages.

    Example:

    >>> with Client("http://localhost:8501/v1/models/flowers") as client:
    ...     for answers in client.classify(["rose.jpg"]):
    ...         print(answers[0]["class"])
    """

    def __init__(
        self,
        url,
        model=None,
        signature="serving_default",
        timeout=30.0,
        retries=3,
        sleep=time.sleep,
    ):
        if not timeout > 0 or retries < 0:
            raise ValueError(
                "Expected `timeout` above 0 and `retries` of at least 0. "
                f"Received: timeout={timeout}, retries={retries}"
            )
        self._retries = retries
        self._sleep = sleep
        scheme, address, name, version = _split(url, model)
        kind = {"grpc": _Grpc}.get(scheme, _Rest)
        self._server = kind(scheme, address, name, version, signature, timeout)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Ends the connection."""
        self._server.close()

    def classify(self, images, batch_size=8):
        """The model's outputs for image files.

        Args:
            images: Paths of images, and of folders of images.
            batch_size: Images per request.

        Yields:
            Per request a list with a dict for each image: its path as `image` and the
            outputs by name; binary ones are `{"b64": ...}`.

        Raises:
            FileNotFoundError: If an image is not there.
            ValueError: If the server refuses a request.
            OSError: If it cannot be reached, takes too long or fails.
        """
        if batch_size < 1:
            raise ValueError(
                f"Expected a batch of at least 1. Received: batch_size={batch_size}"
            )
        files = image_files(images)
        for start in range(0, len(files), batch_size):
            part = files[start : start + batch_size]
            rows = self._ask([file.read_bytes() for file in part])
            if len(rows) != len(part):
                raise OSError(
                    f"Expected {len(part)} answers from the server. "
                    f"Received: {len(rows)}"
                )
            yield [
                {"image": str(file), **row}
                for file, row in zip(part, rows, strict=True)
            ]

    def _ask(self, contents):
        wait, longest = BACKOFF
        for _ in range(self._retries):
            try:
                return self._server.predict(contents)
            except Unavailable:
                self._sleep(wait)
                wait = min(2 * wait, longest)
        return self._server.predict(contents)


def format_answers(answers):
    """Lines of file, probability and class, or the names of other outputs."""
    width = max(len(answer["image"]) for answer in answers)
    lines = []
    for answer in answers:
        if "class" in answer and "probabilities" in answer:
            percent = 100 * max(answer["probabilities"])
            text = f"{percent:6.2f} %  {answer['class']}"
        else:
            names = [name for name in answer if name != "image"]
            text = f"{', '.join(names)}; --json prints them"
        lines.append(f"{answer['image']:<{width}}  {text}")
    return "\n".join(lines)


def _split(url, model):
    """Scheme, address, model and version of a URL."""
    if "://" not in url:
        url = f"grpc://{url}"
    parts = urllib.parse.urlsplit(url)
    path = re.fullmatch(
        r"(?:/v1/models)?/([^/:]+)(?:(?:/versions)?/(\d+))?(?::predict)?/?", parts.path
    )
    named = path is not None or parts.path in ("", "/")
    if parts.scheme not in ("http", "https", "grpc") or not parts.netloc or not named:
        raise ValueError(
            "Expected http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME. "
            f"Received: {url}"
        )
    name, version = path.groups() if path else (None, None)
    if not (model or name) or model and name and model != name:
        raise ValueError(
            "Expected the name of one model, in the URL or as --model. "
            f"Received: {url}, {model or 'no --model'}"
        )
    return parts.scheme, parts.netloc, model or name, version


# ---- the two protocols ---------------------------------------------------------------


class _Rest:
    def __init__(self, scheme, address, name, version, signature, timeout):
        import requests

        part = f"/versions/{version}" if version else ""
        name = urllib.parse.quote(name, safe="")
        self._url = f"{scheme}://{address}/v1/models/{name}{part}:predict"
        self._signature = signature
        self._timeout = timeout
        self._session = requests.Session()

    def close(self):
        self._session.close()

    def predict(self, contents):
        import requests

        instances = [{"b64": base64.b64encode(data).decode()} for data in contents]
        body = {"signature_name": self._signature, "instances": instances}
        try:
            response = self._session.post(
                self._url, json=body, timeout=self._timeout, allow_redirects=False
            )
        except requests.Timeout as error:
            raise OSError(f"{self._url}: no answer in {self._timeout:g} s") from error
        except requests.ConnectionError as error:
            raise _connection_error(self._url, error) from error
        except requests.RequestException as error:
            raise OSError(f"{self._url}: {error}") from error
        return self._rows(response)

    def _rows(self, response):
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        answer = answer if isinstance(answer, dict) else {}
        if response.status_code != 200:
            reason = str(answer.get("error", response.reason))[:MAX_ERROR]
            message = f"{self._url}: {response.status_code}, {reason}"
            if response.status_code == 503:
                raise Unavailable(message)
            if 400 <= response.status_code < 500:
                raise ValueError(message)
            raise OSError(message)
        rows = answer.get("predictions")
        if not isinstance(rows, list):
            raise OSError(f"{self._url}: no answer of TensorFlow Serving's REST API")
        # A single output comes as its values alone.
        return [row if isinstance(row, dict) else {"output": row} for row in rows]


def _connection_error(url, error):
    """The error of a failed connection; after a refused one nothing was sent."""
    import urllib3

    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        return Unavailable(f"{url}: cannot connect")
    return OSError(f"{url}: the connection broke")


class _Grpc:
    def __init__(self, scheme, address, name, version, signature, timeout):
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as error:
            raise ImportError(
                "gRPC needs more packages: pip install 'keras-attn[serving]'"
            ) from error
        self._where = f"grpc://{address}/{name}"
        self._spec = {"name": name, "signature_name": signature}
        if version:
            self._spec["version"] = {"value": int(version)}
        self._timeout = timeout
        self._input = None
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", -1),
                # The retries are counted here.
                ("grpc.enable_retries", 0),
            ],
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self):
        self._channel.close()

    def predict(self, contents):
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        self._input = self._input or self._find_input()
        request = predict_pb2.PredictRequest(model_spec=self._spec)
        images = tf.make_tensor_proto(contents, tf.string, [len(contents)])
        request.inputs[self._input].CopyFrom(images)
        response = self._call(self._stub.Predict, request)
        outputs = {
            name: _json_values(name, tf.make_ndarray(tensor))
            for name, tensor in response.outputs.items()
        }
        if not all(isinstance(rows, list) for rows in outputs.values()):
            raise OSError(f"{self._where}: the outputs are not a row for each image")
        return [
            dict(zip(outputs, row, strict=True))
            for row in zip(*outputs.values(), strict=False)
        ]

    def _find_input(self):
        """Name of the signature's input."""
        from tensorflow.core.framework import types_pb2
        from tensorflow_serving.apis import get_model_metadata_pb2

        spec = {key: self._spec[key] for key in self._spec if key != "signature_name"}
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        response = self._call(self._stub.GetModelMetadata, request)
        found = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        taking_images = {
            name: next(iter(signature.inputs))
            for name, signature in sorted(found.signature_def.items())
            if [info.dtype for info in signature.inputs.values()]
            == [types_pb2.DT_STRING]
        }
        name = self._spec["signature_name"]
        if name not in taking_images:
            raise ValueError(
                "Expected a signature that takes encoded images: "
                f"{', '.join(taking_images) or 'the model has none'}. Received: {name}"
            )
        return taking_images[name]

    def _call(self, method, request):
        import grpc

        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            details = (error.details() or "").split("\n")[0][:MAX_ERROR]
            message = f"{self._where}: {error.code().name}, {details}"
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                raise Unavailable(message) from error
            refused = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")
            if error.code().name in refused:
                raise ValueError(message) from error
            raise OSError(message) from error


def _json_values(name, array):
    """Values in the form of the REST API."""
    if array.dtype.hasobject:
        return json.loads(json.dumps(array.tolist(), default=_text_or_bytes(name)))
    if array.dtype.kind == "V" or array.dtype.name == "bfloat16":
        array = array.astype("float32")
    return array.tolist()


def _text_or_bytes(name):
    def convert(value):
        try:
            if not name.endswith("_bytes"):
                return value.decode()
        except UnicodeDecodeError:
            pass
        return {"b64": base64.b64encode(value).decode()}

    return convert
