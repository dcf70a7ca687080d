"""Recipes: overrides, checks, JSON, and the values of the paper."""

import dataclasses
import json
import pathlib

import pytest

from keras_attn.models import BACKBONES, DOWNSTREAM_NETWORKS, FEATURE_BACKBONES
from keras_attn.pipelines.augment.composition import AUGMENTATIONS
from keras_attn.pipelines.sources.load import SOURCE_NAMES
from keras_attn.pipelines.sources.splits import SPLIT_NAMES
from keras_attn.training.methods import attention_masked_residual
from keras_attn.training.recipes import schema
from keras_attn.training.recipes.blocks import Options
from keras_attn.training.recipes.fields import number
from keras_attn.training.recipes.options import method_names, options_of
from keras_attn.training.recipes.options.volumetric_transformer import (
    VolumetricTransformerOptions,
)
from keras_attn.training.recipes.registry import (
    DEFAULT,
    EXPERIMENTS,
    FAMILIES,
    RECIPES,
    get_experiment,
    get_recipe,
)
from keras_attn.training.recipes.schema import Recipe, apply_overrides, described

BACKBONE_NAMES = {
    "class_embedding": BACKBONES,
    "anchornet": ("anchornet", "anchornet95", *DOWNSTREAM_NETWORKS),
    "volumetric_transformer": FEATURE_BACKBONES,
    "attention_masked_residual": attention_masked_residual.BACKBONES,
}


def test_overrides_are_parsed_by_type():
    recipe = apply_overrides(
        Recipe("r"),
        [
            "epochs=3",
            "learning_rate=5e-2",
            "deterministic=False",
            "jit_compile=true",
            "backbone=wrn16",
            "decay_at=0.25,0.5,0.9",
            "weight_decay=1",
        ],
    )
    assert (recipe.epochs, recipe.learning_rate) == (3, 0.05)
    assert (recipe.deterministic, recipe.jit_compile) == (False, True)
    assert (recipe.backbone, recipe.options.decay_at) == ("wrn16", (0.25, 0.5, 0.9))
    assert type(recipe.weight_decay) is float


def test_an_override_may_hold_an_equals_sign_or_nothing():
    assert apply_overrides(Recipe("r"), ["split=a=b"]).split == "a=b"
    assert apply_overrides(Recipe("r"), ["decay_at="]).options.decay_at == ()
    assert apply_overrides(Recipe("r"), []) == Recipe("r")


def test_the_last_of_two_overrides_counts():
    assert apply_overrides(Recipe("r"), ["epochs=3", "epochs=4"]).epochs == 4


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("epoch=3", ["'epoch'", "Did you mean 'epochs'?", "batch_size"]),
        ("lerning_rate=1", ["Did you mean 'learning_rate'?"]),
        ("name=other", ["'name'"]),
        ("xyzzy=1", ["'xyzzy'"]),
        ("epochs", ["key=value", "'epochs'"]),
        ("epochs=3.5", ["epochs", "an integer", "'3.5'"]),
        ("epochs=", ["an integer"]),
        ("learning_rate=fast", ["learning_rate", "a number", "'fast'"]),
        ("deterministic=yes", ["true or false", "'yes'"]),
        ("decay_at=0.5;0.7", ["numbers separated by commas"]),
        ("epochs=0", ["epochs", "a positive integer"]),
        ("batch_size=-8", ["batch_size", "a positive integer"]),
        ("learning_rate=nan", ["a positive number"]),
        ("learning_rate=inf", ["a positive number"]),
        ("decay_factor=0", ["a positive number"]),
        ("weight_decay=-1", ["weight_decay", "zero or a positive number"]),
        ("weight_decay=nan", ["weight_decay", "zero or a positive number"]),
        ("method=resnet", ["anchornet, attention_masked_residual, class_embedding"]),
        ("schedule=linear", ["steps, cosine"]),
        ("crop_fraction=0", ["crop_fraction", "(0, 1]"]),
        ("groups=3", ["'groups'", "an option of volumetric_transformer."]),
        ("options=3", ["'options'"]),
        ("in_memory=-1", ["in_memory", "zero or a positive"]),
        ("seed=-1", ["seed", "an integer in [0, 2147483648)"]),
        ("seed=4294967296", ["seed", "2147483648"]),
        ("patch_loss_weight=1.5", ["patch_loss_weight", "[0, 1]"]),
        ("decay_at=0.5,1.5", ["decay_at", "(0, 1)"]),
        ("decay_at=0.75,0.5", ["decay_at", "increasing"]),
        ("optimizer=rmsprop", ["adam, adamw, sgd", "'rmsprop'"]),
        ("dtype_policy=float64", ["mixed_bfloat16"]),
        ("weight_decay_mode=both", ["l2, decoupled"]),
    ],
)
def test_a_wrong_override_is_one_clear_error(assignment, words):
    _check_refused(Recipe("r"), assignment, words)


