"""Geometric transforms of images, maps, boxes and points.

Convention: coordinates are `(y, x)` in pixels; the origin is the outer corner of the
top-left pixel, so that the centre of pixel `(i, j)` is at `(i + 0.5, j + 0.5)`. A
transform is a float32 matrix `(3, 3)` that takes `(y, x, 1)` of a place in the result
to the place in the image that is shown there. Applying `first`, then `second`, is
`first @ second`. Boxes are int32 `(y0, x0, y1, x1)`, half-open; an absent box or point
is all -1.
"""

import tensorflow as tf


def affine(linear, offset):
    """Transforms from their linear parts `(count, 2, 2)` and offsets `(count, 2)`."""
    upper = tf.concat([linear, offset[..., None]], axis=-1)
    last = tf.broadcast_to([[0.0, 0.0, 1.0]], tf.shape(upper[:, :1]))
    return tf.concat([upper, last], axis=1)


def rescale(transforms, image_scale, scale=(1.0, 1.0)):
    """The same transforms for images, or results, of another size.

    For maps with a cell for 16x16 pixels both scales are 1/16: rows and columns of the
    maps and of the results, relative to those of the images.
    """
    outer = tf.linalg.diag(tf.concat([image_scale, [1.0]], axis=0))
    inner = tf.linalg.diag(tf.concat([tf.divide(1.0, scale), [1.0]], axis=0))
    return outer @ transforms @ inner


def transform_images(images, transforms, size, interpolation="bilinear", fill=0.0):
    """Transforms images, masks or maps.

    Args:
        images: `(count, height, width, channels)`.
        transforms: `(count, 3, 3)`.
        size: Height and width of the result.
        interpolation: `"bilinear"`, or `"nearest"` for masks of labels.
        fill: Value outside of the images.

    Returns:
        Tensor `(count, *size, channels)` of the dtype of `images`, rounded if these are
        integers.
    """
    images = tf.convert_to_tensor(images)
    # TensorFlow wants x before y, and the origin at the centre of a pixel.
    linear, offset = transforms[:, :2, :2], transforms[:, :2, 2]
    offset += tf.reduce_sum(linear, axis=-1) / 2 - 0.5
    rows = tf.concat([linear[:, ::-1, ::-1], offset[:, ::-1, None]], axis=-1)
    flat = tf.reshape(rows, (-1, 6))
    found = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.pad(flat, [[0, 0], [0, 2]]),
        output_shape=tf.cast(size, tf.int32),
        fill_value=fill,
        interpolation=interpolation.upper(),
        fill_mode="CONSTANT",
    )
    if not images.dtype.is_floating:
        found = tf.round(found)
    return tf.ensure_shape(tf.cast(found, images.dtype), (None, *size, None))


def transform_maps(
    maps, transforms, size, interpolation="nearest", fill=0.0, turned=True
):
    """Transforms maps with cells, up to the very edge of the maps.

    A cell's value holds for its whole area with `"nearest"`, for its centre with
    `"bilinear"`, outside of the outermost centres unchanged. Beyond the maps comes
    `fill` at once: enlarging a map and moving the result by whole pixels is the same,
    where `transform_images` would let the border fade over half a cell.

    Args:
        maps: `(count, height, width, channels)`, floats.
        transforms: `(count, 3, 3)`.
        size: Height and width of the result.
        interpolation: `"nearest"` or `"bilinear"`.
        fill: Value outside of the maps.
        turned: `False` promises that no transform turns, so that rows and columns can
            be resampled one after the other: many times faster.

    Returns:
        Tensor `(count, *size, channels)`.
    """
    if interpolation not in ("nearest", "bilinear"):
        raise ValueError(
            "Expected interpolation to be 'nearest' or 'bilinear'. "
            f"Received: interpolation={interpolation!r}"
        )
    if turned:
        inside = transform_images(
            tf.ones_like(maps[..., :1]), transforms, size, "nearest"
        )
        repeated = tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        moved = tf.constant([[1.0, 0, 1], [0, 1, 1], [0, 0, 1]]) @ transforms
        found = transform_images(repeated, moved, size, interpolation)
        return tf.where(inside > 0, found, tf.cast(fill, maps.dtype))
    in_rows, rows = _cell_weights(transforms, 0, size[0], maps, interpolation)
    in_columns, columns = _cell_weights(transforms, 1, size[1], maps, interpolation)
    channels = tf.transpose(maps, (0, 3, 1, 2))
    found = rows[:, None] @ channels
    found = tf.matmul(found, columns[:, None], transpose_b=True)
    found = tf.transpose(found, (0, 2, 3, 1))
    if fill:
        outside = ~(in_rows[:, :, None] & in_columns[:, None])[..., None]
        found += tf.cast(outside, maps.dtype) * fill
    return tf.ensure_shape(found, (None, *size, None))


