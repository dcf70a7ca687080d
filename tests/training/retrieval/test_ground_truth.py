import json
import pickle

import numpy as np
import pytest

from keras_attn.training.retrieval.ground_truth import read_ground_truth


def truth(**changes):
    content = {
        "imlist": ["a", "b", "c", "d"],
        "qimlist": ["q0", "q1"],
        "gnd": [
            {"bbx": [1.4, 2.0, 30.6, 40.5], "easy": [0], "hard": [2, 1], "junk": []},
            {"bbx": None, "easy": [], "hard": [], "junk": [3]},
        ],
    }
    return {**content, **changes}


def entry(**changes):
    return truth(gnd=[{**truth()["gnd"][0], **changes}, truth()["gnd"][1]])


def arrays():
    content = truth()
    for each in content["gnd"]:
        for kind in ("easy", "hard", "junk"):
            each[kind] = np.array(each[kind], "int64")
    content["gnd"][0]["bbx"] = np.array(content["gnd"][0]["bbx"])
    return content


def written(folder, content):
    path = folder / "truth"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("kind", ["json", "pickle", "arrays"])
def test_reads_json_and_pickle(tmp_path, kind):
    path = tmp_path / "gnd.pkl"
    if kind == "json":
        path.write_text("\ufeff\n" + json.dumps(truth()), "utf-8")
    else:
        path.write_bytes(pickle.dumps(arrays() if kind == "arrays" else truth()))
    found = read_ground_truth(path)
    assert found.images == ("a", "b", "c", "d") and found.queries == ("q0", "q1")
    # Rounded as Pillow's `crop` does, half to even.
    assert found.boxes == ((2, 1, 40, 31), None)
    first, second = found.judgements
    assert {name: x.tolist() for name, x in first.items()} == {
        "easy": [0],
        "hard": [2, 1],
        "junk": [],
    }
    assert second["junk"].tolist() == [3] and second["easy"].dtype == "int64"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged JSON"),
        ([1], "holds no dictionary"),
        ({"imlist": ["a"]}, "without qimlist and gnd"),
        (truth(imlist=[]), "imlist is not a list of names"),
        (truth(qimlist=["q0", 7]), "qimlist is not a list of names"),
        (truth(gnd=[]), "gnd is not a list of 2 entries"),
        (truth(gnd=[{}, {}]), r"gnd\[0\] has not all of easy, hard, junk"),
        (entry(bbx=[1, 2, 3]), r"gnd\[0\]\['bbx'\] is not \[x0, y0, x1, y1\]"),
        (entry(bbx=[1, 2, 3, None]), r"is not \[x0, y0, x1, y1\]"),
        (entry(bbx=[30, 2, 30, 9]), "is an empty box"),
        (entry(easy=[0.5]), r"gnd\[0\]\['easy'\] is not a list of integers"),
        (entry(hard="12"), r"gnd\[0\]\['hard'\] is not a list of integers"),
        (entry(junk=[[3]]), r"gnd\[0\]\['junk'\] is not a list of integers"),
        (entry(junk=[[3], 1]), r"gnd\[0\]\['junk'\] is not a list of integers"),
        (entry(easy=[4]), r"gnd\[0\] names image 4 of 4"),
        (entry(easy=[-1]), r"gnd\[0\] names image -1 of 4"),
        (entry(easy=[2]), r"gnd\[0\] names image 2 more than once"),
    ],
)
def test_errors_are_one_line_with_the_mistake_and_its_place(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_ground_truth(written(tmp_path, content))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_ground_truth_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist or is a folder"):
        read_ground_truth(tmp_path)
    with pytest.raises(ValueError, match="pickle file.*damaged"):
        read_ground_truth(written(tmp_path, "imlist: a"))
