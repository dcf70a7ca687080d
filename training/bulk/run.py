"""Running the plan of a bulk job: its queue of shards, and the runners."""

import collections
import random
import re
import socket

from keras_attn._checks import one_of, positive_integer
from keras_attn.training.bulk.plan import ATTEMPTS, images_in

RUNNERS = ("local", "ray")


def run(
    plan,
    runner="local",
    workers=1,
    part=(1, 1),
    address=None,
    retry=False,
    progress=None,
):
    """Computes the shards of a plan that are missing.

    Several calls, on several hosts too, may work on one plan at once. A shard that ends
    its worker three times is set aside.

    Args:
        plan: `Plan`, as `Plan.make` or `Plan.open` returns it.
        runner: `"local"`: processes of this machine; `"ray"`: actors of Ray.
        workers: Number of them.
        part: `(I, N)`: only the shards I, I + N, I + 2 N, ... are computed.
        address: Address of a Ray cluster; `None` for one of this machine alone.
        retry: Whether to try shards again that are set aside.
        progress: Called with (images done, images in all) now and then.

    Returns:
        The `State` of the part.

    Raises:
        ImportError: If Ray is missing.
        ValueError: If a worker meets an error of the input or the surroundings.
        KeyboardInterrupt: With a message on how to resume.
    """
    one_of("runner", runner, RUNNERS)
    positive_integer("workers", workers)
    if address is not None and runner != "ray":
        raise ValueError(
            f"Expected an address with the runner ray. Received: address={address!r}, "
            f"runner={runner!r}"
        )
    if retry:
        plan.forget(shards=plan.state(part).aside)
    queue = Queue(plan, part, progress)
    try:
        if runner == "ray":
            from keras_attn.training.bulk.on_ray import run_on_ray

            run_on_ray(queue, workers, address)
        else:
            from keras_attn.training.bulk.local import run_local

            run_local(queue, workers)
    except KeyboardInterrupt:
        state = plan.state(part)
        raise KeyboardInterrupt(
            f"Interrupted. The results of {state.done} of {state.images} images are "
            "there; the same command resumes."
        ) from None
    return plan.state(part)


class Queue:
    """The shards of a plan that are still to be computed, by number.

    Args:
        plan: `Plan`.
        part: See `run`.
        progress: See `run`.
    """

    def __init__(self, plan, part, progress):
        self.plan, self.progress = plan, progress
        self.all = plan.shards()
        state, counts = plan.state(part), plan.attempts()
        self.images, self.done = state.images, state.done
        numbers = [shard.start // plan.shard for shard in state.waiting]
        # Several drivers in one folder begin at different places.
        turn = random.randrange(len(numbers)) if numbers else 0
        numbers = numbers[turn:] + numbers[:turn]
        # A shard that ended a worker keeps no other waiting.
        numbers.sort(key=lambda number: counts[self.all[number].start])
        self.waiting = collections.deque(numbers)
        self.running = set()
        self._show()

    def open(self):
        """Number of shards that wait or are computed."""
        return len(self.waiting) + len(self.running)

    def next(self):
        """The number of a shard to compute, or `None`."""
        while self.waiting:
            number = self.waiting.popleft()
            if not self.all[number].path.exists():
                self.running.add(number)
                return number
            self._count(number)
        return None

    def finished(self, number):
        self.running.discard(number)
        self._count(number)

    def died(self, number):
        """The worker of a shard ended."""
        self.running.discard(number)
        if self.attempts(number) < ATTEMPTS:
            self.waiting.append(number)

    def attempts(self, number):
        """Attempts at a shard that did not end."""
        return self.plan.attempts()[self.all[number].start]

    @staticmethod
    def writer(pid):
        """See `keras_attn.training.bulk.plan.this_process`, of another process."""
        return f"{socket.gethostname()}-{pid}"

    def _count(self, number):
        self.done += images_in([self.all[number]])
        self._show()

    def _show(self):
        if self.progress is not None:
            self.progress(self.done, self.images)


def part_of(text):
    """`(I, N)` of a text `I/N`.

    Raises:
        ValueError: If it is not one, or I is not in 1..N.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    part = tuple(map(int, found.groups())) if found else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise ValueError(
            f"Expected a part I/N with I from 1 to N, such as 2/8. Received: {text!r}"
        )
    return part
