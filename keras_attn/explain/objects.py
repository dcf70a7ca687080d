"""Objects in the patches of an image without any training: TokenCut and LOST."""

import keras
import numpy as np
from keras import ops

from keras_attn.explain.gradients import no_gradients
from keras_attn.explain.maps import checked_format
from keras_attn.explain.split import split

# Weight of an edge between patches that are not similar.
WEAKEST = 1e-5


def patch_features(
    model: keras.Model,
    images,
    layer: str | None = None,
    output: str | int | None = None,
    image_input: str | int | None = None,
) -> np.ndarray:
    """Features of the patches of images, for `token_cut` and `lost`.

    Args:
        model: Functional or `Sequential` model, a transformer's backbone too.
        images: `(batch, height, width, channels)`, as the model takes them.
        layer: Layer of the features, tokens or a map; `None`: that of
            `keras_attn.explain.last_map`, of a transformer the tokens that the keys of
            its last attention are computed from.
        output, image_input: See `grad_cam`; the output may have any shape.

    Returns:
        float32 array `(batch, rows, columns, channels)`, without the tokens that are no
        patches.

    Raises:
        ValueError: See `grad_cam`.

    Example:

    >>> model = keras_attn.models.vit("mini", 16, (64, 96, 3), num_classes=5)
    >>> patch_features(model, keras.random.normal((2, 64, 96, 3))).shape
    (2, 4, 6, 128)
    """
    given = model, images, layer, output, image_input, checked_format(None)
    with no_gradients():
        parts = split(*given, any_rank=True)
        return ops.convert_to_numpy(ops.cast(parts.to_map(parts.features), "float32"))


def token_cut(features, threshold: float = 0.2) -> np.ndarray:
    """Object among patches by the normalised cut of their graph.

    Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery using
    Normalized Cut", section 3.2. Edges of patches with a cosine of at least the
    threshold weigh 1, all others 1e-5; the second smallest eigenvector of `(D - E) y =
    lambda D y` is cut at its mean. The object is what is connected to the patch with
    the largest absolute value.

    Args:
        features: `(batch, rows, columns, channels)`, see `patch_features`.
        threshold: Cosine from which on patches are similar.

    Returns:
        Booleans `(batch, rows, columns)`.

    Example:

    >>> features = np.full((1, 3, 4, 2), [1.0, 0.0])
    >>> features[0, 1:, 2:] = [0.0, 1.0]
    >>> token_cut(features)[0].astype(int)
    array([[0, 0, 0, 0],
           [0, 0, 1, 1],
           [0, 0, 1, 1]])

    Reference: [wang2022] arXiv:2202.11539.
    """
    features = np.asarray(features, "float64")
    masks = np.zeros(features.shape[:3], bool)
    for mask, image in zip(masks, features, strict=True):
        flat = image.reshape(mask.size, -1)
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        flat = flat / np.maximum(length, 1e-12)
        edges = np.where(flat @ flat.T > threshold, 1.0, WEAKEST)
        root = 1 / np.sqrt(edges.sum(axis=1))
        # The same problem with a symmetric matrix.
        laplacian = np.eye(len(flat)) - root[:, None] * edges * root
        vector = root * np.linalg.eigh(laplacian)[1][:, 1]
        seed = np.abs(vector).argmax()
        side = vector > vector.mean()
        side = side if side[seed] else ~side
        mask[...] = _connected(side.reshape(mask.shape), seed)
    return masks


def lost(features, similar: int = 100) -> np.ndarray:
    """Object among patches that grows from the one with the fewest similar patches.

    Simeoni et al., "Localizing Objects with Self-Supervised Transformers and no
    Labels", section 3. The seed is the patch with the fewest positive products with
    others; of the patches with the next fewest those with a positive product with the
    seed join it, and the object is what has a positive sum of products with these and
    is connected to the seed.

    Args:
        features: `(batch, rows, columns, channels)`, see `patch_features`.
        similar: Number of patches among which the seed looks for similar ones.

    Returns:
        Booleans `(batch, rows, columns)`.

    Example:

    >>> features = np.full((1, 3, 4, 2), [1.0, -0.5])
    >>> features[0, 1:, 2:] = [-0.5, 1.0]
    >>> lost(features, similar=4)[0].astype(int)
    array([[0, 0, 0, 0],
           [0, 0, 1, 1],
           [0, 0, 1, 1]])

    Reference: [simeoni2021] arXiv:2109.14279.
    """
    features = np.asarray(features, "float64")
    masks = np.zeros(features.shape[:3], bool)
    for mask, image in zip(masks, features, strict=True):
        flat = image.reshape(mask.size, -1)
        products = flat @ flat.T
        degrees = (products > 0).sum(axis=1)
        order = np.argsort(degrees, kind="stable")
        seed, near = order[0], order[:similar]
        grown = near[products[seed, near] > 0]
        found = products[grown].sum(axis=0) > 0
        found[seed] = True
        mask[...] = _connected(found.reshape(mask.shape), seed)
    return masks


def boxes_of_masks(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes around masks of patches, `(batch, 4)` as `(y0, x0, y1, x1)` in pixels.

    Args:
        masks: Booleans `(batch, rows, columns)`.
        size: `(height, width)` of the images.

    Returns:
        float64 array; -1 for an empty mask.

    Example:

    >>> boxes_of_masks(np.array([[[0, 0, 0], [0, 1, 1]]]), (8, 12))
    array([[ 4.,  4.,  8., 12.]])
    """
    masks = np.asarray(masks, bool)
    boxes = np.full((len(masks), 4), -1.0)
    for box, mask in zip(boxes, masks, strict=True):
        if mask.any():
            rows, columns = np.nonzero(mask)
            scale = np.array(size) / mask.shape
            first, last = (rows.min(), columns.min()), (rows.max(), columns.max())
            box[:2], box[2:] = scale * first, scale * (np.array(last) + 1)
    return boxes


def _connected(mask, seed):
    """Cells of a mask that are connected to one by their sides."""
    found = np.zeros(mask.shape, bool)
    found.flat[seed] = True
    while True:
        padded = np.pad(found, 1)
        beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2]
        grown = mask & (found | beside | padded[1:-1, 2:])
        if np.array_equal(grown, found):
            return found
        found = grown
