"""Table 5 of Volumetric Transformer Networks: localisation error of Grad-CAM.

Commands: `keras-attn reproduce volumetric_transformer_table5_cub200_2011 --data PATH`
and `keras-attn reproduce volumetric_transformer_table5_generated`.
Cost: three rows of table 1, whose runs it shares: minutes where they are trained.
Expected, on CUB-200-2011: top-1 error 53.42 % without deformation, 54.21 % with a
spatial transformer, 52.18 % with the volumetric transformer.
"""

from keras_attn.training.recipes import volumetric_transformer_table1 as table1
from keras_attn.training.recipes.experiment import Experiment, Row

COMPARED = ("none", "spatial_transformer", "vtn")
PAPER_VALUES = (
    (("none", "top1_error"), 53.42),
    (("none", "top5_error"), 43.12),
    (("spatial_transformer", "top1_error"), 54.21),
    (("spatial_transformer", "top5_error"), 43.33),
    (("vtn", "top1_error"), 52.18),
    (("vtn", "top5_error"), 41.76),
)


def rows(dataset, labels):
    """Rows of table 1 and those they start from, whatever the backbone."""
    by_label = {row.label: row for row in table1.EXPERIMENT_ROWS[dataset]}
    prefix = "" if "none" in by_label else "resnet50_"
    trained = [by_label[prefix + label] for label in labels]
    needed = {label for row in trained for _, label in row.needs}
    return tuple(
        Row(
            row.label.removeprefix(prefix),
            row.recipe,
            needs=row.needs,
            runs_of=row.label,
        )
        for row in [*(by_label[label] for label in sorted(needed)), *trained]
    )


EXPERIMENTS = tuple(
    Experiment(
        method="volumetric_transformer",
        table="table5",
        dataset=dataset,
        title="Volumetric Transformer Networks, table 5: localisation with Grad-CAM",
        rows=rows(dataset, COMPARED),
        study="localization_error",
        paper_values=PAPER_VALUES if dataset == "cub200_2011" else (),
        runs_of=f"volumetric_transformer_table1_{dataset}",
    )
    for dataset in ("cub200_2011", "generated")
)
