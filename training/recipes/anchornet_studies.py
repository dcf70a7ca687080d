"""Studies of the runs of the AnchorNet paper's table 3.

- `keras-attn reproduce anchornet_table4_tf_flowers [--data PATH]`: the best patch is
  better than the rescaled image at all three sizes. The paper on ImageNet, ResNet-50:
  38.2 against 15.6 % at 63, 54.9 against 37.4 % at 95, 60.2 against 45.1 % at 111.
- `keras-attn reproduce anchornet_figure6_tf_flowers [--data PATH]`: AnchorNet's patches
  give the highest accuracy for the area that they cover, and hiding them the lowest.
  The paper's other localisers, Saccader and BagNet, are left out: they would have to be
  trained. In their place are rankings that need no training.
- `keras-attn reproduce anchornet_figure3_generated` and `..._figure5_...`: wide
  branches decide images of large objects, narrow ones those of small objects and of
  textures; attention falls on the object. The paper prints no numbers.
- `keras-attn reproduce anchornet_object_hits_generated`: more of the patches and of the
  parts on the object than by chance and in the centre. Not in the paper.

Cost: one or two rows of table 3, whose runs they share: minutes where they are trained.
"""

from keras_attn.training.recipes import anchornet_table3
from keras_attn.training.recipes.experiment import Experiment, Row

TABLE4 = (
    (("rescaled", "accuracy_63"), 15.6),
    (("localized", "accuracy_63"), 38.2),
    (("rescaled", "accuracy_95"), 37.4),
    (("localized", "accuracy_95"), 54.9),
    (("rescaled", "accuracy_111"), 45.1),
    (("localized", "accuracy_111"), 60.2),
)


def study(dataset, table, title, rows=1, **options):
    """An experiment on the localiser, or on it and the network of whole images."""
    by_label = {row.label: row for row in anchornet_table3.ROWS[dataset]}
    full = "resnet50_full" if dataset == "imagenet2012" else "full"
    sources = (("anchornet", "anchornet"), ("full", full))[:rows]
    return Experiment(
        method="anchornet",
        table=table,
        dataset=dataset,
        title=f"AnchorNet{title}",
        rows=tuple(
            Row(label, by_label[source].recipe, runs_of=source)
            for label, source in sources
        ),
        runs_of=f"anchornet_table3_{dataset}",
        **options,
    )


def studies_of(dataset):
    yield study(
        dataset,
        "figure3",
        ", figure 3: localised patches of every branch",
        figure="localized_patches",
    )
    yield study(
        dataset,
        "figure5",
        ", figure 5: attention maps of all branches",
        figure="attention_maps",
    )
    yield study(
        dataset,
        "figure6",
        ", figure 6: accuracy by covered and by masked area",
        2,
        study="covered_area",
    )
    yield study(
        dataset,
        "table4",
        ", table 4: one localised patch, or the rescaled image",
        2,
        study="rescaling",
        paper_values=TABLE4 if dataset == "imagenet2012" else (),
    )


EXPERIMENTS = (
    *(study for name in anchornet_table3.ROWS for study in studies_of(name)),
    study(
        "generated",
        "object_hits",
        ": patches on the object and its parts",
        study="object_hits",
    ),
)
