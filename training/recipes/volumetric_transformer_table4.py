"""Table 4 of Volumetric Transformer Networks: iNaturalist-2017, by super class.

Command: `keras-attn reproduce volumetric_transformer_table4_inaturalist2017 --data
PATH`
Cost: several GPUs for days.
Expected: 58.4 % for ResNet-50, 68.2 % with the warp and iSQRT-COV. The paper's third
column, TASN, is a network of its own; `attention_sampler` is its sampler alone.
"""

from keras_attn.training.recipes import volumetric_transformer_table1 as table1
from keras_attn.training.recipes.experiment import Experiment, Row

VALUES = {
    **table1.FINE_GRAINED,
    "dataset": "inaturalist2017",
    "batch_size": 64,
    "epochs": 40,
    "learning_rate": 4e-3,
}
ROWS = tuple(
    Row(label, table1.recipe(VALUES, label.removeprefix("resnet50_"), **changes))
    for label, changes in {
        "resnet50_none": {"backbone": "resnet50"},
        "resnet50_saliency_sampler": {
            "backbone": "resnet50",
            **table1.ROWS["saliency_sampler"],
        },
        "resnet50_attention_sampler": {
            "backbone": "resnet50",
            **table1.ROWS["attention_sampler"],
        },
        "isqrt_cov_vtn": {
            "backbone": "resnet50_stride16",
            "pooling": "isqrt_cov",
            **table1.ROWS["vtn"],
        },
    }.items()
)

# Accuracy of ResNet-50, with the saliency sampler, and with iSQRT-COV and the warp.
PAPER_ROWS = ("resnet50_none", "resnet50_saliency_sampler", "isqrt_cov_vtn")
PAPER_VALUES = {
    "Plantae": (60.3, 63.9, 68.6),
    "Insecta": (69.1, 74.7, 79.1),
    "Aves": (59.1, 68.2, 72.9),
    "Reptilia": (37.4, 43.9, 48.1),
    "Mammalia": (50.2, 55.3, 60.6),
    "Fungi": (62.5, 64.2, 72.1),
    "Amphibia": (41.8, 50.2, 53.9),
    "Mollusca": (56.9, 61.5, 66.3),
    "Animalia": (64.8, 67.8, 73.2),
    "Arachnida": (64.8, 73.8, 78.2),
    "Actinopterygii": (57.0, 60.3, 68.4),
    "Chromista": (57.6, 57.6, 64.0),
    "Protozoa": (78.1, 79.5, 81.1),
    "Total": (58.4, 63.1, 68.2),
}

RECIPES = tuple(row.recipe for row in ROWS)

EXPERIMENTS = (
    Experiment(
        method="volumetric_transformer",
        table="table4",
        dataset="inaturalist2017",
        title="Volumetric Transformer Networks, table 4: accuracy by super class",
        rows=ROWS,
        study="super_classes",
        paper_values=tuple(
            ((row, f"accuracy_{super_class}"), value)
            for super_class, values in PAPER_VALUES.items()
            for row, value in zip(PAPER_ROWS, values, strict=True)
        ),
    ),
)
