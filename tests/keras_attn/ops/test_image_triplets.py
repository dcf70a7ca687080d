import numpy as np
import pytest
from keras import ops

from keras_attn.ops.image_triplets import triplets


def slow_triplets(labels):
    """A walk through the batch for every image."""
    count = len(labels)
    positive, negative, valid = [], [], []
    for i in range(count):
        others = [(i + step) % count for step in range(1, count)]
        mates = [j for j in others if labels[j] == labels[i]]
        strangers = [j for j in others if labels[j] != labels[i]]
        positive.append(mates[0] if mates else i)
        negative.append(strangers[0] if strangers else i)
        valid.append(bool(mates) and bool(strangers))
    return positive, negative, valid


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2, 0, 1, 2, 0],
        [3, 3, 3, 3, 3, 3, 3],
        [6, 5, 4, 3, 2, 1, 0],
        *np.random.default_rng(0).integers(0, 4, (4, 7)).tolist(),
        [4],
    ],
)
def test_equals_a_walk_through_the_batch(labels):
    found = triplets(np.array(labels, "int32"))
    for one, wanted in zip(found, slow_triplets(labels), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), wanted)


def test_labels_of_any_dtype():
    for dtype in ("float32", "int64", "uint8"):
        positive, negative, valid = triplets(np.array([5, 7, 5, 9], dtype))
        np.testing.assert_array_equal(ops.convert_to_numpy(positive), [2, 1, 0, 3])
        np.testing.assert_array_equal(ops.convert_to_numpy(negative), [1, 2, 3, 0])
        np.testing.assert_array_equal(ops.convert_to_numpy(valid), [1, 0, 1, 0])


def test_refuses_labels_of_another_rank():
    with pytest.raises(ValueError, match=r"labels.shape=\(2, 1\)"):
        triplets(np.zeros((2, 1)))