@pytest.mark.parametrize(
    ("method", "assignment", "words"),
    [
        ("anchornet", "max_patches=3,0", ["max_patches", "positive integers"]),
        ("anchornet", "max_patches=2.5", ["positive integers", "2.5"]),
        ("anchornet", "coverage=0.5,1.5", ["coverage", "(0, 1]"]),
        ("anchornet", "iou_threshold=2", ["iou_threshold", "[0, 1]"]),
        ("volumetric_transformer", "groups=-1", ["zero or a positive integer"]),
        ("volumetric_transformer", "images_per_class=3", ["divisor of batch_size=32"]),
        ("volumetric_transformer", "new_layers_rate=2", ["1 with adam"]),
        ("attention_masked_residual", "map_mode=none", ["cached, online"]),
        ("dino", "optimizer=sgd", ["'optimizer'", "It is an option of anchornet"]),
        ("dino", "local_view=2", ["Did you mean 'local_views'?"]),
    ],
)
def test_a_wrong_option_is_one_clear_error(method, assignment, words):
    _check_refused(Recipe("r", method), assignment, words)


def _check_refused(recipe, assignment, words):
    with pytest.raises(ValueError) as caught:
        apply_overrides(recipe, [assignment])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_options_are_given_like_all_fields_and_read_as_a_block():
    recipe = Recipe(name="r", method="volumetric_transformer", groups=8, epochs=2)
    assert recipe.options == VolumetricTransformerOptions(groups=8)
    assert (recipe.options.groups, recipe.epochs) == (8, 2)
    changed = dataclasses.replace(recipe, groups=4, backbone="vgg19")
    assert (changed.options.groups, changed.backbone, changed.epochs) == (4, "vgg19", 2)
    assert apply_overrides(recipe, ["groups=4", "backbone=vgg19"]) == changed
    with pytest.raises(ValueError, match="Did you mean 'groups'"):
        Recipe(name="r", method="volumetric_transformer", group=8)
    with pytest.raises(ValueError, match="options of method anchornet"):
        dataclasses.replace(recipe, method="anchornet")


