"""What a server can be told."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where a server listens, what it serves, and its limits.

    Args:
        folder: With `NAME/VERSION/saved_model.pb`.
        host: Address to listen at.
        port: Of gRPC; 0 for a free one.
        rest_port: Of HTTP; 0 for a free one.
        max_batch: Most examples of a request, and of requests that are joined.
        batch_timeout_ms: How long a request waits for others to join it.
        max_body_mb: Most megabytes of a request.
        max_pixels: Most pixels of an encoded image.
        queue: Most requests at a time.
        versions: How many of the latest versions of a model to serve.
        poll_seconds: How often to look for new versions.
        patience_seconds: How long a client may take to send a request, and may leave a
            connection unused.
        grace_seconds: How long requests may take when the server stops.
    """

    folder: pathlib.Path
    host: str = "127.0.0.1"
    port: int = 8500
    rest_port: int = 8501
    max_batch: int = 32
    batch_timeout_ms: float = 2.0
    max_body_mb: float = 32.0
    max_pixels: int = 25_000_000
    queue: int = 256
    versions: int = 1
    poll_seconds: float = 1.0
    patience_seconds: float = 15.0
    grace_seconds: float = 30.0

    def __post_init__(self):
        object.__setattr__(self, "folder", pathlib.Path(self.folder))
        for name in ("max_batch", "max_body_mb", "max_pixels", "queue", "versions"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"Expected `{name}` above 0. Received: {getattr(self, name)}"
                )
        if not self.batch_timeout_ms >= 0:
            raise ValueError(
                "Expected `batch_timeout_ms` of at least 0. "
                f"Received: {self.batch_timeout_ms}"
            )
        for name, port in (("port", self.port), ("rest_port", self.rest_port)):
            if not 0 <= port < 2**16:
                raise ValueError(f"Expected `{name}` from 0 to 65535. Received: {port}")

    @property
    def max_body(self):
        """Bytes."""
        return int(self.max_body_mb * 2**20)

    def check_folder(self):
        """Raises unless there is a folder that models can appear in."""
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"Expected a folder of exported models. Received: {self.folder}, which "
                "does not exist"
            )
        for inside in (self.folder, *sorted(self.folder.glob("[0-9]*"))):
            if (inside / "saved_model.pb").exists():
                raise ValueError(
                    "Expected the folder that holds NAME/VERSION/saved_model.pb. "
                    f"Received: {self.folder}, which is inside of one"
                )
