"""Attention maps of ViT-S/8 and ViT-B/8 at 224 x 224, against plain PyTorch."""

import importlib.util
import statistics

import keras
import numpy as np
from keras import ops

from benchmarks import measure
from keras_attn.models import VIT_SIZES, attention_map_model, attention_of, vit

IMAGE_SIZE = 224
PATCH_SIZE = 8
SIZES = {"ViT-S/8": "small", "ViT-B/8": "base"}
DTYPES = ("float32", "bfloat16")
# Names of the cases: only what the map needs, and all that the network computes.
MAP, FULL = "map", "full pass"
AUTHORS, FUSED = "PyTorch, as the authors", "PyTorch, fused attention"


def run(quick):
    """Measurements of every way that the backend has, and of plain PyTorch."""
    rows = []
    for label, size in list(SIZES.items())[: 1 if quick else None]:
        for dtype in DTYPES:
            images = np.random.default_rng(0).normal(
                size=(2 if quick else 4, IMAGE_SIZE, IMAGE_SIZE, 3)
            )
            images = images.astype("float32")
            cases = ours(size, dtype, images)
            if importlib.util.find_spec("torch"):
                cases |= plain_pytorch(size, dtype, images)
            seconds = measure.interleaved(cases, 3 if quick else 5)
            rows += measurements(seconds, len(images), f"{label}, {dtype}")
    return rows


def measurements(seconds, images, label):
    """Maps per second, and how many times those of PyTorch's faster way.

    Without torch the full pass takes its place, and the cases are named so.

    Args:
        seconds: Dict from (case, xla) to the list of seconds, one a round.
        images: Number of images that a round takes.
        label: What the cases have in common.
    """
    plain = [times for (case, _), times in seconds.items() if case in (AUTHORS, FUSED)]
    suffix = "" if plain else ", no torch"
    rivals = plain or [times for (case, _), times in seconds.items() if case == FULL]
    fastest = min(rivals, key=statistics.median)
    return [
        measure.Measurement(
            f"{label}, {case}{suffix}",
            images / statistics.median(times),
            "maps/s",
            measure.median_ratio(fastest, times),
            xla,
        )
        for (case, xla), times in seconds.items()
    ]


def ours(size, dtype, images):
    """(case, xla) -> function that computes the maps of these images.

    The full pass has the same weights, runs every layer, and keeps the last block's
    attention of all tokens to all tokens.
    """
    before = keras.config.dtype_policy()
    # Weights are of this type too, as in PyTorch.
    keras.config.set_dtype_policy(dtype)
    try:
        model = vit(size, PATCH_SIZE, (IMAGE_SIZE, IMAGE_SIZE, 3))
        whole = keras.Model(
            model.input,
            {**model.output, "attention": attention_of(model).output},
        )
        models = {MAP: attention_map_model(model), FULL: whole}
        return {
            (case, xla): function
            for case, one in models.items()
            for xla, function in WAYS[keras.backend.backend()](one, images).items()
        }
    finally:
        keras.config.set_dtype_policy(before)


def _tensorflow(model, images):
    import tensorflow as tf

    images = tf.constant(images)

    def call(images):
        return model(images, training=False)

    compiled = {"off": tf.function(call), "on": tf.function(call, jit_compile=True)}
    return {xla: _waiting(one, images) for xla, one in compiled.items()}


def _jax(model, images):
    import jax

    trainable = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]

    def call(trainable, state, images):
        return model.stateless_call(trainable, state, images, training=False)[0]

    return {"on": _waiting(jax.jit(call), trainable, state, ops.array(images))}


def _torch(model, images):
    import torch

    images = ops.convert_to_tensor(images)

    def call(images):
        with torch.inference_mode():
            return model(images, training=False)

    return {"off": _waiting(call, images)}


WAYS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


def _waiting(function, *arguments):
    def call():
        for result in keras.tree.flatten(function(*arguments)):
            # NumPy has no bfloat16 scalars.
            one = result[(slice(1),) * len(result.shape)]
            measure.wait_for(ops.cast(one, "float32"))

    return call


def plain_pytorch(size, dtype, images):
    """(case, xla) -> the same in PyTorch, the rows of the class token taken at the end.

    On as many threads as the backend has, by default all cores.
    """
    import torch

    from benchmarks.plain_vit import VisionTransformer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    images = images.to(device, getattr(torch, dtype))

    def last_attention(fused):
        model = VisionTransformer(*VIT_SIZES[size], PATCH_SIZE, IMAGE_SIZE, fused=fused)
        model = model.to(device, getattr(torch, dtype)).eval()

        def call():
            with torch.inference_mode():
                _, attention = model.last_attention(images)
                return attention[:, :, 0, 1:].float().cpu()

        return call

    return {(AUTHORS, ""): last_attention(False), (FUSED, ""): last_attention(True)}