def test_an_option_cannot_have_the_name_of_a_shared_field(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Ambiguous(Options):
        epochs: int = number(3, "Epochs.", above=0)

    monkeypatch.setattr(schema, "options_of", lambda method: Ambiguous)
    with pytest.raises(ValueError, match="options of method mine .*: epochs"):
        Recipe("r", "mine", epochs=2)


def test_described_values_are_what_overrides_take():
    recipe = Recipe("r", "anchornet", max_patches=(2, 1), decay_at=(), epochs=3)
    found = described(recipe)
    texts = [f"{name}={value}" for name, value, _ in found]
    assert "max_patches=2,1" in texts and "deterministic=true" in texts
    assert apply_overrides(Recipe("r"), texts) == recipe
    assert ("epochs", "3", "Passes over the training set.") in found


def test_another_method_keeps_the_fields_that_it_has_too():
    recipe = Recipe("r", patch_loss_weight=0.25, backbone="small_resnet", epochs=3)
    changed = apply_overrides(recipe, ["groups=4", "method=volumetric_transformer"])
    assert changed == Recipe(
        "r", "volumetric_transformer", groups=4, backbone="small_resnet", epochs=3
    )


@pytest.mark.parametrize("method", method_names())
def test_every_field_has_a_help_text_and_a_name_of_its_own(method):
    shared, own = dataclasses.fields(Recipe), dataclasses.fields(options_of(method))
    for field in (*shared[1:-1], *own):
        text = field.metadata["help"]
        assert text[0].isupper() or text[0] == "`"
        assert text.endswith(".")
    names = [field.name for field in (*shared, *own)]
    assert len(names) == len(set(names))


EARLIER = pathlib.Path(__file__).with_name("earlier_recipes.json")


@pytest.mark.parametrize(("name", "values"), json.loads(EARLIER.read_text()).items())
def test_recipes_written_by_earlier_versions_mean_the_same(name, values):
    recipe = Recipe.from_dict(values)
    assert recipe == RECIPES[name]
    kept = json.loads(recipe.to_json())
    # Fields that they did not have.
    assert kept.pop("depth") == kept.pop("train_per_class") == 0
    assert kept.pop("map_heads", "all") == "all"
    assert {key: values[key] for key in kept} == kept


# Fields that a recipe.json of one of the methods for classifiers held at first.
FLAT = {
    "name": "old",
    "method": "class_embedding",
    "activation": "bn_relu",
    "patch_loss_weight": 0.25,
    "max_patches": [5.0, 3.0, 2.0],
    "coverage": [0.3],
    "groups": 16,
    "images_per_class": 1,
    "mask_strength": 0.5,
    "map_model": "",
    "decay_at": [0.5],
    "epochs": 3,
    "optimizer": "sgd",
}


def test_a_file_with_the_options_of_all_methods_is_read():
    assert Recipe.from_dict(FLAT) == Recipe(
        "old", patch_loss_weight=0.25, decay_at=(0.5,), epochs=3, optimizer="sgd"
    )
    recipe = Recipe.from_dict({**FLAT, "method": "anchornet"})
    assert recipe.options.max_patches == (5, 3, 2)
    assert recipe.options.patch_settings()["coverage"] == (0.3,)
    with pytest.raises(ValueError, match="'colour'"):
        Recipe.from_dict({**FLAT, "colour": 1})


def test_json_round_trip():
    recipe = apply_overrides(
        Recipe("r", learning_rate=1 / 3), ["decay_at=0.1,0.2", "jit_compile=true"]
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    values = json.loads(recipe.to_json())
    assert values == {**recipe.to_dict(), "decay_at": [0.1, 0.2]}
    assert {"name", "method", "epochs", "decay_at", "activation"} < set(values)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe("r").epochs = 3


def test_recipes_have_the_promised_names():
    assert {
        "cifar10_rn26_baseline",
        "cifar100_dn100_class_embedding_concat",
        "miniimagenet_wrn16_class_embedding",
        "generated_rn26_class_embedding",
    } <= set(RECIPES)
    assert DEFAULT == "generated_rn26_class_embedding"
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        dataset = "imagenet" if recipe.dataset == "folder" else recipe.dataset
        assert name.startswith(f"{dataset}_{recipe.backbone}_")


def test_recipes_name_what_exists():
    for recipe in RECIPES.values():
        assert recipe.backbone in BACKBONE_NAMES.get(recipe.method, (recipe.backbone,))
        assert recipe.dataset in SOURCE_NAMES
        assert recipe.split in SPLIT_NAMES
        assert getattr(recipe.options, "augmentation", "flip") in AUGMENTATIONS


def test_no_recipe_is_defined_twice():
    families = [set(getattr(family, "RECIPES", ())) for family in FAMILIES]
    names = [recipe.name for recipes in families for recipe in recipes]
    assert len(names) == len(set(names))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="cifar10_rn26_baseline.*keras-attn recipes"):
        get_recipe("cifar10_rn26_base")
    with pytest.raises(ValueError, match="Did you mean 'class_embedding_table1_cif"):
        get_experiment("class_embedding_table1_cifar1")


def test_the_experiments_of_the_paper_exist():
    assert {
        "class_embedding_table1_cifar10",
        "class_embedding_table1_cifar100",
        "class_embedding_table1_miniimagenet",
        "class_embedding_figure3_cifar10",
        "class_embedding_figure4_cifar10",
        "class_embedding_figure5_cifar10",
    } <= set(EXPERIMENTS)
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        labels = [row.label for row in experiment.rows]
        assert len(labels) == len(set(labels))


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "miniimagenet"])
def test_table1_has_ten_rows_that_differ_in_nothing_but_the_network(dataset):
    rows = get_experiment(f"class_embedding_table1_{dataset}").rows
    assert len(rows) == 10
    same = {
        dataclasses.replace(row.recipe, name="", backbone="rn26", row="baseline")
        for row in rows
    }
    assert len(same) == 1
    recipe = same.pop()
    # Section 4 of the class-embedding paper.
    options = recipe.options
    assert (options.optimizer, recipe.learning_rate) == ("adam", 1e-3)
    assert (recipe.batch_size, recipe.epochs) == (32, 200)
    assert (options.decay_factor, options.decay_at) == (0.1, (0.5, 0.75))
    assert (recipe.weight_decay, options.weight_decay_mode) == (1e-4, "l2")
    assert options.patch_loss_weight == 0.5
    assert recipe.split == "pooled_65_15_20"
    assert recipe.image_size == (84 if dataset == "miniimagenet" else 32)


