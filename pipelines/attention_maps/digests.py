"""Digests of images and models, by which cached maps are found again."""

import json

import keras
import numpy as np

from keras_attn.graph.keras_graph import layers_of
from keras_attn.pipelines.files import digest_of
from keras_attn.pipelines.images.streaming import StreamedImages


def image_keys(images):
    """Keys of images, `(examples, 16)` bytes: equal for equal images.

    Pixels in memory decide; of streamed images the name, the size and the time of
    change of the file, and how it is fitted.
    """
    if isinstance(images, StreamedImages):
        single = (images[i : i + 1] for i in range(len(images)))
        digests = [image.digest(content=True) for image in single]
    else:
        digests = [digest_of(image) for image in images]
    keys = bytes.fromhex("".join(digest[:32] for digest in digests))
    return np.frombuffer(keys, "uint8").reshape(-1, 16)


def model_digest(model):
    """Differs between models that compute something else; names do not matter."""
    names = [layer.name for layer in layers_of(model, True)]
    numbers = {name: f"#{number}" for number, name in enumerate(names)}
    # These depend on how a model is used, or on the process that made it.
    left_out = {"trainable", "compile_config", "build_config", "shared_object_id"}

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in left_out}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return numbers.get(value, value) if isinstance(value, str) else value

    config = json.dumps(plain(json.loads(model.to_json())), sort_keys=True)
    return digest_of(config, *map(keras.ops.convert_to_numpy, model.weights))
