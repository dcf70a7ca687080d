"""Classifying an image on patches, one image and one patch at a time."""

import numpy as np


def cut(image, box, size):
    """Patch of a size at the box's first corner; 0 outside of the image."""
    patch = np.zeros((*size, image.shape[-1]), image.dtype)
    for y in range(size[0]):
        for x in range(size[1]):
            row, column = box[0] + y, box[1] + x
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                patch[y, x] = image[row, column]
    return patch


def softmax(logits):
    logits = np.asarray(logits, "float64")
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def classify_patches(probabilities_of, images, boxes, valid, branch, patch_sizes):
    """Probabilities of every patch and their mean over each image's valid ones.

    Args:
        probabilities_of: Function from one patch to its probabilities.
        images, boxes, valid, branch: As `ClassifyPatches` takes them.
        patch_sizes: `(height, width)` of every branch.

    Returns:
        `(batch, slots, classes)` and `(batch, classes)`.
    """
    all_patches, means = [], []
    for image, image_boxes, image_valid, index in zip(
        images, boxes, valid, branch, strict=True
    ):
        rows = []
        for box, is_valid in zip(image_boxes, image_valid, strict=True):
            found = probabilities_of(cut(image, box, patch_sizes[index]))
            rows.append(found if is_valid else np.zeros_like(found))
        all_patches.append(rows)
        means.append(np.sum(rows, axis=0) / max(np.sum(image_valid), 1))
    return np.array(all_patches), np.array(means)