def test_paper_values():
    def values(dataset):
        rows = get_experiment(f"class_embedding_table1_{dataset}").rows
        return {row.label: row.paper_value for row in rows}

    # Spot checks of table 1, a row from each part of it.
    assert values("cifar10")["rn26_baseline"] == 89.52
    assert values("cifar10")["rn26_aux"] == 90.57
    assert values("cifar10")["rn26_class_embedding"] == 91.06
    assert values("cifar100")["dn100_class_embedding_concat"] == 72.14
    assert values("miniimagenet")["wrn16_class_embedding"] == 62.92
    assert values("miniimagenet")["rn38_baseline"] == 60.72


def test_figure4_sweeps_the_weight_of_the_patch_loss():
    rows = get_experiment("class_embedding_figure4_cifar10").rows
    weights = [row.recipe.options.patch_loss_weight for row in rows]
    assert weights == pytest.approx([0.1 * step for step in range(11)])
    assert [float(row.label) for row in rows] == pytest.approx(weights)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("table3_cifar10", [83.3, 86.6, 87.0, None, None]),
        ("table3_cifar100", [41.1, 42.9, 43.4, None, None]),
        ("table3_native_cifar10", [None] * 5),
        ("table3_generated", [None] * 5),
    ],
)
def test_rows_of_masks_differ_in_nothing_but_strength_and_control(name, values):
    rows = get_experiment(f"attention_masked_residual_{name}").rows
    assert [row.paper_value for row in rows] == values
    changed = [
        (row.recipe.options.mask_strength, row.recipe.options.mask_control)
        for row in rows
    ]
    assert changed == [
        (0, "none"),
        (0.5, "none"),
        (1, "none"),
        (1, "constant"),
        (1, "shuffled"),
    ]
    same = {
        dataclasses.replace(
            row.recipe, name="", row="", mask_strength=1.0, mask_control="none"
        )
        for row in rows
    }
    assert len(same) == 1
    (recipe,) = same
    if name in ("table3_cifar10", "table3_cifar100"):
        # Sections 4 and 5.1 of the paper, with its 0.2 as the factor of the steps.
        options = recipe.options
        assert (options.optimizer, recipe.weight_decay) == ("adamw", 5e-4)
        assert (recipe.epochs, recipe.batch_size) == (100, 128)
        assert (recipe.learning_rate, options.decay_factor) == (1e-3, 0.2)
        assert [100 * at for at in options.decay_at] == pytest.approx([30, 60, 80])
        assert (options.network_size, recipe.split) == (224, "45k_5k")
        assert options.augmentation == "translate_flip_erase"


def test_figure4_of_masks_shares_the_run_of_the_strongest_masks():
    figure = get_experiment("attention_masked_residual_figure4_native_cifar10")
    table = get_experiment(figure.runs_of)
    assert figure.rows == (table.rows[2],)
