"""The REST paths of TensorFlow Serving, with health and metrics beside them."""

import asyncio
import json
import re

import prometheus_client
from aiohttp import web
from google.protobuf import json_format

from keras_attn.training.serving.server import grpc_api, json_tensors
from keras_attn.training.serving.server.errors import ServingError, invalid

MODEL = r"/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?"
PREDICT = re.compile(MODEL + r":(predict|classify|regress)")
STATUS = re.compile(MODEL)
METADATA = re.compile(MODEL + "/metadata")
# The second is TensorFlow Serving's.
METRICS = ("/metrics", "/monitoring/prometheus/metrics")
HEALTH = "/healthz"
# Bodies above this are parsed in another thread, so that others need not wait.
LARGE = 2**18
INT64 = 2**63


class RestApi:
    """Answers HTTP requests.

    Args:
        service: `Service`.
    """

    def __init__(self, service):
        self._service = service
        # Connections with a request in progress.
        self.busy = set()

    async def start(self):
        """Starts to listen.

        Returns:
            `(runner, port)`: `aiohttp.web.AppRunner`, and the port it listens at.

        Raises:
            OSError: If the port is taken.
        """
        settings = self._service.settings
        app = web.Application(client_max_size=settings.max_body)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,
            keepalive_timeout=settings.patience_seconds,
            shutdown_timeout=settings.grace_seconds,
        )
        await runner.setup()
        site = web.TCPSite(runner, settings.host, settings.rest_port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            address = f"{settings.host}:{settings.rest_port}"
            raise OSError(f"Cannot listen at {address}: {error}") from error
        return runner, runner.addresses[0][1]

    async def _handle(self, request):
        connection = request.protocol
        self.busy.add(connection)
        try:
            return await self._answer(request)
        except ServingError as error:
            return _json({"error": error.message}, error.http_status)
        finally:
            self.busy.discard(connection)

    async def _answer(self, request):
        path, method = request.path, request.method
        if method == "POST" and (found := PREDICT.fullmatch(path)):
            name, version, label, verb = found.groups()
            with self._service.admitted("rest", name):
                number = _number(version)
                return await self._predict(request, name, number, label, verb)
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

    async def _predict(self, request, name, version, label, verb):
        with self._service.lease(name, version, label) as model:
            if verb != "predict":
                raise ServingError(
                    "UNIMPLEMENTED", f"Expected :predict. Received: :{verb}"
                )
            body = await self._read(request)
            large = len(body) > LARGE
            values = await _call(large, json_tensors.parse, body)
            # A request may hold tens of MB: its text is freed before it waits in the
            # queue, and so is what was parsed of it.
            del body
            signature = model.signature(values.get("signature_name", ""))
            inputs, rows = await _call(large, json_tensors.inputs_of, values, signature)
            del values
            outputs = await self._service.predict(model, signature, inputs)
            large = sum(value.nbytes for value in outputs.values()) > LARGE
            body = await _call(large, json_tensors.answer, outputs, rows)
            return web.Response(body=body, content_type="application/json")

    async def _read(self, request):
        settings = self._service.settings
        if (request.content_length or 0) > settings.max_body:
            raise _too_large(settings)
        try:
            async with asyncio.timeout(settings.patience_seconds):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise _too_large(settings) from None
        except TimeoutError:
            raise ServingError(
                "DEADLINE_EXCEEDED",
                f"The body did not arrive within {settings.patience_seconds:g} s",
                408,
            ) from None
        except (web.HTTPException, web.PayloadAccessError, ValueError) as error:
            raise invalid(f"Cannot read the body: {error}") from error


async def watch_connections(runner, busy, patience, interval=0.5):
    """Closes connections whose client takes too long to send or to receive.

    Args:
        runner: `aiohttp.web.AppRunner`.
        busy: Connections with a request in progress.
        patience: Limit in seconds.
        interval: Seconds between two checks.
    """
    loop = asyncio.get_running_loop()
    since = {}
    while True:
        await asyncio.sleep(interval)
        idle = set(runner.server.connections) - busy
        since = {one: since.get(one, loop.time()) for one in idle}
        for connection, start in since.items():
            if loop.time() - start > patience:
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
    status = None if path.startswith("/v1/") else 404
    return ServingError("INVALID_ARGUMENT", message, status)


def _too_large(settings):
    return ServingError(
        "RESOURCE_EXHAUSTED",
        f"Expected a body of at most {settings.max_body} bytes",
        413,
    )
