"""The parts of a batch that several processes make are those of one process."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_attn.pipelines.attention_maps.batches import masked_batches
from keras_attn.pipelines.augment.operation import Part
from keras_attn.pipelines.batches.build import own_examples, training_batches
from keras_attn.pipelines.batches.multi_crop import MultiCrop, multi_crop_batches
from keras_attn.pipelines.batches.pairs import balanced_batches
from keras_attn.pipelines.batches.patches import best_patch_batches, patch_batches
from keras_attn.pipelines.images.streaming import StreamedImages
from keras_attn.pipelines.sources import load_source
from keras_attn.preprocessing import ImageSpec

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (20, 16, 12, 3), "uint8")
LABELS = np.arange(20, dtype="int32") % 4
MAPS = RANDOM.random((20, 4, 3, 1)).astype("float32")
# Every operation, so that each has its draws cut.
COMPOSITION = "resized_crop(0.3)|rotate_crop(20)|translate(2)|flip|grid_mask|erase(0.9)"
# A short blur is soon traced.
CROPS = MultiCrop(8, 6, local_views=1, blur_sigma=(0.1, 0.5))


def boxes():
    found = np.full((20, 2, 4), -1, "int32")
    found[:, 0], found[::2, 1] = (1, 2, 6, 8), (3, 0, 8, 6)
    return found


FEEDS = {
    "images": lambda images, part: training_batches(
        images, LABELS, 8, 1, 2, 0, COMPOSITION, part=part
    ),
    "pairs": lambda images, part: balanced_batches(
        images, LABELS, 4, 2, 1, 2, part=part
    ),
    "patches": lambda images, part: patch_batches(
        images, LABELS, boxes(), 8, 1, 2, patches_per_image=2, part=part
    ),
    "views": lambda images, part: multi_crop_batches(
        images, 8, 1, 1, multi_crop=CROPS, part=part
    ),
    "maps": lambda images, part: masked_batches(
        images, MAPS, LABELS, 8, 1, 1, augmentation="translate(2)|flip", part=part
    ),
}


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        (folder / f"class{label}").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"class{label}" / f"{number:02}.png")
    return StreamedImages(load_source("folder", folder), ImageSpec(16, 12))


def made(feed, images, part):
    batches = FEEDS[feed](images, part)
    return [tf.nest.map_structure(np.asarray, batch) for batch in batches]


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("from_files", [False, True])
def test_parts_of_batches_make_the_whole(feed, from_files, streamed):
    images = streamed if from_files else IMAGES
    whole, *parts = [made(feed, images, p) for p in (Part(), Part(0, 2), Part(1, 2))]
    assert whole

    def same(one, *some):
        np.testing.assert_array_equal(one, np.concatenate(some))

    for batch, *own in zip(whole, *parts, strict=True):
        tf.nest.map_structure(same, batch, *own)


@pytest.mark.parametrize("feed", FEEDS)
def test_a_batch_that_processes_cannot_share_is_an_error(feed):
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        FEEDS[feed](IMAGES, Part(0, 3))


def test_a_part_decodes_its_own_files_only(streamed, monkeypatch):
    decoded = []
    decode = StreamedImages._decode
    monkeypatch.setattr(
        StreamedImages,
        "_decode",
        lambda self, index: decoded.append(int(index)) or decode(self, index),
    )
    found = training_batches(streamed, LABELS, 8, 1, 1, part=Part(1, 2))
    assert [len(labels) for _, labels in found] == [4, 4]
    assert len(decoded) == 8


@pytest.mark.parametrize("examples", [1, 8, 19])
def test_every_example_is_evaluated_once_in_its_batch(examples):
    parts = [own_examples(examples, 4, Part(number, 3)) for number in range(3)]
    found = [
        tuple(part[start : start + 4])
        for part in parts
        for start in range(0, len(part), 4)
    ]
    whole = np.arange(examples)
    wanted = [tuple(whole[start : start + 4]) for start in range(0, examples, 4)]
    assert sorted(found) == wanted
    assert whole[own_examples(examples, 4, Part())].size == examples


@pytest.mark.parametrize("from_files", [False, True])
def test_every_best_patch_is_evaluated_once(from_files, streamed):
    # Of three processes one has none.
    images = streamed if from_files else IMAGES
    labels = np.arange(2, dtype="int32")
    found = [
        [
            int(label)
            for _, batch in best_patch_batches(
                images[:2], labels, boxes()[:2], 3, Part(number, 3)
            )
            for label in batch
        ]
        for number in range(3)
    ]
    assert found == [[0], [1], []]
