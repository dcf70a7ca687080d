"""Maps of a data set's images, computed once by a model and kept on disk.

A `keras_attn.pipelines.store.Store`: `maps.json` describes what the maps were made
from, and every shard holds the maps of some images and the keys of the images.
"""

import numpy as np

from keras_attn._checks import one_of
from keras_attn.pipelines.attention_maps.digests import image_keys
from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.store import Store

STORAGES = ("uint8", "float16")


class MapCache(Store):
    """A folder of maps, filled by `keras_attn.pipelines.attention_maps.compute`.

    The maker holds digests of `model` and `images`, the number of `examples`,
    `map_shape` (rows, columns and channels), `image_size` (height and width that images
    were resized to), `storage`, `settings` of the caller, and the `version` of
    keras_attn.
    """

    CONTENT, FORMAT, VERSION = "cached maps", "keras-attn maps", 2
    DESCRIPTION, MAKER = "maps.json", "`keras-attn masks`"

    def layout(self, count):
        storage = one_of("storage", self.maker["storage"], STORAGES)
        rows, columns, channels = self.maker["map_shape"]
        return {
            "maps": (storage, (count, rows, columns, channels)),
            "keys": ("uint8", (count, 16)),
        }

    def read(self):
        """All maps and the keys of their images.

        Returns:
            `(maps, keys)`: `(examples, rows, columns, channels)` as stored, see
            `keras_attn.pipelines.attention_maps.compute.as_floats`; `(examples, 16)`
            bytes, see `keras_attn.pipelines.attention_maps.digests`.

        Raises:
            ValueError: If the cache is not complete, or a file is damaged.
        """
        arrays = self.read_shards()
        if digest_of(arrays["keys"]) != self.maker["images"]:
            raise ValueError(
                f"Expected the files of one computation in {self.path}. Received: "
                "files of other images among them. Compute the maps anew."
            )
        return arrays["maps"], arrays["keys"]

    def maps_of(self, images):
        """The maps of any images that the cache holds, in their order, as stored.

        An image, 8-bit, is found by its content, not by its number, so that splits of a
        data set share one cache.

        Raises:
            ValueError: If the cache lacks one, or as in `read`.
        """
        maps, keys = self.read()
        rows = {key.tobytes(): row for row, key in enumerate(keys)}
        found = [rows.get(key.tobytes(), -1) for key in image_keys(images)]
        lacking = found.count(-1)
        if lacking:
            raise ValueError(
                f"Expected the maps of all {len(found)} images in {self.path}. "
                f"Received: a cache of {len(self)} images that lacks {lacking} of "
                "them; it was made of other images, of another size or by an earlier "
                "version, or files have changed since."
            )
        return maps[np.asarray(found, int)]
