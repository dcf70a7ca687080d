"""AnchorNet, table 4: a localised patch against the whole image reduced to its size.

Each image is given to the network of row `full` as its best patch (`localized`) and
reduced by bicubic interpolation to the size of this patch (`rescaled`); accuracies
are by branch, so by patch size: `accuracy_63`, ... in per cent, and `images_63`, the
share of the images that the branch was chosen for. The network is not trained on
either.
"""

import keras
import numpy as np

from keras_attn.training.data.load import load_data
from keras_attn.training.experiments.measures import held_out
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.experiments.studies._rankings import select
from keras_attn.training.experiments.studies.covered_area import patch_probabilities
from keras_attn.training.runs.outputs import outputs_of
from keras_attn.training.trained import load_trained

SETTINGS = {"max_patches": 1, "iou_threshold": 0.3, "coverage": 1.0}


def study(runs, sources):
    """The accuracies of `localized` and `rescaled`; see `Study`."""
    run = runs["anchornet"]
    _, splits = load_data(run.recipe, source=sources["anchornet"])
    images, labels = splits[held_out(splits)]
    localizer = load_trained(run.workdir, "last").model
    classifier = load_trained(runs["full"].workdir, "last").model
    selection = select(localizer, images, **SETTINGS)[0]["anchornet"]
    localized = patch_probabilities(classifier, images, selection)[:, 0]
    localized = localized.argmax(axis=-1) == labels
    for size in np.unique(selection.sizes):
        chosen = selection.sizes == size
        reduced = rescaled(images[chosen], size)
        found = outputs_of(classifier, reduced)["logits"].argmax(axis=-1)
        metric = f"accuracy_{size}"
        right = found == labels[chosen]
        yield RowValue("localized", metric, 100 * float(localized[chosen].mean()))
        yield RowValue("rescaled", metric, 100 * float(right.mean()))
        yield RowValue("localized", f"images_{size}", 100 * float(chosen.mean()))


def rescaled(images, size):
    """8-bit images of `size` x `size`, bicubic with antialiasing."""
    reduced = keras.ops.image.resize(
        keras.ops.cast(images, "float32"),
        (int(size), int(size)),
        interpolation="bicubic",
        antialias=True,
    )
    reduced = np.clip(np.round(keras.ops.convert_to_numpy(reduced)), 0, 255)
    return reduced.astype("uint8")
