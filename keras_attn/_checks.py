"""Argument checks with one voice for errors."""

import difflib
import numbers


def positive_integer(name, value, optional=False):
    """Checks that an argument is an integer of at least 1.

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        optional: Whether `None` is allowed too.

    Returns:
        `value`, a plain `int` or `None`.

    Raises:
        ValueError: If it is anything else.

    Example:

    >>> positive_integer("units", 0)
    ValueError: Expected `units` to be a positive integer. Received: units=0
    """
    if optional and value is None:
        return None
    if not is_integer(value, minimum=1):
        kind = "None or a positive integer" if optional else "a positive integer"
        _refuse(name, value, f"to be {kind}")
    return int(value)


def integer(name, value, minimum):
    """Checks that an argument is an integer of at least `minimum`.

    Returns:
        `value` as a plain `int`.

    Raises:
        ValueError: If it is anything else.
    """
    if not is_integer(value, minimum):
        _refuse(name, value, f"to be an integer of at least {minimum}")
    return int(value)


def positive_number(name, value):
    """Checks that an argument is a finite number above 0.

    Raises:
        ValueError: If it is anything else.
    """
    if not is_number(value) or not 0 < value < float("inf"):
        _refuse(name, value, "to be a positive number")
    return value


def number_in(name, value, interval):
    """Checks that an argument is a number in an interval, in the notation of maths.

    Raises:
        ValueError: If it is anything else.

    Example:

    >>> number_in("coverage", 1.5, "(0, 1]")
    ValueError: Expected `coverage` to be a number in (0, 1]. Received: coverage=1.5
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    inside = is_number(value) and low <= value <= high
    excluded = [low] * (interval[0] == "(") + [high] * (interval[-1] == ")")
    if not inside or value in excluded:
        _refuse(name, value, f"to be a number in {interval}")
    return value


def one_of(name, value, choices):
    """Checks that an argument is one of a few values.

    Raises:
        ValueError: If it is anything else; with the nearest name, if one is near.

    Example:

    >>> one_of("mode", "sun", ("sum", "mean"))
    ValueError: Expected `mode` to be one of ('sum', 'mean'). Received: mode='sun'. Did
    you mean 'sum'?
    """
    choices = tuple(choices)
    if value not in choices:
        _refuse(name, value, f"to be one of {choices}", did_you_mean(value, choices))
    return value


def did_you_mean(value, names):
    """The end of a message: the name nearest to a value, or nothing.

    Example:

    >>> did_you_mean("epoch", ["epochs", "seed"]), did_you_mean("x", ["epochs"])
    (". Did you mean 'epochs'?", '')
    """
    names = [name for name in names if isinstance(name, str)]
    nearest = difflib.get_close_matches(str(value), names, 1)
    return f". Did you mean {nearest[0]!r}?" if nearest else ""


def pair(name, value, minimum=None):
    """`value` as a pair of integers `(rows, columns)`.

    Raises:
        ValueError: If it is neither an integer nor a pair of them, or too small.
    """
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(is_integer(each, minimum) for each in both):
        kind = "an integer" if minimum is None else "a positive integer"
        _refuse(name, value, f"to be {kind} or a pair of them")
    return tuple(int(each) for each in both)


def check_shape(name, tensor, layout):
    """Checks the rank of a tensor, and the sizes that its layout gives as numbers.

    Raises:
        ValueError: If they differ.

    Example:

    >>> check_shape("boxes", np.zeros((2, 7)), "(batch, 4)")
    ValueError: Expected `boxes` of shape (batch, 4). Received: boxes.shape=(2, 7)
    """
    sizes = [size.strip() for size in layout.strip("()").split(",") if size.strip()]
    found = tuple(tensor.shape)
    if len(found) != len(sizes) or any(
        size.isdigit() and int(size) != known
        for size, known in zip(sizes, found, strict=True)
    ):
        raise ValueError(
            f"Expected `{name}` of shape {layout}. Received: {name}.shape={found}"
        )


def is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value, minimum=None):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and (minimum is None or value >= minimum)


def sides(size):
    """`(height, width)` of a size that may be given as one number."""
    return (size, size) if isinstance(size, int) else tuple(size)


def check_images(shape, patch_sizes):
    """Raises where an image is smaller than a patch, as far as sizes are known."""
    largest = [max(sizes) for sizes in zip(*patch_sizes, strict=True)]
    pairs = zip(shape[1:3], largest, strict=True)
    if any(size is not None and size < least for size, least in pairs):
        raise ValueError(
            f"Expected images of at least {largest[0]} x {largest[1]} pixels, the "
            f"largest patch. Received: {shape[1]} x {shape[2]}"
        )


def _refuse(name, value, expected, hint=""):
    raise ValueError(f"Expected `{name}` {expected}. Received: {name}={value!r}{hint}")
