"""Argument checks with one voice for errors."""

import numbers


def pair(name, value, minimum=None):
    """`value` as a pair of integers `(rows, columns)`.

    Raises:
        ValueError: If it is neither an integer nor a pair of them, or too small.
    """
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(is_integer(number, minimum) for number in both):
        positive = "" if minimum is None else "positive "
        raise ValueError(
            f"Expected `{name}` to be a {positive}integer or a pair of them. "
            f"Received: {name}={value!r}"
        )
    return tuple(int(number) for number in both)


def is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value, minimum):
    integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return integer and (minimum is None or value >= minimum)


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
