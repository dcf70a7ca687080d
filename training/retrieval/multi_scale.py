"""Descriptors of images at several scales, and of images of any shape."""

import dataclasses
import itertools
import re
from typing import NamedTuple

import keras
import numpy as np

from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.retrieval.descriptors import describe, embedder_of

# Images in memory at a time.
CHUNK = 32


class Excerpt(NamedTuple):
    """An image, or what is cut out of one.

    Args:
        pixels: `(height, width, 3)`, uint8.
        longest: Longer side of the whole image that it is from.
    """

    pixels: np.ndarray
    longest: int


class MultiScaleDescriber:
    """Describes images by the network of a trained model, at several scales.

    The descriptors of all scales, each of length one, are averaged and scaled to
    length one again.

    Args:
        trained: `Trained`.
        scales: Factors of the image's side.
        longest_side: Images keep their aspect ratio, and are made smaller until their
            longer side is this at most, as usual in retrieval; what is cut out of an
            image is resized as the image itself. By default images are fitted to the
            model's own size as in its training, which crops them to its aspect ratio.

    Raises:
        ValueError: If a scale is not positive, or the model has no descriptors.
    """

    def __init__(self, trained, scales=(1.0,), longest_side=None):
        scales = tuple(float(scale) for scale in scales)
        if not scales or not all(0 < scale < 100 for scale in scales):
            raise ValueError(
                f"Expected positive scales, below 100. Received: scales={scales}"
            )
        if longest_side is not None and longest_side < 1:
            raise ValueError(
                "Expected a positive longest side. "
                f"Received: longest_side={longest_side}"
            )
        self.spec = trained.spec
        self.path = trained.path
        self.scales = scales
        self.longest_side = longest_side
        self.embedder = embedder_of(trained)
        self.at_sizes = {}

    @property
    def dimension(self):
        return self.embedder.output.shape[-1]

    def describe(self, excerpts):
        """Descriptors `(excerpts, dimension)`, float32, of length one.

        Args:
            excerpts: Iterable of `Excerpt`.
        """
        parts = [np.empty((0, self.dimension), "float32")]
        excerpts = iter(excerpts)
        while chunk := list(itertools.islice(excerpts, CHUNK)):
            parts.append(self._describe_chunk(chunk))
        return np.concatenate(parts)

    def _describe_chunk(self, excerpts):
        total = np.zeros((len(excerpts), self.dimension), "float32")
        for scale in self.scales:
            sizes = [self._size(excerpt, scale) for excerpt in excerpts]
            for size in dict.fromkeys(sizes):
                rows = [row for row, each in enumerate(sizes) if each == size]
                total[rows] += self._at_size(
                    [excerpts[row].pixels for row in rows], size
                )
        lengths = np.linalg.norm(total, axis=1, keepdims=True)
        return total / np.maximum(lengths, 1e-12)

    def _size(self, excerpt, scale):
        """Height and width at which the network sees a excerpt."""
        size, factor = (self.spec.height, self.spec.width), scale
        if self.longest_side is not None:
            size = excerpt.pixels.shape[:2]
            factor = scale * min(1.0, self.longest_side / excerpt.longest)
        return tuple(max(1, round(length * factor)) for length in size)

    def _at_size(self, images, size):
        """Descriptors of images that are made this large."""
        try:
            if size not in self.at_sizes:
                self.at_sizes[size] = self._embedder(size)
            embedder, preprocessing = self.at_sizes[size]
            fitted = [np.asarray(preprocessing.fit_size(image)) for image in images]
            return describe(embedder, np.stack(fitted))
        except (ValueError, TypeError) as error:
            if size == (self.spec.height, self.spec.width):
                raise
            raise ValueError(
                f"Expected images that {self.path} can see. Received: one of {size[0]} "
                f"x {size[1]} pixels. {_reason(error)}"
            ) from error

    def _embedder(self, size):
        """The network for images of this size, and what fits them to it."""
        own = (self.spec.height, self.spec.width)
        spec = dataclasses.replace(self.spec, height=size[0], width=size[1])
        if self.longest_side is not None:
            spec = dataclasses.replace(spec, crop_fraction=1.0)
        embedder = self.embedder if size == own else self._resized(spec)
        return embedder, ImagePreprocessing(spec)

    def _resized(self, spec):
        (source,) = self.embedder.inputs
        images = keras.Input((spec.height, spec.width, 3), dtype=source.dtype)

        def layer_for_size(layer):
            if not isinstance(layer, ImagePreprocessing):
                # Shared, with its weights.
                return layer
            return ImagePreprocessing(spec, layer.resize, dtype=layer.dtype_policy)

        inputs = keras.tree.pack_sequence_as(self.embedder.input, [images])
        copy = keras.models.clone_model(
            self.embedder, inputs, clone_function=layer_for_size
        )
        embedder = keras.Model(images, copy.output, name="embedder")
        if self.longest_side is not None:
            # There are too many sizes to compile a program for each.
            embedder.compile(run_eagerly=True)
        return embedder


def _reason(error):
    """The error of a layer, without the lines that Keras puts around it."""
    paragraphs = re.sub("\x1b\\[[0-9]+m", "", str(error)).split("\n\n")
    wrapped = paragraphs[0].startswith("Exception encountered when calling")
    return " ".join(paragraphs[min(wrapped, len(paragraphs) - 1)].split())
