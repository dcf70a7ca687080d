"""Fields of recipes: a default, a help text, and the values that are allowed."""

import dataclasses
import functools
import math
import numbers
import typing

from keras_attn._checks import did_you_mean


def plain(default, help):
    """A text or a switch."""
    return dataclasses.field(default=default, metadata={"help": help})


def choice(default, help, *choices):
    """One of several texts."""
    metadata = {"help": help, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def number(default, help, above=None, at_least=None, below=None, at_most=None):
    """A number in a range, or a tuple of such numbers."""
    limits = Limits(above, at_least, below, at_most)
    metadata = {"help": help, "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Limits:
    """A range of numbers; a bound that is `None` does not hold."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def __contains__(self, value):
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def describe(self, noun):
        """`noun`, such as "a number", with its range."""
        article, _, noun = noun.rpartition(" ")
        if self.below is None and self.at_most is None:
            if self.above == 0:
                return f"{'a ' * bool(article)}positive {noun}"
            if self.at_least == 0:
                return f"zero or {'a ' * bool(article)}positive {noun}"
        low = f"({self.above}" if self.at_least is None else f"[{self.at_least}"
        high = f"{self.below})" if self.at_most is None else f"{self.at_most}]"
        return f"{article} {noun} in {low}, {high}".strip()


NOUNS = {
    int: "an integer",
    float: "a number",
    tuple[int, ...]: "integers",
    tuple[float, ...]: "numbers",
}


@functools.cache
def types_of(block):
    """Name -> type of the fields of a block that a user may set."""
    hints = typing.get_type_hints(block)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(block)
        if field.metadata
    }


def check(block):
    """Raises ValueError for a field of a block outside its range or choices."""
    types = types_of(type(block))
    for field in dataclasses.fields(block):
        value = getattr(block, field.name)
        if "limits" in field.metadata:
            limits, kind = field.metadata["limits"], types[field.name]
            whole = kind in (int, tuple[int, ...])
            values = value if isinstance(value, tuple) else (value,)
            if not all(_is_number(each, whole) and each in limits for each in values):
                fail(block, field.name, limits.describe(NOUNS[kind]))
        choices = field.metadata.get("choices", (value,))
        if value not in choices:
            fail(block, field.name, f"one of {', '.join(choices)}")


def _is_number(value, whole):
    return isinstance(value, numbers.Integral if whole else numbers.Real)


def fail(block, name, expected):
    """Raises ValueError for a field."""
    raise ValueError(
        f"Expected {name} of the recipe to be {expected}. "
        f"Received: {name}={getattr(block, name)!r}"
    )


def unknown(name, known, hint=""):
    """`ValueError` for a field that is not among the known ones."""
    return ValueError(
        f"Expected a field of the recipe. Received: {name!r}"
        f"{hint or did_you_mean(name, known) or '.'} Fields: {', '.join(known)}"
    )


def parse(name, text, kind):
    """The value that a text gives to a field.

    Args:
        name: Name of the field, for messages.
        text: Its value as a user writes it.
        kind: Its type.
    """
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        return as_tuple((part for part in text.split(",") if part), kind)
    except (KeyError, ValueError):
        expected = {**NOUNS, bool: "true or false"}[kind]
        separated = " separated by commas" if expected.endswith("s") else ""
        raise ValueError(
            f"Expected {name} to be {expected}{separated}. Received: {name}={text!r}"
        ) from None


def as_text(value):
    """A value as `parse` reads it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_tuple(values, kind):
    """The numbers of a tuple field, of its type where that loses nothing."""
    found = tuple(float(value) for value in values)
    if kind == tuple[int, ...] and all(value.is_integer() for value in found):
        return tuple(int(value) for value in found)
    return found
