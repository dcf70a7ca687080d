"""Settings of a server."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Settings:
    """Addresses, models and limits of a server.

    Args:
        folder: Folder with `NAME/VERSION/saved_model.pb`.
        host: Address to listen at.
        port: Port for gRPC; 0 picks a free one.
        rest_port: Port for HTTP; 0 picks a free one.
        max_batch: Limit in examples of a request and of joined requests.
        batch_timeout_ms: Milliseconds that a request waits for others to join it.
        max_body_mb: Limit of a request in megabytes.
        max_pixels: Limit of an encoded image in pixels.
        queue: Limit of requests at a time.
        versions: Number of the latest versions of a model to serve.
        poll_seconds: Seconds between two looks for new versions.
        patience_seconds: Limit for a client to send a request, and for an unused
            connection.
        decoding_seconds: Limit of a batch of large images.
        grace_seconds: Limit for requests in progress when the server stops.
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
    decoding_seconds: float = 30.0
    grace_seconds: float = 28.0

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
        """Limit of a request in bytes."""
        return int(self.max_body_mb * 2**20)

    @property
    def url_host(self):
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def check_folder(self):
        """Raises unless the folder exists and is no model's own."""
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"Expected a folder of exported models. Received: {self.folder}, which "
                "does not exist"
            )
        for inside in (self.folder, *sorted(self.folder.glob("[0-9]*"))):
            if (inside / "saved_model.pb").exists():
                raise ValueError(
                    "Expected the folder that holds NAME/VERSION/saved_model.pb. "
                    f"Received: {self.folder}, the folder of one model"
                )
