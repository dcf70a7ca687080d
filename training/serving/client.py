"""A client of servers with TensorFlow Serving's protocols."""

import base64
import concurrent.futures
import json
import pathlib
import re
import threading
import time
import urllib.parse

from keras_attn.pipelines.images.files import image_files
from keras_attn.pipelines.images.headers import SUFFIXES

# Seconds before the first retry, doubled each time, and at most.
BACKOFF = (0.2, 5.0)
MAX_ERROR = 300
# Bytes of images per request: as base64 they fit into the 32 MB of the local server.
MAX_IMAGES = 20 * 2**20
MAX_ANSWER = 2**30
# Refusals in a row, all for one reason, after which no more images are sent.
ENOUGH = 32
# Names that outputs of models may not have in an answer.
RESERVED = ("image", "error", "skipped")


class Unavailable(OSError):
    """The server cannot be reached or has no room: the request may be sent again."""


class Refused(ValueError):
    """The server refuses a request for its contents.

    Args:
        where: Address of the model.
        reason: Reason that the server gives.
    """

    def __init__(self, where, reason):
        super().__init__(f"{where}: {reason}")
        self.reason = reason


class Client:
    """Sends image files to a served model.

    Args:
        url: `http://HOST:PORT/v1/models/NAME[/versions/N]`, `grpc://HOST:PORT/NAME[/N]`,
            or either without the path and with `model`; with `/labels/LABEL` for the
            version of a label.
        model: Name of the model if the URL has none.
        signature: Signature of the model that takes one input, encoded images.
        timeout: Limit of a request in seconds, with its retries and its whole answer.
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
        self._timeout = timeout
        self._sleep = sleep
        scheme, address, *model = _split(url, model)
        kind = {"grpc": _Grpc}.get(scheme, _Rest)
        self._server = kind(scheme, address, *model, signature)

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
            batch_size: Images per request; large ones are fewer.

        Yields:
            Per request a list with a dict for each image: its path as `image` and the
            outputs by name; binary ones are `{"b64": ...}`. An image that the server
            refuses has the reason as `error` instead, and what is no file inside a
            folder has one as `skipped`.

        Raises:
            FileNotFoundError: If an image is not there.
            ValueError: If the server refuses all images.
            OSError: If it cannot be reached, takes too long or fails.
        """
        if batch_size < 1:
            raise ValueError(
                f"Expected a batch of at least 1. Received: batch_size={batch_size}"
            )
        files = image_files(images)
        if skipped := list(_skipped(images)):
            yield skipped
        answered, refused = False, []
        for part, unreadable in _parts(files, batch_size):
            answers = (self._answers(part) if part else []) + unreadable
            answered = answered or any("error" not in answer for answer in answers)
            if answered:
                yield refused + answers
                refused = []
                continue
            refused += answers
            reasons = {answer["error"] for answer in refused}
            if len(refused) >= ENOUGH and len(reasons) == 1:
                break
        if not answered and refused:
            if len(refused) > 1:
                yield refused
            raise ValueError("{image}: {error}".format(**refused[0]))

    def _answers(self, part):
        """Answers for pairs of a path and its content.

        A request that is refused is sent again in halves, so that one bad image is
        refused alone.
        """
        try:
            rows = self._ask([data for _, data in part])
        except Refused as error:
            if len(part) == 1:
                return [{"image": str(part[0][0]), "error": error.reason}]
            middle = len(part) // 2
            return self._answers(part[:middle]) + self._answers(part[middle:])
        if len(rows) != len(part):
            raise OSError(
                f"Expected {len(part)} answers from the server. Received: {len(rows)}"
            )
        return [
            {"image": str(file)}
            | {f"output_{k}" if k in RESERVED else k: v for k, v in row.items()}
            for (file, _), row in zip(part, rows, strict=True)
        ]

    def _ask(self, contents):
        wait, longest = BACKOFF
        end = time.monotonic() + self._timeout
        for attempt in range(self._retries + 1):
            try:
                return self._server.predict(contents, end - time.monotonic())
            except Unavailable:
                if attempt == self._retries or time.monotonic() + wait >= end:
                    raise
            self._sleep(wait)
            wait = min(2 * wait, longest)


def _skipped(images):
    for path in map(pathlib.Path, images):
        for inside in sorted(path.rglob("*")) if path.is_dir() else ():
            if inside.suffix.lower() in SUFFIXES and not inside.is_file():
                yield {"image": str(inside), "skipped": "not a file"}


def _parts(files, batch_size):
    """Pairs of what a request holds, and of answers for files that cannot be read."""
    part, unreadable, size = [], [], 0
    for file in files:
        try:
            if not file.is_file():
                raise OSError("not a file")
            data = file.read_bytes()
        except OSError as error:
            reason = f"cannot be read ({error.strerror or error})"
            unreadable.append({"image": str(file), "error": reason})
            continue
        if part and (len(part) == batch_size or size + len(data) > MAX_IMAGES):
            yield part, unreadable
            part, unreadable, size = [], [], 0
        part.append((file, data))
        size += len(data)
    if part or unreadable:
        yield part, unreadable


