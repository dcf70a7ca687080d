"""Boxes of objects, from the pixels of an image's file to those of a network's image.

Convention: boxes are int32 `(y0, x0, y1, x1)`, half-open pixel coordinates, origin at
the outer corner of the top left pixel. An absent box is all -1.
"""

import numpy as np

# Pixels by which boxes drawn by hand may reach beyond the image: rounding.
SLACK = 2


def pixel_boxes(corners, first=0):
    """Boxes of the convention above from the numbers in a data set's files.

    Args:
        corners: `(..., 4)` numbers `(y0, x0, y1, x1)`.
        first: Number of the first row and column there: 0, where the corners are
            edges, or 1, as in MATLAB, where they are pixels, the last one inside.

    Returns:
        int32 `(..., 4)`, edges rounded to the nearest pixel; no box becomes empty.

    Example:

    >>> pixel_boxes([3, 1, 4, 2], first=1)
    array([2, 0, 4, 2], dtype=int32)
    """
    corners = np.asarray(corners, "float64") - (first, first, 0, 0)
    rounded = np.floor(corners + 0.5).astype("int32")
    rounded[..., 2:] = np.maximum(rounded[..., 2:], rounded[..., :2] + 1)
    return rounded


def cut_at_border(boxes, sizes, banner=0):
    """Boxes cut off at the border of their images.

    Args:
        boxes: `(N, 4)`.
        sizes: `(N, 2)`, heights and widths.
        banner: Further rows of its file, below the image.

    Returns:
        `(boxes, outside)`: int32 `(N, 4)`, and booleans `(N,)` that mark boxes that
        reach beyond the file by more than `SLACK` pixels or are outside of the image.
    """
    boxes, sizes = np.asarray(boxes, "int32"), np.asarray(sizes, "int32")
    ends = np.tile(sizes, 2)
    reach = ends + SLACK + np.array([banner, 0, banner, 0])
    outside = ((boxes < -SLACK) | (boxes > reach)).any(axis=-1)
    cut = np.clip(boxes, 0, ends).astype("int32")
    outside |= (cut[:, 2:] <= cut[:, :2]).any(axis=-1)
    absent = (boxes == -1).all(axis=-1)
    return np.where(absent[:, None], boxes, cut), outside & ~absent


def filled(boxes, height, width):
    """Booleans `(boxes, height, width)`, true inside each box; an absent box is empty.

    Args:
        boxes: `(N, 4)`, of the convention above.
        height, width: Size of the images.
    """
    top, left, bottom, right = np.moveaxis(boxes[:, :, None, None], 1, 0)
    y, x = np.arange(height)[:, None], np.arange(width)
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def boxes_in_frame(boxes, sizes, spec):
    """Boxes in the pixels of the images that a network sees.

    Follows `ImagePreprocessing.fit_size`: the crop to the aspect ratio, the resize, the
    central crop.

    Args:
        boxes: `(..., 4)`, in pixels of the images before.
        sizes: `(..., 2)`, heights and widths of these images, or one for all.
        spec: `ImageSpec` that they are fitted to.

    Returns:
        int32 `(..., 4)`, rounded to the nearest pixel and cut off at the border. A box
        outside of the fitted image is absent; at least one pixel remains of others.

    Example:

    >>> boxes_in_frame([40, 30, 80, 90], (120, 200), ImageSpec(60, 60))
    array([20,  0, 40, 25], dtype=int32)
    """
    boxes = np.asarray(boxes)
    start, scale = frame_windows(sizes, spec)
    sides = np.array([spec.height, spec.width])
    low = (boxes[..., :2] - start) / scale
    high = (boxes[..., 2:] - start) / scale
    shown = ((high > 0) & (low < sides) & (high > low)).all(axis=-1)
    shown &= (boxes != -1).any(axis=-1)
    low = np.clip(np.floor(low + 0.5), 0, sides - 1)
    high = np.clip(np.floor(high + 0.5), low + 1, sides)
    fitted = np.concatenate([low, high], axis=-1)
    return np.where(shown[..., None], fitted, -1).astype("int32")


def frame_windows(sizes, spec):
    """Windows that `ImagePreprocessing.fit_size` shows of images, in their own pixels.

    Args:
        sizes: `(..., 2)` heights and widths.
        spec: `ImageSpec` that the images are fitted to.

    Returns:
        `(start, scale)`, float64 `(..., 2)` for rows and columns: where the fitted
        image begins, and the size of its pixels.
    """
    sizes = np.asarray(sizes)
    fitted = np.array([spec.height, spec.width])
    resized = np.array([round(side / spec.crop_fraction) for side in fitted.tolist()])
    # As Keras crops to the aspect ratio of the resized image, in single precision.
    across = (sizes[..., ::-1] * resized).astype("float32")
    kept = (across / resized[::-1].astype("float32")).astype(int)
    kept = np.maximum(np.minimum(sizes, kept), 1)
    scale = kept / resized
    margin = (resized - fitted) // 2
    start = (sizes - kept) // 2 + scale * margin
    same = (sizes == fitted).all(axis=-1, keepdims=True)
    return np.where(same, 0.0, start), np.where(same, 1.0, scale)
