"""A recipe: everything that decides the outcome of a training run, as plain data."""

import dataclasses
import difflib
import itertools
import json
import math
import typing

from keras_attn.pipelines.augment.composition import check_augmentation
from keras_attn.training.recipes.assignments import split_assignment


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run. Every field can be set with `--set field=value`.

    Args:
        name: `DATASET_BACKBONE_ROW`.
        method: Method that it belongs to, a module of `keras_attn.training.methods`.
        dataset: Name of the data set, see `keras_attn.pipelines.sources.load`.
        split: Name of the split, see `keras_attn.pipelines.sources.splits`.
        image_size: Height and width in pixels.
        crop_fraction: Side of the central crop that is kept of an image, relative to
            the image resized to cover it.
        backbone: Name of the backbone, see `keras_attn.models.BACKBONES`.
        row: Row of the paper's table: what is added to the backbone.
        activation: What follows the 3x3 convolutions of bottleneck blocks.
        patch_loss_weight: The paper's lambda; unused without patch logits.
        initial: Folder of a run, or model file, whose weights the training starts
            with; `imagenet`: the published ones of `keras.applications`, or a local
            copy of their file (`.h5`); empty: random ones.
        localizer: Folder of a run, or model file, that localises the patches that
            the network is trained on; empty: it is trained on whole images.
        patches_per_image: Localised patches of an image seen in an epoch.
        max_patches: Most patches of an image that are classified, by branch.
        iou_threshold: Patches overlap by less than this; 0 to 1.
        coverage: Share of the cells that patches are chosen among, by branch.
        deformation: What warps the last map: `none`, `volumetric_transformer` or one
            of its comparators, see `keras_attn.models.warped_classifier`.
        pooling: What turns the last map into a descriptor, see
            `keras_attn.models.descriptors`.
        reduced_channels: Channels of the map that a second-order pooling takes.
        groups: Groups of channels that are warped together; 0: each on its own.
        window: Side of the window of warping candidates, odd.
        temperature: Of the softmax over candidates, the paper's beta.
        mix_channels: Whether the groups' warps depend on each other.
        probabilistic: Whether warps are means over candidates, or regressed.
        consistency_weight: Weight of the consistency loss, the paper's lambda.
        consistency_margin: Margin of the consistency loss, the paper's alpha.
        images_per_class: Images of the same class in a batch; 1: batches in random
            order.
        new_layers_rate: Learning rate of the layers behind the backbone, relative to
            the backbone's; only with `sgd`.
        stem: First layers of a masked ResNet: `patch`, 4x4 convolutions with stride 4,
            or `native`, 3x3 ones without.
        network_size: Height and width that a masked ResNet enlarges its images to; 0:
            `image_size`.
        mask_strength: How far masks replace the plain shortcut, the paper's a.
        mask_target: What is masked: `shortcut`, `branch`, `literal` (both as printed)
            or `none`.
        mask_control: `constant` or `shuffled` maps instead of the images' own; or
            `none`.
        map_model: Folder of a run, or model file, that makes the attention maps.
        map_mode: Whether maps are `cached`, made `online` of the augmented images, or
            learned `end_to_end`; or, of a data set whose objects are known, `true_mask`
            or `true_box`: no model's maps but the object's mask, or its box.
        map_cache: Folder of maps made by `keras-attn masks`; empty: beside the
            `map_model`.
        batch_size: Images in a step, over all devices.
        epochs: Passes over the training set.
        optimizer: `adam`, `adamw` or `sgd` (momentum 0.9).
        learning_rate: Initial learning rate.
        schedule: `steps`: the rate drops at `decay_at`; `cosine`: it falls to zero.
        decay_factor: Factor on the learning rate at each of `decay_at`.
        decay_at: Fractions of the training at which the learning rate drops.
        weight_decay: Coefficient of the decay.
        weight_decay_mode: `l2`, a penalty on kernels, or `decoupled`.
        augmentation: Name of an augmentation or a composition such as
            `resize(36)|random_crop(32)|flip`, see docs/augmentation.md.
        seed: Seed of the weights, the order and the augmentation.
        split_seed: Seed of the split, the same for all seeds of a comparison.
        dtype_policy: `float32`, `mixed_bfloat16` or `mixed_float16`.
        deterministic: Whether to use deterministic operations only.
        jit_compile: Whether to compile the step with XLA.
        examples: Size of the generated data set; unused by others.
        in_memory: Decoded images of up to so many GiB are held in memory, more are
            read from their files again and again.
        difficulty: Of the generated data set, in [0, 1]; unused by others.
    """

    name: str
    method: str = "class_embedding"
    dataset: str = "generated"
    split: str = "official"
    image_size: int = 32
    crop_fraction: float = 1.0
    backbone: str = "rn26"
    row: str = "baseline"
    activation: str = "bn_relu"
    patch_loss_weight: float = 0.5
    initial: str = ""
    localizer: str = ""
    patches_per_image: int = 4
    max_patches: tuple[float, ...] = (5, 3, 2)
    iou_threshold: float = 0.3
    coverage: tuple[float, ...] = (0.05, 0.04, 0.03)
    deformation: str = "none"
    pooling: str = "average"
    reduced_channels: int = 256
    groups: int = 32
    window: int = 11
    temperature: float = 10.0
    mix_channels: bool = True
    probabilistic: bool = True
    consistency_weight: float = 0.0
    consistency_margin: float = 30.0
    images_per_class: int = 1
    new_layers_rate: float = 1.0
    stem: str = "patch"
    network_size: int = 0
    mask_strength: float = 1.0
    mask_target: str = "shortcut"
    mask_control: str = "none"
    map_model: str = ""
    map_mode: str = "cached"
    map_cache: str = ""
    batch_size: int = 32
    epochs: int = 200
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "steps"
    decay_factor: float = 0.1
    decay_at: tuple[float, ...] = (0.5, 0.75)
    weight_decay: float = 1e-4
    weight_decay_mode: str = "l2"
    augmentation: str = "translate_flip"
    seed: int = 0
    split_seed: int = 0
    dtype_policy: str = "float32"
    deterministic: bool = True
    jit_compile: bool = False
    examples: int = 6000
    in_memory: float = 4.0
    difficulty: float = 0.5

    def __post_init__(self):
        for field in POSITIVE:
            if not 0 < getattr(self, field) < math.inf:
                self._fail(field, "a positive number")
        for field in NOT_NEGATIVE:
            if not 0 <= getattr(self, field) < math.inf:
                self._fail(field, "zero or a positive number")
        for field in ("seed", "split_seed"):
            if not 0 <= getattr(self, field) < 2**31:
                self._fail(field, "an integer in [0, 2**31)")
        for field in SHARES:
            if not 0 <= getattr(self, field) <= 1:
                self._fail(field, "a number in [0, 1]")
        if not 0 < self.crop_fraction <= 1:
            self._fail("crop_fraction", "a number in (0, 1]")
        if any(not value >= 1 or value % 1 for value in self.max_patches):
            self._fail("max_patches", "positive integers, one a branch")
        if any(not 0 < value <= 1 for value in self.coverage):
            self._fail("coverage", "numbers in (0, 1], one a branch")
        if self.batch_size % self.images_per_class:
            self._fail("images_per_class", f"a divisor of {self.batch_size}, a batch")
        if self.new_layers_rate != 1 and self.optimizer != "sgd":
            self._fail("new_layers_rate", f"1 with {self.optimizer}")
        edges = (0.0, *self.decay_at, 1.0)
        if any(not low < high for low, high in itertools.pairwise(edges)):
            self._fail("decay_at", "increasing fractions in (0, 1)")
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                self._fail(field, f"one of {', '.join(choices)}")
        check_augmentation(self.augmentation, (self.image_size, self.image_size))

    def _fail(self, field, expected):
        raise ValueError(
            f"Expected {field} of recipe {self.name!r} to be {expected}. "
            f"Received: {field}={getattr(self, field)!r}"
        )

    @property
    def published_weights(self):
        """`imagenet`, or the path of a file as published; `None` without them."""
        named = self.initial == PUBLISHED or self.initial.endswith(".h5")
        return self.initial if named else None

    def patch_settings(self):
        """How patches are chosen at inference, as arguments of `LocalizePatches`."""
        return {
            "max_patches": tuple(int(value) for value in self.max_patches),
            "iou_threshold": self.iou_threshold,
            "coverage": tuple(self.coverage),
        }

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        values = json.loads(text)
        values["decay_at"] = tuple(values["decay_at"])
        # Fields that came later are not in older files: their defaults hold.
        for name in ("max_patches", "coverage"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)


POSITIVE = (
    "image_size",
    "batch_size",
    "epochs",
    "learning_rate",
    "decay_factor",
    "examples",
    "patches_per_image",
    "reduced_channels",
    "window",
    "temperature",
    "images_per_class",
    "new_layers_rate",
)
SHARES = ("patch_loss_weight", "difficulty", "iou_threshold", "mask_strength")
NOT_NEGATIVE = (
    "weight_decay",
    "in_memory",
    "groups",
    "consistency_weight",
    "consistency_margin",
    "network_size",
)
# Of `Recipe.initial`: the published weights, to be downloaded.
PUBLISHED = "imagenet"

CHOICES = {
    "method": (
        "class_embedding",
        "anchornet",
        "volumetric_transformer",
        "attention_masked_residual",
    ),
    "stem": ("patch", "native"),
    "mask_target": ("shortcut", "branch", "literal", "none"),
    "mask_control": ("none", "constant", "shuffled"),
    "map_mode": ("cached", "online", "end_to_end", "true_mask", "true_box"),
    "schedule": ("steps", "cosine"),
    "optimizer": ("adam", "adamw", "sgd"),
    "weight_decay_mode": ("l2", "decoupled"),
    "dtype_policy": ("float32", "mixed_bfloat16", "mixed_float16"),
}


def apply_overrides(recipe, assignments):
    """The recipe with `key=value` texts applied, each checked against its type.

    Raises:
        ValueError: For an unknown key (naming the nearest), a missing `=`, or a value
            of another type.
    """
    types = typing.get_type_hints(type(recipe))
    types.pop("name")
    changes = {}
    for assignment in assignments:
        key, text = split_assignment(assignment)
        if key not in types:
            nearest = difflib.get_close_matches(key, types, 1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(
                f"Expected a key of the recipe: {', '.join(types)}. "
                f"Received: {key!r}.{hint}"
            )
        changes[key] = _parse(key, text, types[key])
    return dataclasses.replace(recipe, **changes)


def _parse(key, text, kind):
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        return tuple(float(part) for part in text.split(",") if part)
    except (KeyError, ValueError):
        words = {bool: "true or false", int: "an integer", float: "a number"}
        expected = words.get(kind, "numbers separated by commas")
        raise ValueError(
            f"Expected {key} to be {expected}. Received: {key}={text!r}"
        ) from None
