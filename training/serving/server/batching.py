"""Batches of requests for the same function, run one at a time.

TensorFlow spreads one batch over all cores; two at a time would only share them.
"""

import asyncio
import collections
import contextlib
import dataclasses
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from keras_attn.training.serving.server.errors import ServingError, invalid

if TYPE_CHECKING:
    from keras_attn.training.serving.server.loaded_model import SavedModel, Signature

GIVEN_UP = "DEADLINE_EXCEEDED"


@dataclasses.dataclass(eq=False)
class Task:
    """A waiting request.

    Args:
        model: The model that it is for.
        signature, inputs: See `SavedModel.run`.
        size: Number of examples; `None` if it cannot be joined with others.
        pixels: Number of pixels of its encoded images.
        future: Future that receives the outputs.
        arrival: Time of `time.monotonic()`.
    """

    model: "SavedModel"
    signature: "Signature"
    inputs: dict
    size: int | None
    pixels: int
    future: asyncio.Future
    arrival: float


class Batcher:
    """A queue and the thread that works on it.

    Args:
        max_batch: Limit of a batch in examples.
        timeout: Seconds that a request waits for others to join it.
        max_pixels: Limit of a batch in pixels of encoded images.
        observe: Function that is called with the number of examples of each batch.
        deadline: Seconds after which a batch is given up; by default never.
    """

    def __init__(
        self, max_batch, timeout, max_pixels, observe=lambda size: None, deadline=None
    ):
        self.max_batch = max_batch
        self._timeout = timeout
        self._max_pixels = max_pixels
        self._observe = observe
        self._deadline = deadline
        # The tasks of the batch that runs, and what cancels it.
        self._running, self._given_up = ((), None), False
        self._loop = asyncio.get_running_loop()
        # From what can be joined to its tasks, the oldest first.
        self._waiting = {}
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self):
        with self._condition:
            return sum(map(len, self._waiting.values()))

    async def run(self, model, signature, inputs, pixels=0):
        """Outputs of a request, which may be joined with others.

        Args:
            model: `SavedModel`.
            signature, inputs: See `SavedModel.run`.
            pixels: Number of pixels of its encoded images.

        Raises:
            ServingError: If the request is too large, or fails by itself.
        """
        size = signature.batch_size(inputs)
        if size is not None and size > self.max_batch:
            raise invalid(
                f"Expected at most {self.max_batch} examples in a request. "
                f"Received: {size}"
            )
        future = self._loop.create_future()
        task = Task(model, signature, inputs, size, pixels, future, time.monotonic())
        # Tasks that are joined have the same shapes but for the number of examples. An
        # empty one is run by itself, since TensorFlow may well refuse it.
        key = object() if not size else (model, signature.name, _shapes(inputs))
        with self._condition:
            if self._closed:
                raise ServingError("UNAVAILABLE", "The server is stopping")
            self._waiting.setdefault(key, collections.deque()).append(task)
            self._condition.notify()
        try:
            return await future
        except asyncio.CancelledError:
            self._give_up(only_left=True)
            raise

    def close(self, seconds=None):
        """Finishes the waiting requests and ends the thread.

        Args:
            seconds: Time after which the batch that runs is given up.
        """
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join(seconds)
        self._give_up()
        self._thread.join(seconds)

    def _give_up(self, only_left=False):
        """Ends the batch that runs; or only if all of its clients have gone."""
        with self._condition:
            tasks, cancellation = self._running
            left = all(task.future.cancelled() for task in tasks)
            if cancellation is not None and (left or not only_left):
                self._given_up = True
                cancellation.start_cancel()

    # ---- in the thread ---------------------------------------------------------------

    def _work(self):
        while (tasks := self._next()) is not None:
            tasks = [task for task in tasks if not task.future.cancelled()]
            if tasks:
                answers = list(self._answers(tasks))
                # Whoever waited has gone if the loop is closed.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_give, answers)
            # Nothing of the last batch is kept while the thread waits for the next.
            tasks = answers = None

    def _next(self):
        """The tasks of the next batch, or None at the end."""
        with self._condition:
            while True:
                if not self._waiting:
                    if self._closed:
                        return None
                    self._condition.wait()
                    continue
                key = min(self._waiting, key=self._due)
                remaining = self._due(key) - time.monotonic()
                if remaining <= 0 or self._closed:
                    return self._take(key)
                self._condition.wait(remaining)

    def _due(self, key):
        """Time at which a batch starts; a full one is due since its first task."""
        tasks = self._waiting[key]
        full = tasks[0].size in (None, 0, self.max_batch) or (
            len(tasks) > 1 and sum(task.size for task in tasks) >= self.max_batch
        )
        return tasks[0].arrival + (0 if full else self._timeout)

    def _take(self, key):
        queue = self._waiting[key]
        taken = [queue.popleft()]
        size, pixels = taken[0].size, taken[0].pixels
        while queue:
            size, pixels = size + queue[0].size, pixels + queue[0].pixels
            if size > self.max_batch or pixels > self._max_pixels:
                break
            taken.append(queue.popleft())
        if not queue:
            del self._waiting[key]
        return taken

    def _answers(self, tasks):
        """Pairs of a task and its outputs or error.

        One bad request must not fail the others, so a batch that fails is tried again
        in halves.
        """
        try:
            yield from self._run(tasks)
        except Exception as error:
            if len(tasks) == 1 or getattr(error, "code", "") == GIVEN_UP:
                yield from ((task, error) for task in tasks)
                return
            middle = len(tasks) // 2
            yield from self._answers(tasks[:middle])
            yield from self._answers(tasks[middle:])

    def _run(self, tasks):
        first = tasks[0]
        sizes = [task.size for task in tasks]
        if len(tasks) == 1:
            self._observe(first.size or 1)
            return [(first, self._outputs(tasks, first.inputs))]
        joined = {
            name: np.concatenate([task.inputs[name] for task in tasks])
            for name in first.inputs
        }
        self._observe(sum(sizes))
        outputs = self._outputs(tasks, joined)
        if any(value.shape[:1] != (sum(sizes),) for value in outputs.values()):
            raise ValueError("The outputs do not have the batch size of the inputs")
        ends = np.cumsum(sizes)
        return [
            (task, {name: value[start:end] for name, value in outputs.items()})
            for task, start, end in zip(tasks, ends - sizes, ends, strict=True)
        ]

    def _outputs(self, tasks, inputs):
        from tensorflow.python.eager.cancellation import CancellationManager

        cancellation = CancellationManager()
        first = tasks[0]
        watch = threading.Timer(self._deadline or 0, self._give_up)
        with self._condition:
            self._running, self._given_up = (tasks, cancellation), False
        if self._deadline:
            watch.start()
        try:
            return first.model.run(first.signature, inputs, cancellation)
        except ServingError as error:
            if self._given_up:
                text = "The request was given up: it took too long"
                raise ServingError(GIVEN_UP, text) from error
            raise
        finally:
            watch.cancel()
            with self._condition:
                self._running = ((), None)


def _shapes(inputs):
    return tuple((name, inputs[name].shape[1:]) for name in sorted(inputs))


def _give(answers):
    for task, answer in answers:
        if task.future.done():
            continue
        if isinstance(answer, Exception):
            task.future.set_exception(answer)
        else:
            task.future.set_result(answer)
