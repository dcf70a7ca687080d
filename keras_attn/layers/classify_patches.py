import keras
from keras import ops

from keras_attn._checks import check_images, sides
from keras_attn.graph.costs import multiply_adds
from keras_attn.layers._classifiers import (
    build_classifier,
    kind_of,
    logits_of,
    logits_of_mean,
    number_of_classes,
    probabilities_of,
)
from keras_attn.layers._maps import MapLayer
from keras_attn.ops.patches import crop_boxes
from keras_attn.ops.rows import apply_to_rows, can_gather


@keras.saving.register_keras_serializable(package="keras_attn")
class ClassifyPatches(MapLayer):
    """Cuts patches out of images, classifies each, and averages the answers.

    AnchorNet paper, section 4.4: patches go at native size to a classifier, and the
    image's class is the largest entry of the sum of their softmax distributions.

    Images have their patches from different branches and so in different sizes. The
    valid patches of every branch are collected from the whole batch and the
    classifier runs once on exactly these; a branch that no image uses costs nothing.
    JAX compiles static shapes only: there the classifier runs on all
    `max_patches` slots of all images for every branch that some image uses, with the
    same result in more time.

    The classifier runs in inference mode. A single score is that of class 1, by a
    sigmoid. Behind a sigmoid several scores are labels of their own, whose
    probabilities are averaged one by one.

    Args:
        classifier: Keras model from `(patches, height, width, channels)` to logits or
            probabilities, or to a dict with the entry `"logits"`. For several patch
            sizes its height and width must be `None`.
        patch_sizes: Size of every branch's patches, `height` or `(height, width)`.
        max_patches: Largest number of valid patches of every branch, which come
            first, or `None`: as many as there are boxes. Saves time on JAX.
        from_logits: Whether the classifier returns logits; else probabilities. `None`:
            by what its graph ends in; logits where that is unknown.
        gather: Whether to collect valid patches, or `None`: where the backend can.

    Call arguments:
        inputs: List `[images, boxes, valid, branch]`.

    Input shape: list of images `(batch, height, width, channels)` on the scale that
        the classifier expects, boxes `(batch, slots, 4)`, valid `(batch, slots)`, and
        the index of each image's branch `(batch,)`; the last three as
        `LocalizePatches` returns them.

    Output shape: a dict of float32 tensors: `"logits"` `(batch, classes)`, the
        logarithm of the mean probability over the valid patches, so that its softmax
        is that mean, or behind a sigmoid the logit of that mean;
        `"patch_probabilities"` `(batch, slots, classes)`, 0 where
        nothing is valid.

    Convention: a box is `(y0, x0, y1, x1)`, half open, in pixels of the image; its
        patch has the branch's size and begins at `(y0, x0)`. Pixels outside the image
        are 0.

    Raises:
        ValueError: If `classifier` is not a Keras model, there is no patch size,
            `max_patches` has another length, an image is smaller than a patch, or
            `from_logits` is not what the classifier's graph does.

    Example:

    >>> classifier = keras.Sequential(
    ...     [
    ...         keras.Input((None, None, 3)),
    ...         keras.layers.GlobalAveragePooling2D(),
    ...         keras.layers.Dense(10),
    ...     ]
    ... )
    >>> boxes = np.array([[[0, 0, 16, 16], [8, 8, 24, 24]]])
    >>> layer = ClassifyPatches(classifier, patch_sizes=(16, 24))
    >>> outputs = layer([np.zeros((1, 32, 32, 3)), boxes, [[True, True]], [0]])
    >>> outputs["logits"].shape, outputs["patch_probabilities"].shape
    ((1, 10), (1, 2, 10))

    Reference: [yang2020] arXiv:2002.03737, section 4.4.
    """

    def __init__(
        self,
        classifier,
        patch_sizes,
        max_patches=None,
        from_logits=None,
        gather=None,
        **kwargs,
    ):
        # Raw pixels and box corners do not survive a cast to half precision.
        kwargs.setdefault("autocast", False)
        patch_sizes = [sides(size) for size in patch_sizes]
        _check(classifier, patch_sizes, max_patches)
        kind = kind_of(classifier, from_logits)
        super().__init__(**kwargs)
        self.classifier = classifier
        self.patch_sizes = patch_sizes
        self.max_patches = None if max_patches is None else list(max_patches)
        self.from_logits = from_logits
        self.kind = kind
        self.gather = gather
        # XLA on TensorFlow would pad what is gathered, and compile it for minutes.
        self.supports_jit = not (can_gather() if gather is None else gather)

    def build(self, input_shape):
        channels = input_shape[0][-1]
        check_images(input_shape[0], self.patch_sizes)
        if build_classifier(self.classifier, self.patch_sizes, channels):
            self.kind = kind_of(self.classifier, self.from_logits)
        self.num_classes = number_of_classes(
            self.classifier, (*self.patch_sizes[0], channels)
        )
        self.slots = input_shape[1][1]

    def call(self, inputs):
        images, boxes, valid, branch = inputs
        check_images(images.shape, self.patch_sizes)
        logits = self.patch_logits(images, boxes, valid, branch)
        weights = ops.cast(valid, "float32")[:, :, None]
        return {
            "logits": logits_of_mean(logits, weights, self.kind),
            "patch_probabilities": probabilities_of(logits, self.kind) * weights,
        }

    def patch_logits(self, images, boxes, valid, branch):
        """Logits of each valid patch, `(batch, slots, classes)`; zeros elsewhere."""
        boxes, branch = ops.cast(boxes, "int32"), ops.cast(branch, "int32")
        valid = ops.cast(valid, "bool")
        slots = boxes.shape[1]
        total = 0.0
        for index, size in enumerate(self.patch_sizes):
            used = slots if self.max_patches is None else self.max_patches[index]
            used = min(used, slots)
            chosen = ops.logical_and(valid[:, :used], (branch == index)[:, None])
            logits = self._classify(images, boxes[:, :used], chosen, size)
            total += ops.pad(logits, [[0, 0], [0, slots - used], [0, 0]])
        return total

    def _classify(self, images, boxes, chosen, size):
        """Logits `(batch, slots, classes)` of the chosen patches of one size."""
        slots = boxes.shape[1]
        image = ops.arange(ops.shape(boxes)[0], dtype="int32")
        image = ops.reshape(ops.repeat(image, slots), (-1,))

        def classify(image, boxes):
            patches = crop_boxes(images, image, boxes, size)
            return logits_of(self.classifier, patches, self.kind)

        logits = apply_to_rows(
            classify,
            ops.reshape(chosen, (-1,)),
            [image, ops.reshape(boxes, (-1, 4))],
            keras.KerasTensor((self.num_classes,), "float32"),
            self.gather,
        )
        return ops.reshape(logits, (-1, slots, self.num_classes))

    def multiply_adds(self, input_shape):
        """Multiply-adds of an image with all patches of the most expensive branch."""
        channels = input_shape[-1]
        counts = self.max_patches or [self.slots] * len(self.patch_sizes)
        return max(
            min(count, self.slots) * multiply_adds(self.classifier, (*size, channels))
            for count, size in zip(counts, self.patch_sizes, strict=True)
        )

    def compute_output_shape(self, input_shape):
        images, boxes = input_shape[:2]
        shape = (*self.patch_sizes[0], images[-1])
        classes = number_of_classes(self.classifier, shape)
        return {
            "logits": (images[0], classes),
            "patch_probabilities": (images[0], boxes[1], classes),
        }

    def compute_output_spec(self, inputs):
        shapes = self.compute_output_shape([tensor.shape for tensor in inputs])
        return {
            name: keras.KerasTensor(shape, "float32") for name, shape in shapes.items()
        }

    def get_config(self):
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "patch_sizes": self.patch_sizes,
            "max_patches": self.max_patches,
            "from_logits": self.from_logits,
            "gather": self.gather,
        }

    @classmethod
    def from_config(cls, config):
        classifier = keras.saving.deserialize_keras_object(config["classifier"])
        return cls(**{**config, "classifier": classifier})


def _check(classifier, patch_sizes, max_patches):
    if not isinstance(classifier, keras.Model):
        raise ValueError(
            f"Expected `classifier` to be a Keras model. Received: {classifier!r}"
        )
    if not patch_sizes:
        raise ValueError("Expected at least one patch size. Received: patch_sizes=[]")
    if max_patches is not None and len(max_patches) != len(patch_sizes):
        raise ValueError(
            "Expected `max_patches` to have one entry for each of `patch_sizes`. "
            f"Received: max_patches={max_patches}, patch_sizes={patch_sizes}"
        )
