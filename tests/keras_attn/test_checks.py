import fractions

import numpy as np
import pytest

from keras_attn._checks import (
    check_shape,
    did_you_mean,
    integer,
    number_in,
    one_of,
    pair,
    positive_integer,
    positive_number,
)


def refuses(check, *arguments, message, **options):
    with pytest.raises(ValueError) as caught:
        check(*arguments, **options)
    assert str(caught.value) == message


def test_integers():
    assert positive_integer("units", 1) == 1
    assert type(positive_integer("units", np.int32(7))) is int
    assert positive_integer("units", None, optional=True) is None
    assert integer("seed", 0, minimum=0) == 0
    for value in (0, -3, 2.0, "2", True, None):
        message = f"Expected `n` to be a positive integer. Received: n={value!r}"
        refuses(positive_integer, "n", value, message=message)
    message = "Expected `n` to be None or a positive integer. Received: n=0"
    refuses(positive_integer, "n", 0, optional=True, message=message)
    message = "Expected `n` to be an integer of at least 2. Received: n=1"
    refuses(integer, "n", 1, minimum=2, message=message)


def test_positive_numbers():
    for value in (1, 1e-9, np.float32(2), fractions.Fraction(1, 3)):
        assert positive_number("scale", value) is value
    for value in (0, -1.0, float("nan"), float("inf"), "1", True):
        message = f"Expected `n` to be a positive number. Received: n={value!r}"
        refuses(positive_number, "n", value, message=message)


@pytest.mark.parametrize(
    "interval, inside, outside",
    [
        ("[0, 1]", [0, 0.5, 1], [-0.1, 1.1]),
        ("(0, 1]", [1e-9, 1], [0, 2]),
        ("[0, 1)", [0, 0.99], [1]),
        ("(0, 1)", [0.5], [0, 1]),
        ("[0, inf)", [0, 1e300], [-1e-9, float("inf")]),
    ],
)
def test_numbers_in_intervals(interval, inside, outside):
    for value in inside:
        assert number_in("share", value, interval) == value
    for value in [*outside, float("nan"), "0.5", None, True]:
        message = f"Expected `x` to be a number in {interval}. Received: x={value!r}"
        refuses(number_in, "x", value, interval, message=message)


def test_choices_and_the_nearest_name():
    assert one_of("mode", None, (None, "sum")) is None
    message = (
        "Expected `mode` to be one of (None, 'sum', 'mean'). Received: mode='sun'. "
        "Did you mean 'sum'?"
    )
    refuses(one_of, "mode", "sun", (None, "sum", "mean"), message=message)
    message = "Expected `mode` to be one of ('sum',). Received: mode=['sum', 1]"
    refuses(one_of, "mode", ["sum", 1], {"sum": 1}, message=message)
    assert did_you_mean("quite another", {"sum": 1}) == ""
    assert did_you_mean("epoch", ["seed", "epochs"]) == ". Did you mean 'epochs'?"


def test_pairs():
    assert pair("size", 3) == pair("size", [3, np.int64(3)]) == (3, 3)
    assert pair("offset", (-1, 0)) == (-1, 0)
    message = "Expected `size` to be a positive integer or a pair of them. "
    for value in (0, (3, 0), (1, 2, 3), 1.5, "ab", (True, 1)):
        refuses(pair, "size", value, 1, message=f"{message}Received: size={value!r}")


def test_shapes():
    check_shape("boxes", np.zeros((2, 5, 4)), "(batch, K, 4)")
    check_shape("labels", np.zeros(3), "(batch,)")
    message = "Expected `x` of shape (batch, 2). Received: x.shape=(7, 3)"
    refuses(check_shape, "x", np.zeros((7, 3)), "(batch, 2)", message=message)
    message = "Expected `x` of shape (batch,). Received: x.shape=()"
    refuses(check_shape, "x", np.zeros(()), "(batch,)", message=message)
