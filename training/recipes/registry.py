"""Recipes and experiments by name."""

import difflib

from keras_attn.training.recipes import (
    anchornet_figure3,
    anchornet_figure6,
    anchornet_object_hits,
    anchornet_table3,
    anchornet_table4,
    attention_masked_residual_figure4,
    attention_masked_residual_table3,
    attention_masked_residual_true_maps,
    class_embedding_figure3,
    class_embedding_figure4,
    class_embedding_figure5,
    class_embedding_table1,
    dino,
    generated,
    volumetric_transformer_alignment,
    volumetric_transformer_retrieval,
    volumetric_transformer_table1,
    volumetric_transformer_table2,
    volumetric_transformer_table4,
    volumetric_transformer_table5,
)

DEFAULT = "generated_rn26_class_embedding"


FAMILIES = (
    generated,
    class_embedding_table1,
    class_embedding_figure3,
    class_embedding_figure4,
    class_embedding_figure5,
    anchornet_table3,
    anchornet_table4,
    anchornet_figure3,
    anchornet_figure6,
    anchornet_object_hits,
    volumetric_transformer_table1,
    volumetric_transformer_table2,
    volumetric_transformer_table4,
    volumetric_transformer_table5,
    volumetric_transformer_retrieval,
    volumetric_transformer_alignment,
    attention_masked_residual_table3,
    attention_masked_residual_figure4,
    attention_masked_residual_true_maps,
    dino,
)


RECIPES = {recipe.name: recipe for family in FAMILIES for recipe in family.RECIPES}


def get_recipe(name):
    """The recipe of that name.

    Raises:
        ValueError: If there is none; the message names the nearest.
    """
    if name not in RECIPES:
        nearest = difflib.get_close_matches(str(name), RECIPES, 3, cutoff=0.4)
        hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
        raise ValueError(
            f"Expected the name of a recipe. Received: {name!r}.{hint} "
            "`keras-attn recipes` lists them all."
        )
    return RECIPES[name]


EXPERIMENTS = {
    experiment.name: experiment
    for family in FAMILIES
    for experiment in family.EXPERIMENTS
}


def get_experiment(name):
    """The experiment of that name, `METHOD_TABLE_DATASET`.

    Raises:
        ValueError: If there is none; the message lists them.
    """
    if name not in EXPERIMENTS:
        nearest = difflib.get_close_matches(str(name), EXPERIMENTS, 1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            f"Expected one of {', '.join(EXPERIMENTS)}. Received: {name!r}.{hint}"
        )
    return EXPERIMENTS[name]
