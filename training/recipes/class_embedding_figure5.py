"""Figure 5 of the class-embedding paper: t-SNE of features with and without the block.

Command: `keras-attn reproduce class_embedding_figure5_cifar10 --data PATH`
Cost: two rows of table 1, whose runs it shares: nothing where they are trained.
Expected: the block's output is sorted by class, its input and the baseline's features
are scattered; the paper prints no numbers.
"""

from keras_attn.training.recipes import class_embedding_table1
from keras_attn.training.recipes.experiment import Experiment, Row

LABELS = ("rn26_baseline", "rn26_class_embedding")
TABLE1 = next(
    experiment
    for experiment in class_embedding_table1.EXPERIMENTS
    if experiment.dataset == "cifar10"
)

EXPERIMENTS = (
    Experiment(
        method="class_embedding",
        table="figure5",
        dataset="cifar10",
        title="Class embedding, figure 5: features before the last stage",
        rows=tuple(
            Row(row.label, row.recipe) for row in TABLE1.rows if row.label in LABELS
        ),
        measure="same_class_neighbours",
        figure="tsne",
        runs_of=TABLE1.name,
    ),
)