def _cell_weights(transforms, axis, size, maps, interpolation):
    """Booleans `(count, size)` of the places inside, and shares of cells in them.

    Along one axis. The shares, `(count, size, cells)`, are zero outside.
    """
    cells = tf.shape(maps)[axis + 1]
    places = tf.range(size, dtype=tf.float32) + 0.5
    places = transforms[:, axis, axis, None] * places + transforms[:, axis, 2, None]
    last = tf.cast(cells, tf.float32)
    inside = (places >= 0) & (places < last)
    if interpolation == "nearest":
        shares = tf.one_hot(tf.cast(tf.floor(places), tf.int32), cells)
    else:
        centres = tf.clip_by_value(places - 0.5, 0, last - 1)[..., None]
        shares = tf.maximum(1 - tf.abs(centres - tf.range(last)), 0)
    shares *= tf.cast(inside, tf.float32)[..., None]
    return inside, tf.cast(shares, maps.dtype)


def transform_points(points, transforms, size):
    """Points of images in the coordinates of the results.

    Args:
        points: `(count, ..., 2)`, `(y, x)`.
        transforms: `(count, 3, 3)`.
        size: Height and width of the results.

    Returns:
        float32 tensor of the shape of `points`; (-1, -1) for a point that is absent or
        outside of its result.
    """
    points = tf.convert_to_tensor(points)
    found = _project(points, transforms)
    seen = tf.reduce_all((found >= 0) & (found <= tf.cast(size, tf.float32)), axis=-1)
    seen &= tf.reduce_any(points != -1, axis=-1)
    return tf.where(seen[..., None], found, -1.0)


def transform_boxes(boxes, transforms, size):
    """Tight boxes, in the results, of the transformed boxes of images.

    The tight box of a turned box is larger than its content. Boxes are cut off at the
    border of the result.

    Args:
        boxes: `(count, ..., 4)` integers.
        transforms: `(count, 3, 3)`.
        size: Height and width of the results.

    Returns:
        int32 tensor of the shape of `boxes`; -1 for a box that is absent, or less than
        half a pixel of which is left.
    """
    boxes = tf.cast(boxes, tf.int32)
    corners = tf.gather(boxes, [[0, 1], [0, 3], [2, 1], [2, 3]], axis=-1)
    corners = _project(corners, transforms)
    low, high = tf.reduce_min(corners, axis=-2), tf.reduce_max(corners, axis=-2)
    largest = tf.cast(size, tf.float32)
    low, high = (tf.clip_by_value(tf.round(c), 0, largest) for c in (low, high))
    seen = tf.reduce_all(high > low, axis=-1) & tf.reduce_any(boxes != -1, axis=-1)
    found = tf.cast(tf.concat([low, high], axis=-1), tf.int32)
    return tf.where(seen[..., None], found, -1)


def _project(points, transforms):
    """Places in the results of places `(count, ..., 2)` in the images."""
    flat = tf.reshape(tf.cast(points, tf.float32), (tf.shape(points)[0], -1, 2))
    inverse = tf.linalg.inv(transforms)
    found = tf.matmul(flat, inverse[:, :2, :2], transpose_b=True)
    return tf.reshape(found + inverse[:, None, :2, 2], tf.shape(points))
