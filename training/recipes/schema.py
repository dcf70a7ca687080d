"""A recipe: everything that decides the outcome of a training run, as plain data."""

import dataclasses
import json

from keras_attn.training.recipes import fields
from keras_attn.training.recipes.assignments import split_assignment
from keras_attn.training.recipes.blocks import Options
from keras_attn.training.recipes.fields import choice, number, plain
from keras_attn.training.recipes.options import method_names, options_of


@dataclasses.dataclass(frozen=True, init=False)
class Recipe:
    """One training run: what all methods share, and the options of its method.

    Options are given like the other fields, `Recipe(name="mine", method="anchornet",
    patches_per_image=2)`, and read as `recipe.options.patches_per_image`; a file and
    `--set field=value` make no difference between both either.

    Args:
        name: `DATASET_BACKBONE_ROW`.
        method: Name of the method, a module of `keras_attn.training.methods`.
        options: Options to start from, of the method's class in
            `keras_attn.training.recipes.options`; by default its defaults.
        **values: Fields of the recipe and of its options.

    Raises:
        ValueError: For an unknown field (naming the nearest), or a value outside its
            range or choices.
    """

    name: str
    method: str = plain("class_embedding", "Name of the method.")
    dataset: str = plain(
        "generated", "Name of the data set, see `keras_attn.pipelines.sources.load`."
    )
    split: str = plain(
        "official", "Name of the split, see `keras_attn.pipelines.sources.splits`."
    )
    split_seed: int = number(
        0,
        "Seed of the split, the same for all seeds of a comparison.",
        at_least=0,
        below=2**31,
    )
    train_per_class: int = number(
        0,
        "Training images of each class that are used, chosen by `split_seed`; 0: all.",
        at_least=0,
    )
    depth: int = number(
        0,
        "Number of nested folders that name a class of the data set `folder`; 0: one, "
        "without folders below.",
        at_least=0,
    )
    image_size: int = number(32, "Height and width in pixels.", above=0)
    crop_fraction: float = number(
        1.0,
        "Side of the central crop that is kept of an image, relative to the image "
        "resized to cover it.",
        above=0,
        at_most=1,
    )
    in_memory: float = number(
        4.0,
        "Limit in GiB up to which decoded images are kept in memory; above it they are "
        "read from their files in every epoch.",
        at_least=0,
    )
    examples: int = number(
        6000, "Size of the generated data set; unused by others.", above=0
    )
    difficulty: float = number(
        0.5,
        "Difficulty of the generated data set; unused by others.",
        at_least=0,
        at_most=1,
    )
    batch_size: int = number(32, "Images in a step, over all devices.", above=0)
    epochs: int = number(200, "Passes over the training set.", above=0)
    learning_rate: float = number(1e-3, "Initial learning rate.", above=0)
    weight_decay: float = number(1e-4, "Coefficient of the decay.", at_least=0)
    seed: int = number(
        0,
        "Seed of the weights, the order and the augmentation.",
        at_least=0,
        below=2**31,
    )
    dtype_policy: str = choice(
        "float32",
        "Precision of the computation.",
        "float32",
        "mixed_bfloat16",
        "mixed_float16",
    )
    deterministic: bool = plain(True, "Whether to use deterministic operations only.")
    jit_compile: bool = plain(
        False, "Whether to compile the step with XLA; on JAX it always is."
    )
    options: Options = dataclasses.field(default=None)

    def __init__(self, name, method="class_embedding", options=None, **values):
        block = options_of(method)
        if options is not None and type(options) is not block:
            raise ValueError(
                f"Expected options of method {method}, {block.__name__}. "
                f"Received: {type(options).__name__}"
            )
        own, shared = fields.types_of(block), fields.types_of(Recipe)
        twice = {"name", *shared} & set(own)
        if twice:
            raise ValueError(
                f"Expected options of method {method} with names that no other field "
                f"of a recipe has. Received: {', '.join(sorted(twice))}"
            )
        changed = {key: values.pop(key) for key in list(values) if key in own}
        for key in values:
            if key not in shared:
                raise _unknown(key, method)
        values |= {"name": name, "method": method}
        for field in dataclasses.fields(self)[:-1]:
            object.__setattr__(self, field.name, values.get(field.name, field.default))
        if options is None:
            options = block(**changed)
        elif changed:
            options = dataclasses.replace(options, **changed)
        object.__setattr__(self, "options", options)
        fields.check(self)
        self.options.check(self)

    @property
    def backbone(self):
        return self.options.backbone

    @property
    def row(self):
        return self.options.row

    def to_dict(self):
        """All fields and those of the options, in one dict."""
        values = dataclasses.asdict(self)
        return values | values.pop("options")

    @classmethod
    def from_dict(cls, values):
        """The recipe of such a dict.

        Earlier versions kept the options of all methods: those of others are left out.
        """
        if not isinstance(values, dict) or not {"name", "method"} <= set(values):
            raise ValueError(
                f"Expected the fields of a recipe. Received: {str(values)[:60]}"
            )
        method = values["method"]
        known = field_types(method)
        others = set().union(*map(fields.types_of, map(options_of, method_names())))
        chosen = {}
        for key, value in values.items():
            if isinstance(value, list) and key in known:
                value = fields.as_tuple(value, known[key])
            if key in known or key not in others:
                chosen[key] = value
        return cls(**chosen)

    def to_json(self):
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        return cls.from_dict(json.loads(text))


def field_types(method):
    """Name -> type of the fields of a method's recipes, options included."""
    return {**fields.types_of(Recipe), **fields.types_of(options_of(method))}


def described(recipe):
    """`(name, value, help text)` of a recipe's fields, values as `--set` takes them."""
    blocks = (recipe, recipe.options)
    return [
        (
            field.name,
            fields.as_text(getattr(block, field.name)),
            field.metadata["help"],
        )
        for block in blocks
        for field in dataclasses.fields(block)
        if field.metadata
    ]


def apply_overrides(recipe, assignments):
    """The recipe with `key=value` texts applied, each checked against its type.

    Options that another method, `method=NAME`, lacks are left out.

    Raises:
        ValueError: For an unknown key (naming the nearest), a missing `=`, or a value
            of another type.
    """
    texts = {}
    for assignment in assignments:
        key, text = split_assignment(assignment)
        texts[key] = text
    method = texts.get("method", recipe.method)
    known = field_types(method)
    values = {
        key: value for key, value in recipe.to_dict().items() if key in ("name", *known)
    }
    for key, text in texts.items():
        if key not in known:
            raise _unknown(key, method)
        values[key] = fields.parse(key, text, known[key])
    return Recipe(**values)


def _unknown(key, method):
    owners = [
        name for name in method_names() if key in fields.types_of(options_of(name))
    ]
    hint = f". It is an option of {', '.join(owners)}." if owners else ""
    return fields.unknown(key, field_types(method), hint)
