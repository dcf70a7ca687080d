"""Retrieval in plain NumPy, one image, one region, one query at a time."""

import numpy as np


def generalized_mean(image, exponent):
    height, width, channels = image.shape
    pooled = np.zeros(channels)
    for k in range(channels):
        total = 0.0
        for value in image[..., k].ravel().astype("float64"):
            total += max(value, 1e-6) ** exponent
        pooled[k] = (total / (height * width)) ** (1 / exponent)
    return pooled


def cross_dimensional(image):
    """Sums weighted by cell and channel, of features that are not negative."""
    image = image.astype("float64")
    height, width, channels = image.shape
    sums = image.sum(axis=2)
    length = np.sqrt((sums**2).sum())
    shares = [
        np.count_nonzero(image[..., k]) / (height * width) for k in range(channels)
    ]
    pooled = np.zeros(channels)
    for k in range(channels):
        if shares[k] == 0:
            continue
        for i in range(height):
            for j in range(width):
                pooled[k] += np.sqrt(sums[i, j] / length) * image[i, j, k]
        pooled[k] *= np.log(sum(shares) / shares[k])
    return pooled


def regions(height, width, levels, extra):
    """Boxes of R-MAC; the longer side has `extra` more than the shorter one."""
    boxes = []
    for level in range(1, levels + 1):
        size = int(2 * min(height, width) / (level + 1))
        if size == 0:
            continue
        counts = [level, level]
        if height != width:
            counts[int(width > height)] += extra
        for y in spread(height, size, counts[0]):
            for x in spread(width, size, counts[1]):
                boxes.append((y, x, y + size, x + size))
    return boxes


def regional_maximum(image, levels, extra):
    image = image.astype("float64")
    total = 0.0
    for y0, x0, y1, x1 in [
        (0, 0, *image.shape[:2]),
        *regions(*image.shape[:2], levels, extra),
    ]:
        maximum = image[y0:y1, x0:x1].max(axis=(0, 1))
        total = total + maximum / (np.linalg.norm(maximum) + 1e-6)
    return total


def spread(length, size, count):
    """Starts of windows, whose real-valued centres are evenly spaced and floored."""
    half = int(np.floor(size / 2 - 1))
    step = 0 if count == 1 else (length - size) / (count - 1)
    # Rounding to 9 digits undoes the noise of the division by `count - 1`.
    return [int(np.floor(round(half + i * step, 9))) - half for i in range(count)]


def revisited(rankings, ground_truth, kind, cutoffs):
    """mAP and mP@k of a setup, walking down each ranking image by image."""
    precisions, at_cutoffs = [], []
    for ranking, entry in zip(rankings, ground_truth, strict=True):
        right = {"easy": ["easy"], "medium": ["easy", "hard"], "hard": ["hard"]}[kind]
        ignored = {"easy": ["junk", "hard"], "medium": ["junk"]}.get(
            kind, ["junk", "easy"]
        )
        right = {image for name in right for image in entry[name]}
        ignored = {image for name in ignored for image in entry[name]}
        if not right:
            continue
        area, seen, found, places = 0.0, 0, 0, []
        for image in ranking:
            if image in ignored:
                continue
            if image in right:
                before = found / seen if seen else 1.0
                after = (found + 1) / (seen + 1)
                area += (before + after) / 2 / len(right)
                found += 1
                places.append(seen + 1)
            seen += 1
        precisions.append(area)
        row = []
        for cutoff in cutoffs:
            last = min(max(places), cutoff)
            row.append(sum(place <= last for place in places) / last)
        at_cutoffs.append(row)
    return np.mean(precisions), np.mean(at_cutoffs, axis=0)


def pca_whitened(descriptors, dimensions):
    """Through the singular values of the centred descriptors, without a covariance."""
    centred = descriptors - descriptors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    scores = centred @ directions[:dimensions].T
    return unit_rows(scores / scores.std(axis=0))


def learned_whitened(descriptors, queries, positives, dimensions):
    """By the inverse square root in place of the Cholesky factor.

    Any two factors of the same covariance differ by a rotation, which the principal
    directions that come next undo.
    """
    differences = [
        descriptors[q] - descriptors[p] for q, p in zip(queries, positives, strict=True)
    ]
    covariance = sum(np.outer(d, d) for d in differences) / len(differences)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    projected = (descriptors - descriptors[list(queries)].mean(axis=0)) @ root
    _, _, directions = np.linalg.svd(projected, full_matrices=False)
    return unit_rows(projected @ directions[:dimensions].T)


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def asmk(first, second, codebook, power, threshold, weights, nearest=(1, 1)):
    """ASMK of two images' local descriptors, word by word and sign by sign."""

    def words_of(descriptors, count):
        found = {}
        for descriptor in descriptors:
            distances = [np.linalg.norm(descriptor - word) for word in codebook]
            for word in np.argsort(distances)[:count]:
                residual = descriptor - codebook[word]
                found[word] = found.get(word, 0) + residual
        return {word: np.where(total > 0, 1, -1) for word, total in found.items()}

    first, second = words_of(first, nearest[0]), words_of(second, nearest[1])
    total = 0.0
    for word in first:
        if word in second:
            match = np.dot(first[word], second[word]) / codebook.shape[1]
            if match >= threshold:
                total += weights[word] ** 2 * match**power
    for words in (first, second):
        total /= np.sqrt(sum(weights[word] ** 2 for word in words))
    return total
