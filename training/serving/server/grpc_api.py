"""`PredictionService` and `ModelService` of TensorFlow Serving."""

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from keras_attn.training.serving.server.errors import ServingError, invalid
from keras_attn.training.serving.server.tensors import array_of, proto_of

SIGNATURES = "signature_def"


async def start(service):
    """Starts to listen.

    Args:
        service: `Service`.

    Returns:
        `(server, port)`: `grpc.aio.Server`, and the port it listens at.

    Raises:
        OSError: If the port is taken.
    """
    settings = service.settings
    patience = int(1000 * settings.patience_seconds)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.server_handshake_timeout_ms", patience),
            ("grpc.keepalive_time_ms", patience),
            ("grpc.keepalive_timeout_ms", patience),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.settings_timeout", patience),
            ("grpc.http2.ping_timeout_ms", patience),
            # Two servers at one port would each get some of the requests.
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers([Methods(service)])
    address = f"{settings.url_host}:{settings.port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"Cannot listen at {address}: is the port in use?") from error
    await server.start()
    return server, port


class Methods(grpc.GenericRpcHandler):
    """Predict, GetModelMetadata, GetModelStatus; others are answered by UNIMPLEMENTED.

    Requests are received and parsed here: gRPC's own handlers wait for ever for a
    request that has begun, and take one that cannot be parsed for the server's error.
    """

    def __init__(self, service):
        self._service = service
        predictions = "/tensorflow.serving.PredictionService"
        self._methods = {
            f"{predictions}/Predict": (predict_pb2.PredictRequest, self._predict),
            f"{predictions}/GetModelMetadata": (
                get_model_metadata_pb2.GetModelMetadataRequest,
                self._metadata,
            ),
            "/tensorflow.serving.ModelService/GetModelStatus": (
                get_model_status_pb2.GetModelStatusRequest,
                self._status,
            ),
        }

    def service(self, details):
        if details.method not in self._methods:
            return None
        kind, answer = self._methods[details.method]

        async def handle(messages, context):
            try:
                data = await self._service.receive(_first(messages))
                request = _parsed(kind, data)
                # A request may hold tens of MB, which wait in the queue.
                del data
                with self._service.admitted("grpc", request.model_spec.name):
                    return (await answer(request)).SerializeToString()
            except ServingError as error:
                self._service.refused("gRPC", details.method, error)
                await context.abort(grpc.StatusCode[error.code], error.message)

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _predict(self, request):
        spec = request.model_spec
        with _lease(self._service, spec) as model:
            signature = model.signature(spec.signature_name)
            names = _output_names(request.output_filter, signature)
            max_bytes = self._service.settings.max_body
            inputs = {
                name: array_of(tensor, max_bytes)
                for name, tensor in request.inputs.items()
            }
            outputs = await self._service.predict(model, signature, inputs)
            response = predict_pb2.PredictResponse()
            _fill_spec(response.model_spec, model, signature.name)
            for name in names:
                response.outputs[name].CopyFrom(proto_of(outputs[name]))
            return response

    async def _metadata(self, request):
        fields = set(request.metadata_field)
        if fields != {SIGNATURES}:
            raise invalid(
                f"Expected the metadata_field {SIGNATURES!r}. "
                f"Received: {', '.join(sorted(fields)) or 'none'}"
            )
        with _lease(self._service, request.model_spec) as model:
            return metadata(model)

    async def _status(self, request):
        spec = request.model_spec
        return status(self._service, spec.name, _version(spec), spec.version_label)


async def _first(messages):
    async for message in messages:
        return message
    raise invalid("Expected a request. Received: an empty stream")


def _parsed(kind, data):
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise invalid(f"Cannot parse {kind.__name__}") from error


def _lease(service, spec):
    if not spec.name:
        raise invalid("Missing ModelSpec")
    return service.lease(spec.name, _version(spec), spec.version_label)


def _version(spec):
    return spec.version.value if spec.HasField("version") else None


def _output_names(wanted, signature):
    if not wanted:
        return list(signature.outputs)
    for name in wanted:
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected "
                f"to be in the set {{{','.join(sorted(signature.outputs))}}}."
            )
    if len(set(wanted)) < len(wanted):
        raise invalid(f"duplicate output tensor alias in {', '.join(wanted)}")
    return list(wanted)


def _fill_spec(spec, model, signature_name=""):
    spec.name = model.name
    spec.version.value = model.version
    spec.signature_name = signature_name


# ---- also for HTTP -------------------------------------------------------------------


def metadata(model):
    """`GetModelMetadataResponse` of a `SavedModel`."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    _fill_spec(response.model_spec, model)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in model.signature_defs.items():
        signatures.signature_def[name].CopyFrom(signature)
    response.metadata[SIGNATURES].Pack(signatures)
    return response


def status(service, name, version=None, label=None):
    """`GetModelStatusResponse` of a model, or of one version."""
    if not name:
        raise invalid("Missing ModelSpec")
    if label:
        version = service.repository.version_of(name, label)
    response = get_model_status_pb2.GetModelStatusResponse()
    State = get_model_status_pb2.ModelVersionStatus.State
    for number, state, error in service.repository.statuses(name, version):
        found = response.model_version_status.add()
        found.version = number
        found.state = State.Value(state)
        found.status.error_message = error.message if error else ""
        code = grpc.StatusCode[error.code].value[0] if error else 0
        found.status.error_code = code
    return response
