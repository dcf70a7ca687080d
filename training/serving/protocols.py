"""The two protocols of TensorFlow Serving, for the client."""

import base64
import concurrent.futures
import json
import threading
import time
import urllib.parse

MAX_ERROR = 300
MAX_ANSWER = 2**30


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


def printable(text):
    """Text without characters that control a terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


class RestServer:
    """A served model over REST; `GrpcServer` takes and gives the same."""

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
        return Unavailable(f"{url}: cannot connect; a server takes seconds to start")
    return OSError(f"{url}: the connection broke")


class GrpcServer:
    """A served model over gRPC."""

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
