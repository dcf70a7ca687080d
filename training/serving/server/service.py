"""Handling of requests, shared by both interfaces."""

import asyncio
import concurrent.futures
import contextlib
import time
import traceback

from keras_attn.training.serving.server.batching import Batcher
from keras_attn.training.serving.server.errors import ServingError
from keras_attn.training.serving.server.images import TOGETHER, check_images

# Requests with more pixels of encoded images than this are computed beside the others,
# which need not wait for them; together such others may have four times as many.
LARGE_PIXELS = 2**22
# Bytes of encoded images whose headers are read in a thread.
LARGE_BYTES = 2**16
LOGGED = 300


class Service:
    """The models, the queues, the limits and the counters.

    Args:
        settings: `Settings`.
        repository: `Repository`.
        metrics: `Metrics`.
        report: Function that is called with a line of text on every refusal.
    """

    def __init__(self, settings, repository, metrics, report):
        self.settings = settings
        self.repository = repository
        self.metrics = metrics
        self.stopping = False
        self._report = report
        self._active = 0
        # Requests that are being received, the oldest first.
        self._arriving = {}
        shared = (settings.max_batch, settings.batch_timeout_ms / 1000)
        observe = metrics.batches.observe
        self._batcher = Batcher(*shared, 4 * LARGE_PIXELS, observe)
        self._large = Batcher(
            *shared, TOGETHER * settings.max_pixels, observe, settings.decoding_seconds
        )
        self._readers = concurrent.futures.ThreadPoolExecutor(4, "images")

    @property
    def waiting(self):
        """Number of requests in the queues."""
        return self._batcher.waiting + self._large.waiting

    def close(self, seconds):
        """`Batcher.close` of both queues."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        for batcher in (self._batcher, self._large):
            batcher.close(seconds)

    def refused(self, api, what, error):
        """Writes one line about a `ServingError`."""
        line = f"{api} {what}: {error.code}, {error.message}"
        self._report("".join(c if c.isprintable() else " " for c in line[:LOGGED]))

    async def receive(self, read):
        """The result of a coroutine that receives a request.

        A client that sends slowly takes no place in the queue; when too many do, the
        one that began first is let go.

        Raises:
            ServingError: If it takes too long.
        """
        task = asyncio.ensure_future(read)
        self._arriving[task] = None
        if len(self._arriving) > 2 * self.settings.queue:
            next(iter(self._arriving)).cancel()
        seconds = self.settings.patience_seconds
        try:
            async with asyncio.timeout(seconds):
                return await task
        except TimeoutError:
            raise ServingError(
                "DEADLINE_EXCEEDED",
                f"The body did not arrive within {seconds:g} s",
                408,
            ) from None
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # The client has gone.
                raise
            raise ServingError(
                "UNAVAILABLE", "Too many requests arrive; try again in a moment"
            ) from None
        finally:
            del self._arriving[task]
            task.cancel()

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
        if signature.name in model.decoding:
            pixels = await self._pixels(inputs)
        batcher = self._large if pixels > LARGE_PIXELS else self._batcher
        return await batcher.run(model, signature, inputs, pixels)

    async def _pixels(self, inputs):
        arrays = [array for array in inputs.values() if array.dtype.hasobject]
        images = [data for array in arrays for data in array.flat]
        limit = self.settings.max_pixels
        if sum(map(len, images)) <= LARGE_BYTES:
            return check_images(images, limit)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, check_images, images, limit)
