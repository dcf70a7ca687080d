"""Figure 4 of attention-masked residuals: an image, its maps and the masks.

Command: `keras-attn reproduce attention_masked_residual_figure4_cifar10 --data PATH
--set map_model=RUN`, also `..._figure4_cifar100`, `..._figure4_native_cifar10` and
`..._figure4_generated`.
Cost: one row of table 3, whose run it shares: seconds where it is trained.
Expected: maps that fall on the object. The paper shows the image and its map; here the
maps of the heads and the learned mask of every block stand beside them.
"""

import dataclasses

from keras_attn.training.recipes import attention_masked_residual_table3 as table3

EXPERIMENTS = tuple(
    dataclasses.replace(
        experiment,
        table=experiment.table.replace("table3", "figure4"),
        title="Attention-masked residuals, figure 4: attention and masks",
        rows=tuple(row for row in experiment.rows if row.label == "a1"),
        figure="attention_and_masks",
        runs_of=experiment.name,
    )
    for experiment in table3.EXPERIMENTS
)
