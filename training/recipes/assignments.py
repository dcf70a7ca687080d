"""`key=value` texts, as `--set`, the generated data set and `tune` take them."""


def split_assignment(text, expected="--set key=value"):
    """Splits `key=value` into key and value, both texts; the value may be empty.

    Raises:
        ValueError: If there is no `=`, or no key; with the form that is `expected`.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"Expected {expected}. Received: {text!r}")
    return key, value
