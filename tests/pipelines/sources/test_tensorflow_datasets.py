"""Fine-grained data sets from files that TensorFlow Datasets has prepared.

How other data sets are read by its means is tested in `test_sources.py`.
"""

import numpy as np
import pytest

from keras_attn.pipelines.sources import load_source
from keras_attn.pipelines.sources.catalogue import KNOWN


def pictures(sizes, **features):
    """Examples of pictures of the sizes; the features are lists of one value each."""
    for number, size in enumerate(sizes):
        image = np.random.default_rng(number).integers(0, 256, (*size, 3), "uint8")
        values = {key: column[number] for key, column in features.items()}
        yield f"{number}", {"image": image, **values}


def prepare(datasets, name, data_dir, **parts):
    """Files as TensorFlow Datasets has them once it has prepared the data set."""
    builder = datasets.builder(name, data_dir=data_dir)
    datasets.dataset_builders.AdhocBuilder(
        name=name,
        version=str(builder.version),
        features=builder.info.features,
        split_datasets=parts,
        data_dir=data_dir,
        file_format="array_record",
    ).download_and_prepare()
    return builder


def shares(datasets, boxes, sizes):
    """Boxes (y0, x0, y1, x1) divided by their images' sizes."""
    return [
        datasets.features.BBox(y0 / height, x0 / width, y1 / height, x1 / width)
        for (y0, x0, y1, x1), (height, width) in zip(boxes, sizes, strict=True)
    ]


@pytest.mark.filterwarnings("ignore")
def test_cars_from_tensorflow_datasets(tmp_path):
    datasets = pytest.importorskip("tensorflow_datasets")
    sizes = [(41, 600), (333, 257), (20, 30)]
    # First and last pixel, counted from 1, as in the official files.
    boxes = [(1, 1, 41, 600), (100, 200, 301, 257), (3, 4, 3, 9)]
    bbox = shares(datasets, boxes, sizes)
    columns = {"bbox": bbox, "label": [195, 0, 7], "id": ["a", "b", "c"]}
    test = {"bbox": bbox[2:], "label": [3], "id": ["d"]}
    builder = prepare(
        datasets,
        "cars196",
        tmp_path,
        train=pictures(sizes, **columns),
        test=pictures(sizes[2:], **test),
    )
    source = load_source("stanford_cars", data_dir=tmp_path)
    assert source.class_names == tuple(builder.info.features["label"].names)
    assert len(source.class_names) == KNOWN["stanford_cars"].num_classes
    found = {
        (int(label), *size): box
        for label, size, box in zip(
            source.labels,
            source.annotations["size"].tolist(),
            source.annotations["box"].tolist(),
            strict=True,
        )
    }
    assert found == {
        (195, 41, 600): [0, 0, 41, 600],
        (0, 333, 257): [99, 199, 301, 257],
        (7, 20, 30): [2, 3, 3, 9],
        (3, 20, 30): [2, 3, 3, 9],
    }
    assert source.official["test"].tolist() == [3] and source.labels[3] == 3
    assert source.array(3).shape == (20, 30, 3)
    assert source.licence == KNOWN["stanford_cars"].licence


@pytest.mark.filterwarnings("ignore")
def test_birds_from_tensorflow_datasets_carry_their_names(tmp_path):
    datasets = pytest.importorskip("tensorflow_datasets")
    sizes = [(40, 50), (50, 40)]
    bbox = shares(datasets, [(2, 6, 27, 36), (0, 0, 50, 40)], sizes)
    columns = {
        "bbox": bbox,
        "label": [0, 199],
        "label_name": ["black_footed_albatross", "common_yellowthroat"],
        "image/filename": ["a", "b"],
        "segmentation_mask": [np.zeros((*size, 1), "uint8") for size in sizes],
    }
    prepare(
        datasets,
        "caltech_birds2011",
        tmp_path,
        train=pictures(sizes, **columns),
        test=pictures(sizes, **columns),
    )
    source = load_source("cub200_2011", data_dir=tmp_path)
    assert len(source.class_names) == KNOWN["cub200_2011"].num_classes
    assert source.class_names[0] == "black_footed_albatross"
    assert source.class_names[199] == "common_yellowthroat"
    boxes = {0: [2, 6, 27, 36], 199: [0, 0, 50, 40]}
    assert source.annotations["box"].tolist() == [boxes[n] for n in source.labels]
    assert sorted(source.labels.tolist()) == [0, 0, 199, 199]
    assert {part: len(i) for part, i in source.official.items()} == {
        "train": 2,
        "test": 2,
    }


@pytest.mark.filterwarnings("ignore")
def test_species_from_tensorflow_datasets_have_super_classes():
    datasets = pytest.importorskip("tensorflow_datasets")
    with datasets.testing.mock_data(num_examples=3):
        source = load_source("inaturalist2017")
        builder = datasets.builder("i_naturalist2017")
        reader = builder.as_data_source("train")
        groups = builder.info.features["supercategory"]
        expected = [groups.int2str(int(reader[i]["supercategory"])) for i in range(3)]
    assert len(source.class_names) == KNOWN["inaturalist2017"].num_classes
    assert source.annotations["super_class"].tolist()[:3] == expected
    assert len(groups.names) == 13
    assert sorted(source.official) == ["train", "validation"]
