import numpy as np
import pytest

from keras_attn.metrics import energy_inside_box, pointing_game

BOXES = np.array([[1, 2, 3, 6], [0, 0, 5, 1]])


def peak(*places, size=(5, 7)):
    maps = np.zeros((len(places), *size))
    for n, place in enumerate(places):
        maps[n][place] = 1
    return maps


@pytest.mark.parametrize(
    "place, wanted", [((1, 2), 1), ((2, 5), 1), ((3, 5), 0), ((2, 6), 0), ((0, 2), 0)]
)
def test_boxes_are_half_open(place, wanted):
    found = pointing_game(peak(place), BOXES[:1])
    assert found.dtype == bool and found.tolist() == [bool(wanted)]
    assert energy_inside_box(peak(place), BOXES[:1]).tolist() == [wanted]


def test_tolerance_widens_the_box():
    maps = peak((3, 5), (4, 5))
    boxes = np.stack([BOXES[0]] * 2)
    assert pointing_game(maps, boxes, tolerance=1).tolist() == [True, False]
    assert pointing_game(maps, boxes, tolerance=2).tolist() == [True, True]


def test_several_boxes_and_absent_ones():
    boxes = np.array([[[0, 0, 2, 3], [1, 2, 3, 6]], [[0, 0, 2, 3], [-1] * 4]])
    maps = peak((2, 5), (2, 5))
    assert pointing_game(maps, boxes).tolist() == [True, False]
    # The two boxes overlap in one of 6 + 8 pixels.
    constant = np.ones((2, 5, 7))
    np.testing.assert_allclose(energy_inside_box(constant, boxes), [13 / 35, 6 / 35])


def test_energy_is_the_share_of_the_sum():
    maps = np.random.default_rng(0).uniform(size=(2, 5, 7))
    wanted = [
        maps[n, y0:y1, x0:x1].sum() / maps[n].sum()
        for n, (y0, x0, y1, x1) in enumerate(BOXES)
    ]
    np.testing.assert_allclose(energy_inside_box(maps, BOXES), wanted)


def test_maps_that_say_nothing_are_misses():
    everything = [[0, 0, 5, 7]] * 2
    maps = np.stack([np.zeros((5, 7)), np.ones((5, 7))])
    assert pointing_game(maps, everything).tolist() == [False, False]
    assert energy_inside_box(maps, everything).tolist() == [0, 1]


@pytest.mark.parametrize("measure", [pointing_game, energy_inside_box])
def test_refuses_wrong_arguments(measure):
    maps = np.ones((2, 5, 7))
    with pytest.raises(ValueError, match=r"\(1, 1, 4\)"):
        measure(maps, BOXES[:1])
    with pytest.raises(ValueError, match="box for every image.*1 images.*first is 1"):
        measure(maps, [[0, 0, 1, 1], [-1] * 4])
    with pytest.raises(ValueError, match="finite"):
        measure(np.full((2, 5, 7), np.inf), BOXES)
    with pytest.raises(ValueError, match="not negative"):
        energy_inside_box(-maps, BOXES)
