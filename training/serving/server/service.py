"""Handling of requests, shared by both interfaces."""

import contextlib
import time
import traceback

from keras_attn.training.serving.server.errors import ServingError
from keras_attn.training.serving.server.images import check_images


class Service:
    """The models, the queue, the limits and the counters.

    Args:
        settings: `Settings`.
        repository: `Repository`.
        batcher: `Batcher`.
        metrics: `Metrics`.
    """

    def __init__(self, settings, repository, batcher, metrics):
        self.settings = settings
        self.repository = repository
        self.batcher = batcher
        self.metrics = metrics
        self.stopping = False
        self._active = 0

    @contextlib.contextmanager
    def admitted(self, api, model):
        """Context that counts a request and turns all errors into `ServingError`s.

        Args:
            api: `"grpc"` or `"rest"`.
            model: Name in the request.

        Raises:
            ServingError: If there are too many requests already.
        """
        start = time.monotonic()
        code = "OK"
        self._active += 1
        self.metrics.active.set(self._active)
        try:
            if self._active > self.settings.queue:
                raise ServingError(
                    "UNAVAILABLE", "The queue is full; try again in a moment"
                )
            yield
        except ServingError as error:
            code = error.code
            raise
        except Exception as error:
            code = "INTERNAL"
            traceback.print_exc()
            text = f"Internal error: {type(error).__name__}"
            raise ServingError(code, text) from error
        except BaseException:  # The client has gone.
            code = "CANCELLED"
            raise
        finally:
            self._active -= 1
            self.metrics.active.set(self._active)
            # Any name can be asked for, and a counter lives as long as the server.
            known = any(model == name for name, _ in self.repository.available())
            self.metrics.requests.labels(api, model if known else "", code).inc()
            self.metrics.seconds.labels(api).observe(time.monotonic() - start)

    def lease(self, name, version=None, label=None):
        """`Repository.lease` of a version or a label."""
        if label:
            version = self.repository.version_of(name, label)
        return self.repository.lease(name, version)

    async def predict(self, model, signature, inputs):
        """Outputs for the inputs of a request.

        Args:
            model: `SavedModel`.
            signature: `Signature`.
            inputs: Dict of arrays.

        Returns:
            Dict of arrays.
        """
        signature.check(inputs)
        pixels = 0
        for array in inputs.values():
            if array.dtype.hasobject:
                pixels += check_images(array.flat, self.settings.max_pixels)
        return await self.batcher.run(model, signature, inputs, pixels)
