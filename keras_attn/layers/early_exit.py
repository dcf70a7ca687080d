import keras
from keras import ops

from keras_attn._checks import sides
from keras_attn.early_exit.thresholds import policy_of
from keras_attn.graph.costs import multiply_adds, patch_cost
from keras_attn.layers._classifiers import (
    build_classifier,
    is_sigmoid,
    kind_of,
    logits_of,
    number_of_classes,
    two_sided,
)
from keras_attn.layers._maps import MapLayer
from keras_attn.layers.classify_patches import ClassifyPatches
from keras_attn.layers.localize_patches import LocalizePatches
from keras_attn.ops.patches import first_true
from keras_attn.ops.resize import resize_bicubic
from keras_attn.ops.rows import apply_to_rows

NETWORKS = ("localizer", "resized_classifier", "patch_classifier")


@keras.saving.register_keras_serializable(package="keras_attn")
class EarlyExit(MapLayer):
    """Classifies the resized image, then patch after patch until the answer is clear.

    The early-exit inference of the code that followed the AnchorNet paper:

    - stage 0: `resized_classifier` on the resized image;
    - then the localiser finds patches in the images that continue;
    - stage `i`: `patch_classifier` on the `i`-th patch; its logits are added to the sum
      of all before.

    An image exits at the first stage whose confidence exceeds that stage's threshold,
    at the last stage, or at its last valid patch. The confidence is the largest softmax
    of the sum; for a single score, that of class 1, the sigmoid or the rest, whichever
    is larger. An image's outputs do not depend on the other images of the batch.

    Images that have exited cost nothing: the networks run on those that continue, or
    not at all. JAX compiles static shapes only: there a network runs on the whole batch
    as long as one image continues, with the same results.

    All networks run in inference mode.

    Args:
        localizer: Localiser, a Keras model with outputs `logits_NAME` and
            `evidence_NAME` for every branch, see `LocalizePatches`.
        resized_classifier, patch_classifier: Keras models to logits or probabilities,
            or to a dict with the entry `"logits"`, of the same classes; they may be
            one model.
        branches, max_patches, iou_threshold, coverage: Arguments of `LocalizePatches`.
            There are `1 + max(max_patches)` stages.
        resized_size: Size of the resized image, `height` or `(height, width)`; see
            `keras_attn.ops.resize.resize_bicubic`. With the images' own size,
            `resized_classifier` gets the images as they are, to fit them to its size
            by its own `ImagePreprocessing`.
        policy: `keras_attn.ExitThresholds`, an `ExitRule`, or another serialisable
            object whose method `stop(stage, confidences)` takes all confidences so far,
            `(batch, stage + 1)`, and returns which images exit, `(batch,)`. `None`: no
            image exits before the last stage.
        from_logits: Whether the classifiers return logits; else probabilities. `None`:
            by what the graph of each ends in; logits where that is unknown.
        costs: Dict of the multiply-adds of one use of each network, `"resized"`,
            `"localizer"` and `"patch"`, a list with one number per branch. `None`:
            counted, which needs functional models.
        gather: Whether to leave finished images out, or `None`: where the backend can.

    Call arguments:
        images: A batch of images.

    Input shape: images `(batch, height, width, channels)`, on the scale that all three
        networks expect.

    Output shape: a dict; the last stage of an image is that at which it exits.
        - `"logits"` `(batch, classes)`: sum of the logits until the last stage,
        - `"exit"` `(batch,)`, int32: last stage, which is the number of patches used,
        - `"confidence"` `(batch, stages)` and `"predictions"` `(batch, stages)`, int32:
          those of each stage; after the last stage, its own,
        - `"cost"` `(batch,)`: multiply-adds spent, those of the localiser included,
        - `"branch"` `(batch,)`, int32, and `"boxes"` `(batch, stages - 1, 4)`, int32,
          `"scores"`, `"valid"` `(batch, stages - 1)`: what the localiser found, the
          first `exit` patches of which were used; -1, -1, 0 and `False` where it was
          not run.

        Floating-point outputs are float32.

    Convention: boxes are `(y0, x0, y1, x1)`, half-open pixel coordinates of the images.

    Raises:
        ValueError: For a policy of another number of exits, classifiers of different
            classes or of several labels, images smaller than a patch, and arguments
            that `LocalizePatches` or `ClassifyPatches` refuses.

    Example:

    >>> pixels = keras.Input((32, 32, 3))
    >>> evidence = keras.layers.AveragePooling2D(16, strides=8)(pixels)
    >>> logits = keras.layers.GlobalAveragePooling2D()(evidence)
    >>> localizer = keras.Model(pixels, {"logits_16": logits, "evidence_16": evidence})
    >>> classifier = keras.Sequential(
    ...     [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]
    ... )
    >>> layer = EarlyExit(
    ...     localizer,
    ...     resized_classifier=classifier,
    ...     patch_classifier=classifier,
    ...     branches=[{"name": "16", "patch_size": 16}],
    ...     max_patches=2,
    ...     resized_size=16,
    ...     policy=keras_attn.ExitThresholds(0.9),
    ... )
    >>> outputs = layer(keras.random.uniform((5, 32, 32, 3)))
    >>> outputs["logits"].shape, outputs["exit"].shape, outputs["boxes"].shape
    ((5, 3), (5,), (5, 2, 4))

    Reference: [yang2022] arXiv:2206.03367.
    """

    def __init__(
        self,
        localizer,
        resized_classifier,
        patch_classifier,
        branches,
        max_patches,
        resized_size,
        iou_threshold=0.3,
        coverage=1.0,
        policy=None,
        from_logits=None,
        costs=None,
        gather=None,
        **kwargs,
    ):
        # Raw pixels and box corners do not survive a cast to half precision.
        kwargs.setdefault("autocast", False)
        # The name of `ExitThresholds` in earlier versions.
        policy = policy_of(kwargs.pop("thresholds", None), policy)
        localize = LocalizePatches(
            branches, max_patches, iou_threshold, coverage, name="localize"
        )
        patches = ClassifyPatches(
            patch_classifier,
            [branch["patch_size"] for branch in localize.branches],
            localize.max_patches,
            from_logits,
            gather,
            name="patches",
        )
        stages = 1 + max(localize.max_patches)
        exits = getattr(policy, "exits", None)
        if exits not in (None, stages):
            raise ValueError(
                f"Expected a policy of {stages} exits, one more than the largest of "
                f"`max_patches`. Received: one of {exits}"
            )
        kind = kind_of(resized_classifier, from_logits)
        super().__init__(**kwargs)
        self.localizer = localizer
        self.resized_classifier = resized_classifier
        self.patch_classifier = patch_classifier
        self.localize = localize
        self.patches = patches
        self.branches = localize.branches
        self.max_patches = localize.max_patches
        self.iou_threshold = localize.iou_threshold
        self.coverage = localize.coverage
        self.resized_size = sides(resized_size)
        self.policy = policy
        self.from_logits = from_logits
        self.resized_kind = kind
        self.costs = costs
        self.gather = gather
        self.supports_jit = patches.supports_jit
        self.stages = stages

    def build(self, input_shape):
        channels = input_shape[-1]
        self.input_spec = keras.layers.InputSpec(shape=(None, *input_shape[1:]))
        slots = self.stages - 1
        boxes = [(None, slots, 4), (None, slots), (None,)]
        self.patches.build([input_shape, *boxes])
        if build_classifier(self.resized_classifier, [self.resized_size], channels):
            self.resized_kind = kind_of(self.resized_classifier, self.from_logits)
        resized = (*self.resized_size, channels)
        found = number_of_classes(self.resized_classifier, resized)
        if found != self.patches.num_classes:
            raise ValueError(
                "Expected two classifiers of the same classes. Received: "
                f"resized_classifier with {found} and patch_classifier with "
                f"{self.patches.num_classes} classes"
            )
        kinds = self.resized_kind, self.patches.kind
        if found > 1 and any(is_sigmoid(kind, found) for kind in kinds):
            raise ValueError(
                "Expected classifiers of one class per image: an exit is where one "
                "class is clear. Received: sigmoids of several labels"
            )
        self.network_costs = self.costs
        if self.costs is None:
            sizes = self.patches.patch_sizes
            image = tuple(input_shape[1:])
            of = patch_cost(self.localizer, self.patch_classifier, sizes, image)
            self.network_costs = {
                "resized": multiply_adds(self.resized_classifier, resized),
                "localizer": of.localizer,
                "patch": list(of.patch),
            }

    def call(self, images):
        logits = logits_of(
            self.resized_classifier, self._resize(images), self.resized_kind
        )
        confidences, predictions = [], []
        running = ops.ones_like(logits[:, 0], dtype="bool")
        cost = ops.full_like(logits[:, 0], self.network_costs["resized"])
        exits = ops.zeros_like(logits[:, 0], dtype="int32")
        for stage in range(self.stages):
            if stage == 1:
                found = self._localize(images, running)
                cost += self.network_costs["localizer"] * ops.cast(running, "float32")
                patch_costs = self._patch_costs(found["branch"])
            if stage > 0:
                slot = slice(stage - 1, stage)
                running = ops.logical_and(running, found["valid"][:, slot][:, 0])
                new = self.patches.patch_logits(
                    images, found["boxes"][:, slot], running[:, None], found["branch"]
                )
                # Zeros for images that have exited, whose sum thus stays.
                logits = logits + new[:, 0]
                cost += patch_costs * ops.cast(running, "float32")
                exits = ops.where(running, stage, exits)
            both = two_sided(logits)
            confidences.append(ops.max(ops.softmax(both, axis=-1), axis=-1))
            predictions.append(
                first_true(ops.equal(both, ops.max(both, axis=-1, keepdims=True)))
            )
            if stage < self.stages - 1:
                stops = self._stops(stage, ops.stack(confidences, axis=1))
                running = ops.logical_and(running, ops.logical_not(stops))
        return {
            "logits": logits,
            "exit": exits,
            "confidence": ops.stack(confidences, axis=1),
            "predictions": ops.stack(predictions, axis=1),
            "cost": cost,
            **found,
        }

    def _resize(self, images):
        if tuple(images.shape[1:3]) == self.resized_size:
            return images
        return resize_bicubic(images, self.resized_size)

    def _localize(self, images, running):
        """Patches of the images that continue; none for the others."""
        names = [
            f"{kind}_{branch['name']}"
            for branch in self.branches
            for kind in ("logits", "evidence")
        ]

        def localize(images):
            maps = self.localizer(images, training=False)
            found = self.localize({name: maps[name] for name in names})
            return {name: found[name] for name in outputs}

        outputs = self._found_spec(())
        found = apply_to_rows(localize, running, [images], outputs, self.gather)
        known = ops.any(found["valid"], axis=1)
        return {
            **found,
            "boxes": ops.where(found["valid"][:, :, None], found["boxes"], -1),
            "branch": ops.where(known, found["branch"], -1),
        }

    def _found_spec(self, batch):
        slots = self.stages - 1
        return {
            "branch": keras.KerasTensor(batch, "int32"),
            "boxes": keras.KerasTensor((*batch, slots, 4), "int32"),
            "scores": keras.KerasTensor((*batch, slots), "float32"),
            "valid": keras.KerasTensor((*batch, slots), "bool"),
        }

    def _patch_costs(self, branch):
        """Multiply-adds of one patch of each image's branch."""
        costs = ops.convert_to_tensor(self.network_costs["patch"], "float32")
        return ops.take(costs, ops.maximum(branch, 0), axis=0)

    def _stops(self, stage, confidences):
        if self.policy is None:
            return ops.zeros_like(confidences[:, -1], dtype="bool")
        return ops.cast(self.policy.stop(stage, confidences), "bool")

    def multiply_adds(self, input_shape):
        """Multiply-adds of an image that exits at the last, most expensive stage."""
        patches = self.patches.multiply_adds(input_shape)
        return self.network_costs["resized"] + self.network_costs["localizer"] + patches

    def compute_output_shape(self, input_shape):
        return {
            name: tensor.shape
            for name, tensor in self._output_spec(tuple(input_shape)).items()
        }

    def compute_output_spec(self, images):
        return self._output_spec(tuple(images.shape))

    def _output_spec(self, input_shape):
        batch = input_shape[:1]
        classes = number_of_classes(
            self.resized_classifier, (*self.resized_size, input_shape[-1])
        )
        stages = (*batch, self.stages)
        return {
            "logits": keras.KerasTensor((*batch, classes), "float32"),
            "exit": keras.KerasTensor(batch, "int32"),
            "confidence": keras.KerasTensor(stages, "float32"),
            "predictions": keras.KerasTensor(stages, "int32"),
            "cost": keras.KerasTensor(batch, "float32"),
            **self._found_spec(batch),
        }

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **{name: serialize(getattr(self, name)) for name in NETWORKS},
            "branches": [dict(branch) for branch in self.branches],
            "max_patches": self.max_patches,
            "resized_size": self.resized_size,
            "iou_threshold": self.iou_threshold,
            "coverage": self.coverage,
            "policy": None if self.policy is None else serialize(self.policy),
            "from_logits": self.from_logits,
            "costs": self.costs,
            "gather": self.gather,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in (*NETWORKS, "policy"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)
