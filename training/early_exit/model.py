"""Early exits from trained runs: the table that a policy is fitted to, and the model.

A run that was trained on patches brings the localiser and the network of patches;
another run, trained on small images, the network of the resized image.
"""

import pathlib

import numpy as np

from keras_attn.early_exit.policy import ExitPolicy
from keras_attn.models.early_exit import early_exit_classifier, exit_table
from keras_attn.pipelines.batches.build import evaluation_batches
from keras_attn.pipelines.files import save_then_rename, write_then_rename
from keras_attn.training.data.load import load_data
from keras_attn.training.methods.feeds.patches import LOCALIZER
from keras_attn.training.trained import load_trained

BATCH = 32


def early_exit_model(path, resized, policy=None, checkpoint="best"):
    """The classifier of the resized image, then of patch after patch.

    Args:
        path: Folder of a run that was trained on patches.
        resized: Folder of a run, or model file, trained on images of a smaller size;
            its size is that of the resized image.
        policy: `ExitRule`; `None`: no image exits before the end.
        checkpoint: `best` or `last` model of the runs.

    Raises:
        ValueError: If the first run was not trained on patches, or classes differ.
    """
    trained, small = load_trained(path, checkpoint), load_trained(resized, checkpoint)
    run = trained.run
    if run is None or not run.recipe.options.localizer:
        raise ValueError(
            "Expected the folder of a run that was trained on patches (a recipe with "
            f"a localizer). Received: {path}"
        )
    if trained.class_names != small.class_names:
        raise ValueError(
            f"Expected {resized} to have the classes of {path}, "
            f"{', '.join(trained.class_names[:5])}, ... "
            f"Received: {', '.join(small.class_names[:5])}, ..."
        )
    return early_exit_classifier(
        load_trained(run.checkpoints / LOCALIZER).model,
        small.model,
        run.load_model(checkpoint),
        resized_size=(small.spec.height, small.spec.width),
        policy=policy,
        **run.recipe.options.patch_settings(),
    )


def write_table(
    path,
    resized,
    output,
    data=None,
    split="validation",
    checkpoint="best",
    on_corrupt="error",
):
    """Writes the exit table of a run's images, see `keras_attn.early_exit.policy`.

    Args:
        path, resized, checkpoint: See `early_exit_model`.
        output: `.npz` file.
        data: Path of the data.
        split: `train`, `validation` or `test`.
        on_corrupt: `"error"` or `"skip"`.

    Returns:
        Dict of the table's arrays.
    """
    model = early_exit_model(path, resized, checkpoint=checkpoint)
    recipe = load_trained(path).run.recipe
    _, splits = load_data(recipe, data, on_corrupt=on_corrupt)
    if split not in splits or not len(splits[split][1]):
        raise ValueError(
            f"Expected a split with images, among {', '.join(splits)}. "
            f"Received: {split!r}"
        )
    batches = evaluation_batches(*splits[split], BATCH).as_numpy_iterator()
    table = exit_table(model, batches)
    output = pathlib.Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with write_then_rename(output) as file:
        np.savez(file, **table)
    return table


def write_model(path, resized, policy, budget, output, checkpoint="best"):
    """Writes a `.keras` file that exits as a policy says, for `predict` and `export`.

    Args:
        path, resized, checkpoint: See `early_exit_model`.
        policy: File of an `ExitPolicy` that was fitted to the table of these runs.
        budget: Mean cost of an image, in the unit of the policy's table.
        output: `.keras` file.

    Returns:
        The `ExitRule` that was taken.
    """
    output = pathlib.Path(output)
    if output.suffix != ".keras":
        raise ValueError(f"Expected a .keras file to write. Received: {output}")
    rule = ExitPolicy.load(policy).at(budget)
    model = early_exit_model(path, resized, rule, checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    with save_then_rename(output) as partial:
        model.save(partial)
    return rule
