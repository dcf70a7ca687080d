import numpy as np

from keras_attn.training.experiments.studies.prompt_attention import parts_apart


def test_parts_that_set_a_class_apart():
    """Of the ring of ten, class 0 differs in the beak from 1, in the crest from 9."""
    boxes = np.full((2, 5, 4), -1)
    # Beak, wing, tail; the wing overlaps the beak. No crest is visible.
    boxes[0, :3] = [(0, 0, 2, 2), (1, 0, 3, 2), (4, 4, 6, 6)]
    # Class 9 differs from 8 in the foot.
    boxes[1, 3:] = [(0, 0, 1, 1), (2, 2, 3, 4)]
    ours, others = parts_apart(boxes, np.array([0, 9]), np.zeros((2, 6, 6, 3)))
    wanted = np.zeros((2, 6, 6), bool)
    wanted[0, :2, :2] = wanted[1, :1, :1] = wanted[1, 2:3, 2:4] = True
    np.testing.assert_array_equal(ours, wanted)
    wanted = np.zeros((2, 6, 6), bool)
    wanted[0, 2:3, :2] = wanted[0, 4:, 4:] = True
    np.testing.assert_array_equal(others, wanted)