def printable(text):
    """Text without characters that control a terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def format_answers(answers):
    """Lines of file, probability and class, or the names of other outputs."""
    images = [printable(answer["image"]) for answer in answers]
    width = max(map(len, images), default=0)
    lines = []
    for image, answer in zip(images, answers, strict=True):
        try:
            percent = 100 * max(answer["probabilities"])
            text = f"{percent:6.2f} %  {printable(answer['class'])}"
        except (KeyError, TypeError, ValueError):
            names = ", ".join(name for name in answer if name != "image")
            text = f"{printable(names)}; --json prints them"
        lines.append(f"{image:<{width}}  {text}")
    return "\n".join(lines)


def _split(url, model):
    """Scheme, address, model, version and label of a URL."""
    if "://" not in url:
        url = f"grpc://{url}"
    parts = urllib.parse.urlsplit(url)
    path = re.fullmatch(
        r"(?i)(?:/v1/models)?/([^/:]+)(?:(?:/versions)?/(\d+)|/labels/([^/:]+))?"
        r"(?::predict)?/?",
        parts.path,
    )
    named = path is not None or parts.path in ("", "/")
    if parts.scheme not in ("http", "https", "grpc") or not parts.netloc or not named:
        raise ValueError(
            "Expected http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME. "
            f"Received: {url}"
        )
    name, version, label = path.groups() if path else (None, None, None)
    if not (model or name) or model and name and model != name:
        raise ValueError(
            "Expected the name of one model, in the URL or as --model. "
            f"Received: {url}, {model or 'no --model'}"
        )
    return parts.scheme, parts.netloc, model or name, version, label


# ---- the two protocols ---------------------------------------------------------------


class _Rest:
    def __init__(self, scheme, address, name, version, label, signature):
        import requests

        part = (
            f"/versions/{version}" if version else f"/labels/{label}" if label else ""
        )
        name = urllib.parse.quote(name, safe="")
        self._url = f"{scheme}://{address}/v1/models/{name}{part}:predict"
        self._signature = signature
        self._session = requests.Session()

    def close(self):
        self._session.close()

    def predict(self, contents, seconds):
        instances = [{"b64": base64.b64encode(data).decode()} for data in contents]
        body = {"signature_name": self._signature, "instances": instances}
        future = concurrent.futures.Future()

        def post():
            try:
                future.set_result(self._post(body, seconds))
            except BaseException as error:
                future.set_exception(error)

        # The timeouts of `requests` begin anew with every byte.
        threading.Thread(target=post, daemon=True).start()
        try:
            return self._rows(*future.result(seconds))
        except TimeoutError:
            raise OSError(
                f"{self._url}: no answer in {round(seconds, 1):g} s"
            ) from None

    def _post(self, body, seconds):
        """The status, reason and content of an answer."""
        import requests
        import urllib3

        try:
            with self._session.post(
                self._url,
                json=body,
                timeout=seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                content = response.raw.read(MAX_ANSWER + 1, decode_content=True)
                return response.status_code, response.reason, content
        except requests.Timeout as error:
            raise TimeoutError from error
        except requests.ConnectionError as error:
            raise _connection_error(self._url, error) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise OSError(f"{self._url}: {printable(error)[:MAX_ERROR]}") from error

    def _rows(self, status, reason, content):
        if len(content) > MAX_ANSWER:
            raise OSError(f"{self._url}: an answer of more than {MAX_ANSWER} bytes")
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = {}
        answer = answer if isinstance(answer, dict) else {}
        if status != 200:
            reason = f"{status}, {printable(answer.get('error', reason))[:MAX_ERROR]}"
            if status in (400, 413):
                raise Refused(self._url, reason)
            kind = Unavailable if status == 503 else OSError
            raise (ValueError if 400 <= status < 500 else kind)(
                f"{self._url}: {reason}"
            )
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
    def __init__(self, scheme, address, name, version, label, signature):
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
        if label:
            self._spec["version_label"] = label
        self._input = None
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MAX_ANSWER),
                # The retries are counted here.
                ("grpc.enable_retries", 0),
            ],
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self):
        self._channel.close()

    def predict(self, contents, seconds):
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        end = time.monotonic() + seconds
        self._input = self._input or self._find_input(seconds)
        request = predict_pb2.PredictRequest(model_spec=self._spec)
        images = tf.make_tensor_proto(contents, tf.string, [len(contents)])
        request.inputs[self._input].CopyFrom(images)
        response = self._call(self._stub.Predict, request, end - time.monotonic())
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

    def _find_input(self, seconds):
        """Name of the signature's input."""
        from tensorflow.core.framework import types_pb2
        from tensorflow_serving.apis import get_model_metadata_pb2

        spec = {key: self._spec[key] for key in self._spec if key != "signature_name"}
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        response = self._call(self._stub.GetModelMetadata, request, seconds)
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

    def _call(self, method, request, seconds):
        import grpc

        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            code = error.code().name
            details = printable((error.details() or "").split("\n")[0])[:MAX_ERROR]
            message = f"{self._where}: {code}, {details}"
            if code == "UNAVAILABLE":
                raise Unavailable(message) from error
            if code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"):
                raise Refused(self._where, f"{code}, {details}") from error
            if code in ("NOT_FOUND", "FAILED_PRECONDITION"):
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
