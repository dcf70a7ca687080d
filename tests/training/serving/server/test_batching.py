import asyncio
import threading
import time

import numpy as np
import pytest

from keras_attn.training.serving.server.batching import Batcher
from keras_attn.training.serving.server.errors import ServingError
from keras_attn.training.serving.server.images import TOGETHER
from keras_attn.training.serving.server.loaded_model import Signature, TensorSpec

BATCHED = Signature(
    "double", {"x": TensorSpec(None, (None, None))}, {"y": TensorSpec(None, (None,))}
)
SINGLE = Signature("one", {"x": TensorSpec(None, (3,))}, {"y": TensorSpec(None, ())})


class Doubler:
    """Doubles; refuses negative numbers; can be held back."""

    def __init__(self):
        self.batches = []
        self.open = threading.Event()
        self.open.set()

    def run(self, signature, inputs, cancellation=None):
        self.open.wait(20)
        self.batches.append(inputs["x"].shape)
        if (inputs["x"] < 0).any():
            raise ServingError("INVALID_ARGUMENT", "negative")
        return {"y": 2 * inputs["x"]}


def rows(*values):
    return {"x": np.array(values, "float32")[:, None]}


def run(test, **changes):
    async def main():
        batcher = Batcher(
            **{"max_batch": 8, "timeout": 5, "max_pixels": 100 * TOGETHER, **changes}
        )
        try:
            return await asyncio.wait_for(test(batcher), 20)
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(main())


def test_requests_are_joined_and_each_gets_its_own():
    model = Doubler()

    async def test(batcher):
        asked = [rows(1), rows(2, 3), rows(4, 5, 6), rows(7, 8)]
        return await asyncio.gather(
            *(batcher.run(model, BATCHED, inputs) for inputs in asked)
        )

    answers = run(test)
    assert [answer["y"].ravel().tolist() for answer in answers] == [
        [2],
        [4, 6],
        [8, 10, 12],
        [14, 16],
    ]
    # Full, so it did not wait for the timeout.
    assert model.batches == [(8, 1)]


def test_a_request_alone_goes_after_the_timeout():
    model = Doubler()

    async def test(batcher):
        return await batcher.run(model, BATCHED, rows(1))

    assert run(test, timeout=0.01)["y"].tolist() == [[2]]


def test_a_batch_never_grows_beyond_its_limit():
    model = Doubler()
    model.open.clear()

    async def test(batcher):
        asked = [
            asyncio.create_task(batcher.run(model, BATCHED, rows(*range(3))))
            for _ in range(6)
        ]
        await asyncio.sleep(0)
        model.open.set()
        await asyncio.gather(*asked)

    run(test, timeout=0)
    assert sum(shape[0] for shape in model.batches) == 18
    assert max(shape[0] for shape in model.batches) <= 8


def test_one_that_is_bad_fails_alone():
    model = Doubler()

    async def test(batcher):
        asked = [rows(k if k != 5 else -1) for k in range(8)]
        return await asyncio.gather(
            *(batcher.run(model, BATCHED, inputs) for inputs in asked),
            return_exceptions=True,
        )

    answers = run(test)
    assert isinstance(answers.pop(5), ServingError)
    assert [answer["y"].item() for answer in answers] == [0, 2, 4, 6, 8, 12, 14]
    # All, and then halves of what failed.
    assert [shape[0] for shape in model.batches] == [8, 4, 4, 2, 1, 1, 2]


def test_only_what_fits_is_joined():
    models = [Doubler(), Doubler()]

    async def test(batcher):
        await asyncio.gather(
            batcher.run(models[0], BATCHED, rows(1)),
            batcher.run(models[0], BATCHED, {"x": np.zeros((1, 2))}),
            batcher.run(models[1], BATCHED, rows(1)),
            batcher.run(models[0], SINGLE, {"x": np.zeros(3)}),
            batcher.run(models[0], SINGLE, {"x": np.zeros(3)}),
            batcher.run(models[0], BATCHED, {"x": np.zeros((0, 1))}),
        )

    run(test, timeout=0.1)
    assert sorted(models[0].batches) == [(0, 1), (1, 1), (1, 2), (3,), (3,)]
    assert models[1].batches == [(1, 1)]


def test_large_images_are_not_joined():
    model = Doubler()

    async def test(batcher):
        await asyncio.gather(
            *(
                batcher.run(model, BATCHED, rows(k), pixels=TOGETHER * 100 // 2)
                for k in range(6)
            )
        )

    run(test, timeout=0.05)
    assert [shape[0] for shape in model.batches] == [2, 2, 2]


def test_too_many_examples_are_refused():
    async def test(batcher):
        await batcher.run(Doubler(), BATCHED, rows(*range(9)))

    with pytest.raises(ServingError, match="at most 8"):
        run(test)


def test_what_is_no_longer_wanted_is_not_run():
    model = Doubler()
    model.open.clear()

    async def test(batcher):
        first = asyncio.create_task(batcher.run(model, BATCHED, rows(1)))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(batcher.run(model, BATCHED, rows(2)))
        await asyncio.sleep(0.05)
        second.cancel()
        model.open.set()
        return await first

    run(test, timeout=0)
    assert model.batches == [(1, 1)]


def test_closing_finishes_what_waits():
    model = Doubler()

    async def test(batcher):
        asked = asyncio.create_task(batcher.run(model, BATCHED, rows(1)))
        await asyncio.sleep(0.01)
        await asyncio.to_thread(batcher.close)
        with pytest.raises(ServingError, match="stopping"):
            await batcher.run(model, BATCHED, rows(2))
        return await asked

    assert run(test, timeout=10)["y"].tolist() == [[2]]


def test_outputs_that_are_not_a_row_for_each_example_are_asked_for_one_by_one():
    class Summer(Doubler):
        def run(self, signature, inputs, cancellation=None):
            super().run(signature, inputs)
            return {"y": inputs["x"].sum(axis=0)}

    async def test(batcher):
        model = Summer()
        return await asyncio.gather(
            *(batcher.run(model, BATCHED, rows(k, k)) for k in range(4))
        )

    assert [answer["y"].item() for answer in run(test)] == [0, 2, 4, 6]


class Endless:
    """Computes until it is cancelled."""

    def __init__(self):
        self.started, self.ended = threading.Event(), threading.Event()

    def run(self, signature, inputs, cancellation):
        self.started.set()
        while not cancellation.is_cancelled:
            time.sleep(0.001)
        self.ended.set()
        raise ServingError("CANCELLED", "cancelled")


def test_a_batch_is_given_up_after_its_time():
    async def test(batcher):
        asked = [batcher.run(Endless(), BATCHED, rows(1)) for _ in range(2)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [answer.code for answer in answers] == ["DEADLINE_EXCEEDED"] * 2
        return await batcher.run(Doubler(), BATCHED, rows(1))

    assert run(test, timeout=0.01, deadline=0.05)["y"] == 2


def test_a_batch_is_given_up_when_all_of_its_clients_have_gone():
    model = Endless()

    async def test(batcher):
        asked = [
            asyncio.create_task(batcher.run(model, BATCHED, rows(*range(4))))
            for _ in range(2)
        ]
        await asyncio.to_thread(model.started.wait, 20)
        asked[0].cancel()
        await asyncio.sleep(0.05)
        assert not model.ended.is_set()
        asked[1].cancel()
        assert await asyncio.to_thread(model.ended.wait, 20)

    run(test)
