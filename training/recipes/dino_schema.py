"""A recipe of self-supervised training, as plain data."""

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class DinoRecipe:
    """One training run of DINO. Every field can be set with `--set field=value`.

    Published values are the defaults (ViT-S/16, 100 epochs of ImageNet).

    Args:
        name: `DATASET_BACKBONE_dino`.
        method: `dino`, by which the file of a recipe is told from others.
        dataset, split, split_seed, crop_fraction, in_memory, examples, difficulty:
            As of `keras_attn.training.recipes.schema.Recipe`. Labels only serve the
            validation.
        image_size: Side of the images that views are cut from.
        size: Of the transformer: `mini`, `tiny`, `small` or `base`.
        blocks: Of the transformer; 0: as many as its size has.
        patch_size: Side of its patches.
        drop_path: Of the student, see `keras_attn.models.vit`.
        units, hidden_units, bottleneck_units: Of the heads, see `DinoHead`.
        global_size, local_size, local_views: Views of an image, see
            `keras_attn.pipelines.batches.multi_crop`; views other than of 224 pixels
            have a blur in proportion.
        smallest_global, smallest_local, greatest_local: Least share of the area that a
            global view covers, and least and most that a local one covers.
        jitter, grey: Share of the views with changed colours, and of grey ones.
        teacher_momentum: At the start; it rises to 1.
        teacher_temperature: After `teacher_warmup_epochs`, in which it rises from
            `first_teacher_temperature`.
        learning_rate: For 256 images in a step; it grows with their number.
        final_learning_rate, warmup_epochs, weight_decay, final_weight_decay,
            clipnorm, resting_epochs: See `keras_attn.models.dino_optimizer`.
        batch_size, epochs, seed, dtype_policy, deterministic, jit_compile: As of
            `Recipe`.
        neighbours: Of the validation by nearest neighbours.
        judged_images: Most images of the training and of the validation set that it
            takes.
    """

    name: str
    method: str = "dino"
    dataset: str = "generated"
    split: str = "official"
    image_size: int = 256
    crop_fraction: float = 1.0
    size: str = "small"
    blocks: int = 0
    patch_size: int = 16
    drop_path: float = 0.1
    units: int = 65536
    hidden_units: int = 2048
    bottleneck_units: int = 256
    global_size: int = 224
    local_size: int = 96
    local_views: int = 8
    smallest_global: float = 0.4
    smallest_local: float = 0.05
    greatest_local: float = 0.4
    jitter: float = 0.8
    grey: float = 0.2
    teacher_momentum: float = 0.996
    teacher_temperature: float = 0.04
    first_teacher_temperature: float = 0.04
    teacher_warmup_epochs: int = 0
    learning_rate: float = 5e-4
    final_learning_rate: float = 1e-6
    warmup_epochs: float = 10.0
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    clipnorm: float = 3.0
    resting_epochs: float = 1.0
    batch_size: int = 256
    epochs: int = 100
    seed: int = 0
    split_seed: int = 0
    dtype_policy: str = "float32"
    deterministic: bool = True
    jit_compile: bool = False
    neighbours: int = 20
    judged_images: int = 5000
    examples: int = 6000
    in_memory: float = 4.0
    difficulty: float = 0.5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 0):
                self._fail(field.name, "an integer of at least 0")
            if field.type is float and not 0 <= value < float("inf"):
                self._fail(field.name, "zero or a positive number")
        for field in POSITIVE:
            if not getattr(self, field) > 0:
                self._fail(field, "a positive number")
        for field in ("teacher_momentum", "smallest_global", "greatest_local"):
            if not getattr(self, field) < 1:
                self._fail(field, "less than 1")
        for field in ("jitter", "grey"):
            if getattr(self, field) > 1:
                self._fail(field, "at most 1")
        if not self.smallest_local < self.greatest_local:
            self._fail("smallest_local", "less than greatest_local")
        sizes = [self.global_size, *[self.local_size] * (self.local_views > 0)]
        if any(size % self.patch_size for size in [*sizes, self.image_size]):
            self._fail(
                "patch_size", "a divisor of image_size, global_size and local_size"
            )
        if self.warmup_epochs >= self.epochs:
            self._fail("warmup_epochs", f"less than epochs={self.epochs}")
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                self._fail(field, f"one of {', '.join(choices)}")

    def _fail(self, field, expected):
        raise ValueError(
            f"Expected {field} of recipe {self.name!r} to be {expected}. "
            f"Received: {field}={getattr(self, field)!r}"
        )

    @property
    def backbone(self):
        return f"vit_{self.size}_{self.patch_size}"

    @property
    def row(self):
        return "dino"

    def multi_crop(self):
        """`MultiCrop` of the views."""
        # Recipes are listed without TensorFlow.
        from keras_attn.pipelines.batches.multi_crop import MultiCrop

        return MultiCrop.for_size(
            self.global_size,
            self.local_size,
            local_views=self.local_views,
            global_area=(self.smallest_global, 1.0),
            local_area=(self.smallest_local, self.greatest_local),
            jitter=self.jitter,
            grey=self.grey,
        )

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        return cls(**json.loads(text))


POSITIVE = (
    "image_size",
    "patch_size",
    "units",
    "hidden_units",
    "bottleneck_units",
    "global_size",
    "local_size",
    "smallest_global",
    "smallest_local",
    "teacher_temperature",
    "first_teacher_temperature",
    "learning_rate",
    "clipnorm",
    "batch_size",
    "epochs",
    "neighbours",
    "judged_images",
    "examples",
)
CHOICES = {
    "method": ("dino",),
    "size": ("mini", "tiny", "small", "base"),
    "dtype_policy": ("float32", "mixed_bfloat16", "mixed_float16"),
}
