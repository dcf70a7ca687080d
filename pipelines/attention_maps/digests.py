"""Digests of images and models, by which cached maps are found again."""

import hashlib
import json

import keras
import numpy as np

from keras_attn.graph.keras_graph import layers_of
from keras_attn.pipelines.images.streaming import StreamedImages


def image_keys(images):
    """A key for every image, `(examples, 16)` bytes: equal for equal images.

    Of pixels in memory; of streamed images the name, the size and the time of change
    of the file, and what is done to fit it.
    """
    if isinstance(images, StreamedImages):
        keys = [
            bytes.fromhex(images[i : i + 1].digest(content=True))[:16]
            for i in range(len(images))
        ]
    else:
        described = f"{images.shape[1:]} {images.dtype}".encode()
        keys = [
            hashlib.blake2b(
                np.ascontiguousarray(image), digest_size=16, key=described[:64]
            ).digest()
            for image in images
        ]
    return np.frombuffer(b"".join(keys), "uint8").reshape(-1, 16)


def digest_of_keys(keys):
    return hashlib.sha256(np.ascontiguousarray(keys)).hexdigest()


def model_digest(model):
    """Differs between models that compute something else; names do not matter."""
    names = [layer.name for layer in layers_of(model, True)]
    numbers = {name: f"#{number}" for number, name in enumerate(names)}
    # What depends on how a model is used, or on the process that made it.
    left_out = {"trainable", "compile_config", "build_config", "shared_object_id"}

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in left_out}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return numbers.get(value, value) if isinstance(value, str) else value

    config = json.dumps(plain(json.loads(model.to_json())), sort_keys=True)
    digest = hashlib.sha256(config.encode())
    for weight in model.weights:
        array = keras.ops.convert_to_numpy(weight)
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
