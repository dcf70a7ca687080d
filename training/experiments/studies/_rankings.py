"""Patches by different rankings of the same cells: AnchorNet's and its comparators.

All rankings choose among the cells of the branch that AnchorNet decides on, by the
same algorithm, and as many patches as AnchorNet does.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_attn.layers import LocalizePatches
from keras_attn.models.localizer import branches_of
from keras_attn.ops.patches import localize_patches

# Cells in the order of: AnchorNet's class evidence; nothing; nearness to the centre;
# mean and variance of the Sobel gradient in the cell's window.
RANKINGS = ("anchornet", "random", "centre", "sobel_mean", "sobel_variance")
BATCH = 32


@dataclasses.dataclass(frozen=True)
class Selection:
    """The patches of N images by one ranking.

    Args:
        boxes: `(N, K, 4)`, in pixels, -1 where there is no patch.
        sizes: `(N,)`, height and width of the image's patches.
    """

    boxes: np.ndarray
    sizes: np.ndarray

    @property
    def counts(self):
        """Patches of every image."""
        return (self.boxes[..., 0] >= 0).sum(axis=1)

    def union(self, height, width, first=None):
        """`(N, height, width)`, the pixels that the first patches cover."""
        boxes = self.boxes[:, :first]
        rows = _between(boxes[..., 0], boxes[..., 2], height)
        columns = _between(boxes[..., 1], boxes[..., 3], width)
        return np.einsum("nkh,nkw->nhw", rows, columns, dtype="int32") > 0


def select(localizer, images, max_patches, iou_threshold, coverage, seed=0):
    """Patches of the images by every ranking.

    Args:
        localizer: Model with the outputs of `anchornet`.
        images: `(N, height, width, 3)`, 8-bit.
        max_patches, iou_threshold, coverage: See `LocalizePatches`.
        seed: Seed of the random ranking.

    Returns:
        `(selections, labels)`: a dict from `RANKINGS` to `Selection`, and the classes
        that the localiser predicts.
    """
    branches = branches_of(localizer)
    layer = LocalizePatches(branches, max_patches, iou_threshold, coverage)
    outputs = {
        name: tensor
        for name, tensor in localizer.output.items()
        if name.startswith(("logits_", "evidence_"))
    }
    model = keras.Model(localizer.inputs, layer(outputs))
    random = np.random.default_rng(seed)
    boxes = {ranking: [] for ranking in RANKINGS}
    sizes, labels = [], []
    for start in range(0, len(images), BATCH):
        part = np.asarray(images[start : start + BATCH])
        found = {
            name: np.asarray(value)
            for name, value in model.predict_on_batch(part).items()
        }
        labels.append(found["label"])
        patch_sizes = np.array([branch["patch_size"] for branch in branches])
        sizes.append(patch_sizes[found["branch"]])
        boxes["anchornet"].append(found["boxes"])
        counts = found["valid"].sum(axis=1)
        for ranking in RANKINGS[1:]:
            chosen = np.full_like(found["boxes"], -1)
            for index, branch in enumerate(branches):
                rows = np.flatnonzero(found["branch"] == index)
                if len(rows):
                    evidence = _evidence(ranking, part[rows], branch, random)
                    chosen[rows] = _localized(
                        evidence, branch, chosen.shape[1], iou_threshold
                    )
            beyond = np.arange(chosen.shape[1]) >= counts[:, None]
            chosen[beyond] = -1
            boxes[ranking].append(chosen)
    sizes = np.concatenate(sizes)
    selections = {
        ranking: Selection(np.concatenate(parts), sizes)
        for ranking, parts in boxes.items()
    }
    return selections, np.concatenate(labels)


def _localized(evidence, branch, max_patches, iou_threshold):
    found = localize_patches(
        keras.ops.convert_to_tensor(evidence, "float32"),
        branch["patch_size"],
        max_patches,
        iou_threshold,
        stride=branch["stride"],
        offset=branch["offset"],
    )
    return keras.ops.convert_to_numpy(found["boxes"])


def _evidence(ranking, images, branch, random):
    """`(N, rows, columns)`: worth of every cell of a branch to a ranking."""
    size, stride = branch["patch_size"], branch["stride"]
    height, width = images.shape[1:3]
    rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    if ranking == "random":
        return random.random((len(images), rows, columns))
    if ranking == "centre":
        y = stride * np.arange(rows) + size / 2 - height / 2
        x = stride * np.arange(columns) + size / 2 - width / 2
        nearness = -np.hypot(y[:, None], x[None, :])
        return np.broadcast_to(nearness, (len(images), rows, columns))
    gradient = sobel(images)
    mean = _window_mean(gradient, size, stride)
    if ranking == "sobel_mean":
        return mean
    return _window_mean(gradient**2, size, stride) - mean**2


def sobel(images):
    """`(N, height, width)`: size of the gradient of the grey image, 0..1 scale."""
    grey = tf.image.rgb_to_grayscale(tf.cast(images, tf.float32) / 255.0)
    edges = tf.image.sobel_edges(grey)
    return tf.norm(edges, axis=-1)[..., 0].numpy()


def _window_mean(values, size, stride):
    pooled = tf.nn.avg_pool2d(values[..., None], size, stride, "VALID")
    return pooled[..., 0].numpy()


def _between(start, stop, size):
    positions = np.arange(size)
    return (positions >= start[..., None]) & (positions < stop[..., None])
