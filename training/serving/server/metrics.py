"""Metrics for Prometheus."""

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self):
        self.registry = prometheus_client.CollectorRegistry()
        options = {"namespace": "keras_attn", "registry": self.registry}
        self.requests = Counter(
            "requests", "Answers", ["api", "model", "code"], **options
        )
        self.seconds = Histogram(
            "request_seconds",
            "Time from a request to its answer",
            ["api"],
            buckets=SECONDS,
            **options,
        )
        self.batches = Histogram(
            "batch_size",
            "Examples of the batches that were run",
            buckets=SIZES,
            **options,
        )
        self.active = Gauge("active_requests", "Requests in the server", **options)
        self.waiting = Gauge("waiting_requests", "Requests in the queue", **options)
        self.versions = Gauge(
            "model_version",
            "1 for each served version",
            ["model", "version"],
            **options,
        )

    def text(self, service):
        """The metrics of a `Service` in Prometheus's text format."""
        self.waiting.set(service.waiting)
        self.versions.clear()
        for name, version in service.repository.available():
            self.versions.labels(name, version).set(1)
        return prometheus_client.generate_latest(self.registry)
