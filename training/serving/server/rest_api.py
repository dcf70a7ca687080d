"""The REST paths of TensorFlow Serving, with health and metrics beside them."""

import asyncio
import functools
import json
import re

import prometheus_client
from aiohttp import http_exceptions, web
from google.protobuf import json_format

from keras_attn.training.serving.server import grpc_api, json_tensors
from keras_attn.training.serving.server.errors import MAX_LENGTH, ServingError, invalid

# In any case, as TensorFlow Serving reads them.
MODEL = r"(?i)/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?"
PREDICT = re.compile(MODEL + r":(predict|explain|classify|regress)")
STATUS = re.compile(MODEL)
METADATA = re.compile(MODEL + "/metadata")
# The second is TensorFlow Serving's.
METRICS = ("/metrics", "/monitoring/prometheus/metrics")
HEALTH = "/healthz"
# Bodies above this are parsed in another thread, so that others need not wait.
LARGE = 2**18
INT64 = 2**63
BAD_BODY = (
    web.HTTPException,
    web.PayloadAccessError,
    web.RequestPayloadError,
    http_exceptions.HttpProcessingError,
    ValueError,
)


class RestApi:
    """Answers HTTP requests.

    Args:
        service: `Service`.
    """

    def __init__(self, service):
        self._service = service
        # Connections with a request in progress, and times since when others wait.
        self.busy = set()
        self.since = {}

    async def start(self):
        """Starts to listen.

        Returns:
            `(runner, port)`: `aiohttp.web.ServerRunner`, and the port it listens at.

        Raises:
            OSError: If the port is taken.
        """
        settings = self._service.settings
        server = _Server(
            self._handle,
            request_factory=functools.partial(
                _request, asyncio.get_running_loop(), settings.max_body
            ),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=settings.patience_seconds,
        )
        server.refused = self._service.refused
        # It waits once for answers and once more for what is cancelled.
        runner = web.ServerRunner(server, shutdown_timeout=settings.grace_seconds / 2)
        await runner.setup()
        site = web.TCPSite(runner, settings.host, settings.rest_port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            address = f"{settings.url_host}:{settings.rest_port}"
            raise OSError(f"Cannot listen at {address}: {error}") from error
        return runner, runner.addresses[0][1]

    async def _handle(self, request):
        connection = request.protocol
        self.busy.add(connection)
        try:
            return await self._answer(request)
        except ServingError as error:
            self._service.refused("REST", request.path, error)
            return _json({"error": error.message}, error.http_status)
        finally:
            self.busy.discard(connection)
            self.since[connection] = asyncio.get_running_loop().time()

    async def _answer(self, request):
        path, method = request.path, request.method
        if method == "POST" and (found := PREDICT.fullmatch(path)):
            name, version, label, verb = found.groups()
            body = await self._read(request)
            with self._service.admitted("rest", name):
                number = _number(version)
                return await self._predict([body], name, number, label, verb.lower())
        if method in ("GET", "HEAD"):
            return self._look_up(path, method)
        raise _malformed(path, method)

    def _look_up(self, path, method):
        service = self._service
        if path == HEALTH:
            ready = bool(service.repository.available()) and not service.stopping
            text = "ok" if ready else "stopping" if service.stopping else "no model"
            return _json({"status": text}, 200 if ready else 503)
        if path in METRICS:
            return web.Response(
                body=service.metrics.text(service),
                headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
            )
        if found := METADATA.fullmatch(path):
            name, version, label = found.groups()
            with service.admitted("rest", name):
                with service.lease(name, _number(version), label) as model:
                    return _json(_metadata(model))
        if found := STATUS.fullmatch(path):
            name, version, label = found.groups()
            with service.admitted("rest", name):
                answer = grpc_api.status(service, name, _number(version), label)
                return _json(_message(answer))
        raise _malformed(path, method)

    async def _predict(self, bodies, name, version, label, verb):
        with self._service.lease(name, version, label) as model:
            if verb not in ("predict", "explain"):
                raise ServingError(
                    "UNIMPLEMENTED",
                    f"Expected :predict or :explain. Received: :{verb}",
                )
            body = bodies.pop()
            large = len(body) > LARGE
            values = await _call(large, json_tensors.parse, body)
            # A request may hold tens of MB: its text is freed before it waits in the
            # queue, and so is what was parsed of it.
            del body
            # KServe's verb; the signature is another where classes are asked for.
            usual = json_tensors.explaining(values) if verb == "explain" else ""
            signature = model.signature(values.get("signature_name", "") or usual)
            inputs, rows = await _call(large, json_tensors.inputs_of, values, signature)
            del values
            outputs = await self._service.predict(model, signature, inputs)
            large = sum(value.nbytes for value in outputs.values()) > LARGE
            body = await _call(large, json_tensors.answer, outputs, rows, verb)
            return web.Response(body=body, content_type="application/json")

    async def _read(self, request):
        settings = self._service.settings
        if (request.content_length or 0) > settings.max_body:
            raise _too_large(settings)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        try:
            return await self._service.receive(request.read())
        except web.HTTPRequestEntityTooLarge:
            raise _too_large(settings) from None
        except BAD_BODY as error:
            raise invalid(f"Cannot read the body: {_in_one_line(error)}") from error


class _Server(web.Server):
    """A server whose errors are JSON, also where a request is no HTTP."""

    def __call__(self):
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    def log_exception(self, *arguments, exc_info=None):
        # After the answer the rest of the body is read, whether it can be or not.
        if not isinstance(exc_info, web.RequestPayloadError):
            super().log_exception(*arguments, exc_info=exc_info)

    def handle_error(self, request, status=500, exc=None, message=None):
        if status >= 500:
            self.log_exception("Error of %s", request.path, exc_info=exc)
            message = "Internal error"
        error = ServingError("INVALID_ARGUMENT", _in_one_line(message or exc), status)
        self._manager.refused("REST", request.remote, error)
        if request.writer.output_size > 0:
            raise ConnectionError("A part of the answer was sent already")
        response = _json({"error": error.message}, status)
        response.force_close()
        return response


def _request(loop, max_body, message, payload, protocol, writer, task):
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=max_body
    )


