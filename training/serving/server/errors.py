"""Errors that clients receive, over gRPC and over HTTP."""

# The names are gRPC's; the HTTP statuses those of TensorFlow Serving, and 413 and 408,
# which only HTTP knows.
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}
MAX_LENGTH = 500


class ServingError(Exception):
    """An error as an answer.

    Args:
        code: Name of a gRPC status.
        message: Message to the client.
        http_status: HTTP status; by default the one of `code`.
    """

    def __init__(self, code, message, http_status=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = http_status or HTTP_STATUS[code]


def invalid(message):
    return ServingError("INVALID_ARGUMENT", message)


def from_tensorflow(error):
    """The `ServingError` of a `tf.errors.OpError`, without the graph's details."""
    import grpc

    names = {status.value[0]: status.name for status in grpc.StatusCode}
    code = names.get(error.error_code, "UNKNOWN")
    # The place in the graph comes first, then the reason, then the node's name.
    lines = error.message.split("\n\t [[")[0].strip().splitlines()
    text = lines[-1].strip() if lines else type(error).__name__
    return ServingError(code, text[:MAX_LENGTH])
