"""Table 3 of the AnchorNet paper: classifying localised patches, not whole images.

Commands: `keras-attn reproduce anchornet_table3_imagenet2012 --data PATH`,
`keras-attn reproduce anchornet_table3_tf_flowers [--data PATH]` and
`keras-attn reproduce anchornet_table3_generated`.
Cost: ImageNet needs several GPUs for days; TF Flowers about 40 minutes per seed on 2
cores, the generated data set about 20.
Expected, on ImageNet: ResNet-50 falls from 72.6 to 71.9 % at half of the multiply-adds
(the localiser not counted). On the small sets no number is known before.
"""

from keras_attn.training.recipes.experiment import Row, by_dataset
from keras_attn.training.recipes.schema import Recipe

IMAGENET = {
    "method": "anchornet",
    "dataset": "imagenet2012",
    "split": "official",
    "image_size": 224,
    "crop_fraction": 0.875,
    "augmentation": "random_resized_crop_flip",
    "batch_size": 256,
    "optimizer": "sgd",
    "weight_decay": 1e-4,
    "max_patches": (6, 3, 2),
    "coverage": (0.3, 0.3, 0.3),
}
# Sizes and schedules that two cores can train.
TF_FLOWERS = {
    "method": "anchornet",
    "dataset": "tf_flowers",
    "split": "pooled_65_15_20",
    "image_size": 160,
    "augmentation": "mild_resized_crop_flip",
    "optimizer": "adamw",
    "weight_decay": 0.02,
    "weight_decay_mode": "decoupled",
    "schedule": "cosine",
    "learning_rate": 2e-3,
    # About the share of the image's pixels that the paper classifies.
    "max_patches": (3, 1, 1),
    "coverage": (0.3, 0.3, 0.3),
}
GENERATED = {
    **TF_FLOWERS,
    "dataset": "generated",
    "split": "official",
    "image_size": 128,
    "augmentation": "translate_flip",
    "examples": 4200,
    "difficulty": 0.5,
}
FINE_TUNING = {"schedule": "cosine", "optimizer": "sgd", "learning_rate": 0.01}

DOWNSTREAM = ("resnet50", "resnext50", "densenet169", "hcgnet_c")
# Top-1 accuracy of the image of 224 pixels, and of the patches of all branches.
PAPER_VALUES = {
    "resnet50": (72.6, 71.9),
    "resnext50": (75.7, 74.8),
    "densenet169": (74.8, 73.6),
    "hcgnet_c": (78.6, 76.9),
}


def recipe(values, backbone, row, **changes):
    name = f"{values['dataset']}_{backbone}_{row}"
    return Recipe(**{**values, "backbone": backbone, "row": row, **changes}, name=name)


def small_rows(values, epochs, rescaled_size):
    """Localiser and downstream network of the data sets for two cores."""
    fine_tuning = {"epochs": epochs // 3, "learning_rate": 5e-4}
    initial = ("initial", "full")
    return (
        Row("anchornet", recipe(values, "anchornet", "localizer", epochs=epochs)),
        Row("full", recipe(values, "small_resnet", "full", epochs=epochs)),
        Row(
            "patches",
            recipe(values, "small_resnet", "patches", **fine_tuning),
            needs=(initial, ("localizer", "anchornet")),
        ),
        Row(
            "rescaled",
            recipe(
                {**values, "image_size": rescaled_size},
                "small_resnet",
                "rescaled",
                **fine_tuning,
            ),
            needs=(initial,),
        ),
    )


def imagenet_rows():
    localizer = recipe(
        IMAGENET,
        "anchornet",
        "localizer",
        epochs=100,
        learning_rate=0.1,
        decay_at=(0.3, 0.6, 0.9),
    )
    yield Row("anchornet", localizer)
    for backbone in DOWNSTREAM:
        full, patches = PAPER_VALUES[backbone]
        yield Row(
            f"{backbone}_full",
            recipe(
                IMAGENET,
                backbone,
                "full",
                epochs=100,
                learning_rate=0.1,
                decay_at=(0.3, 0.6, 0.9),
            ),
            full,
        )
        yield Row(
            f"{backbone}_patches",
            recipe(IMAGENET, backbone, "patches", epochs=30, **FINE_TUNING),
            patches,
            needs=(("initial", f"{backbone}_full"), ("localizer", "anchornet")),
        )


ROWS = {
    "imagenet2012": tuple(imagenet_rows()),
    "tf_flowers": small_rows(TF_FLOWERS, epochs=24, rescaled_size=104),
    "generated": small_rows(GENERATED, epochs=12, rescaled_size=88),
}

RECIPES = tuple(row.recipe for rows in ROWS.values() for row in rows)

EXPERIMENTS = by_dataset(
    "anchornet",
    "table3",
    "AnchorNet, table 3: whole image, localised patches, rescaled image",
    ROWS,
)
