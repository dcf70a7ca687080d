"""A model's maps of all images of a data set, computed once."""

import numpy as np
import tensorflow as tf

from keras_attn._checks import one_of
from keras_attn.pipelines.attention_maps.cache import STORAGES, MapCache
from keras_attn.pipelines.attention_maps.digests import image_keys, model_digest
from keras_attn.pipelines.batches.build import evaluation_batches
from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images.streaming import clear_errors
from keras_attn.version import __version__

# Maps may leave [0, 1] by rounding.
SLACK = 1e-3


def compute_maps(
    map_model,
    images,
    path,
    batch_size=64,
    image_size=None,
    storage="uint8",
    settings=None,
    notes=None,
    progress=None,
):
    """The maps of all images, kept in a folder; an interrupted call resumes.

    Args:
        map_model: Keras model from raw images, values 0..255, to maps `(batch, rows,
            columns, channels)`. It runs in inference mode.
        images: `(examples, height, width, 3)`, 8-bit, or `StreamedImages`.
        path: Folder of the cache: new, or one of the same model, images and settings.
        batch_size: Images at a time; it does not change the result.
        image_size: Height and width that images are resized to before the model sees
            them, see `fitted`; their own by default.
        storage: `"uint8"`: maps in [0, 1] in steps of 1/255; `"float16"`: any values.
        settings: Dict of what else decides the maps, such as how the model's heads
            were combined; compared with those of an existing cache.
        notes: Dict of what a reader may want to know; not compared.
        progress: Called with (images done, images in all) after every batch.

    Returns:
        `MapCache`, complete.

    Raises:
        ValueError: If the folder is a cache made otherwise, or no cache; a file in it
            is damaged; the model gives no such maps; or they cannot be stored.
        CorruptImageError: If a streamed image cannot be decoded.
    """
    one_of("storage", storage, STORAGES)
    if not len(images):
        raise ValueError("Expected at least one image. Received: none")
    size = tuple(image_size or images.shape[1:3])
    keys = image_keys(images)
    maker = {
        "model": model_digest(map_model),
        "images": digest_of(keys),
        "examples": len(images),
        "map_shape": map_shape(map_model, size),
        "image_size": tuple(map(int, size)),
        "storage": storage,
        "settings": settings or {},
        "version": __version__,
    }
    cache = MapCache.open_or_create(path, maker, notes)
    # A damaged file is an error now, not when a training reads it.
    cache.check_shards()
    missing = cache.missing()
    done = len(images) - sum(shard.stop - shard.start for shard in missing)
    if done and progress is not None:
        progress(done, len(images))
    for shard in missing:
        found, part = [], slice(shard.start, shard.stop)
        for maps in _maps_in_batches(map_model, images[part], size, batch_size):
            found.append(stored(maps, storage))
            done += len(maps)
            if progress is not None:
                progress(done, len(images))
        cache.write_shard(shard, {"maps": np.concatenate(found), "keys": keys[part]})
    return cache


def map_shape(map_model, image_size):
    """Rows, columns and channels of a model's maps of images of a size.

    Raises:
        ValueError: If it gives no such maps, or takes no images of that size.
    """
    shape = None
    try:
        shape = map_model.compute_output_shape((1, *image_size, 3))
        expected = map_model.input_shape
        fits = all(
            given in (None, wanted)
            for given, wanted in zip(expected[1:], (*image_size, 3), strict=True)
        )
    except (ValueError, TypeError, AttributeError):
        fits = False
    if not fits or not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(
            "Expected a model from images (batch, height, width, 3) of the size "
            f"{tuple(image_size)} to maps (batch, rows, columns, channels). Received: "
            f"{map_model.name!r} from {map_model.input_shape} to "
            f"{map_model.output_shape}"
        )
    return tuple(int(length) for length in shape[1:])


def fitted(images, size):
    """8-bit images resized to a size: bicubic, half-pixel centres, antialiased.

    What `ImagePreprocessing` does with that interpolation to images of this shape, so
    that what is cached, trained on and served is the same.
    """
    if tuple(images.shape[1:3]) == tuple(size):
        return images
    resized = tf.image.resize(images, size, "bicubic", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(resized, 0, 255)), tf.uint8)


def as_floats(maps):
    """Stored maps, an array or a tensor, as the values they stand for, float32."""
    if tf.as_dtype(maps.dtype) == tf.uint8:
        return tf.cast(maps, tf.float32) / 255
    return tf.cast(maps, tf.float32)


def _maps_in_batches(map_model, images, size, batch_size):
    """Maps as arrays; every batch has the same size, so that one program serves all."""
    batches = evaluation_batches(images, np.zeros(len(images), "int32"), batch_size)
    with clear_errors():
        for batch, _ in batches:
            count = len(batch)
            batch = np.asarray(fitted(batch, size))
            full = np.resize(batch, (batch_size, *batch.shape[1:]))
            yield np.asarray(map_model.predict_on_batch(full))[:count]


def stored(maps, storage):
    """Maps as they are kept.

    Raises:
        ValueError: If they are out of the range of `storage`.
    """
    maps = maps.astype("float32")
    low, high = float(maps.min()), float(maps.max())
    if storage == "uint8" and -SLACK <= low and high <= 1 + SLACK:
        return np.round(np.clip(maps, 0, 1) * 255).astype("uint8")
    largest = float(np.finfo("float16").max)
    if storage == "float16" and -largest <= low and high <= largest:
        return maps.astype("float16")
    expected = "[0, 1]" if storage == "uint8" else "the range of float16"
    raise ValueError(
        f"Expected maps in {expected}, to be stored as {storage}. "
        f"Received: values from {low:.6g} to {high:.6g}"
    )
