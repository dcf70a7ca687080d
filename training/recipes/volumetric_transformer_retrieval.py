"""Retrieval with the embeddings of table 1's networks.

Commands: `keras-attn reproduce volumetric_transformer_retrieval_generated` and
`keras-attn reproduce volumetric_transformer_retrieval_tf_flowers [--data PATH]`.
Cost: the runs of table 1, which it shares: seconds where they are trained.
Expected: nothing is known before. The paper's retrieval, table 6, is of landmarks:
`keras-attn retrieval` measures any model by that protocol.
"""

from keras_attn.training.recipes.experiment import Experiment
from keras_attn.training.recipes.volumetric_transformer_table1 import SMALL_ROWS
from keras_attn.training.recipes.volumetric_transformer_table5 import rows

EXPERIMENTS = tuple(
    Experiment(
        method="volumetric_transformer",
        table="retrieval",
        dataset=dataset,
        title="Retrieval of the same class with and without a warp",
        rows=rows(dataset, SMALL_ROWS),
        study="retrieval",
        runs_of=f"volumetric_transformer_table1_{dataset}",
    )
    for dataset in ("generated", "tf_flowers")
)
