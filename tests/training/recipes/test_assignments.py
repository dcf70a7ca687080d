import pytest

from keras_attn.training.recipes.assignments import split_assignment


def test_the_first_equals_sign_splits():
    assert split_assignment("split=a=b") == ("split", "a=b")
    assert split_assignment("decay_at=") == ("decay_at", "")


@pytest.mark.parametrize("text", ["epochs", "=3", ""])
def test_what_is_no_assignment(text):
    with pytest.raises(ValueError, match=r"Expected NAME=A,B. Received: '"):
        split_assignment(text, "NAME=A,B")