def _in_one_line(error):
    return " ".join(str(error).split())[:MAX_LENGTH] or type(error).__name__


async def watch_connections(runner, busy, since, patience, interval=0.5):
    """Closes connections whose client takes too long to send or to receive.

    Args:
        runner: `aiohttp.web.AppRunner`.
        busy: Connections with a request in progress.
        since: Dict of the others with the times of their last answers.
        patience: Limit in seconds.
        interval: Seconds between two checks.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(interval)
        connections = set(runner.server.connections)
        for gone in since.keys() - connections:
            del since[gone]
        for connection in connections - busy:
            if loop.time() - since.setdefault(connection, loop.time()) > patience:
                connection.force_close()


async def _call(in_thread, function, *arguments):
    if in_thread:
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)


def _number(text):
    if text and int(text) >= INT64:
        raise invalid(f"Failed to convert version: {text} to numeric.")
    return int(text) if text else None


def _metadata(model):
    """Metadata in TensorFlow Serving's JSON, without the type of an `Any`."""
    message = _message(grpc_api.metadata(model))
    for value in message["metadata"].values():
        value.pop("@type", None)
    return message


def _message(message):
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def _json(contents, status=200):
    return web.Response(
        text=json.dumps(contents, indent=1) + "\n",
        status=status,
        content_type="application/json",
    )


def _malformed(path, method):
    message = f"Malformed request: {method} {path[:200]}"
    status = None if path.lower().startswith("/v1/") else 404
    return ServingError("INVALID_ARGUMENT", message, status)


def _too_large(settings):
    return ServingError(
        "RESOURCE_EXHAUSTED",
        f"Expected a body of at most {settings.max_body} bytes",
        413,
    )
