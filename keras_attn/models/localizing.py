"""A localiser that also chooses its patches."""

import keras

from keras_attn.layers.localize_patches import LocalizePatches
from keras_attn.models.localizer import branches_of


def with_patches(localizer, max_patches, iou_threshold=0.3, coverage=1.0, name=None):
    """A localiser with the patches that hold the most evidence for its class.

    AnchorNet paper, section 3.3: the branch decides as in equations (6) to (8), then
    algorithm 1 chooses patches on its map of the class, see `LocalizePatches`. One
    model from image to class, boxes and evidence, which can be exported as it is.

    Args:
        localizer: Functional model with outputs `logits`, `logits_θ` and `evidence_θ`,
            such as `anchornet` and what `as_localizer` returns. Its layers and weights
            are shared.
        max_patches: Most patches of an image, one integer or one for each branch.
        iou_threshold: Patches overlap by less than this.
        coverage: Share of the cells that patches are chosen among, one or one for each
            branch.
        name: Name of the model; by default the localiser's.

    Returns:
        Functional model with the localiser's outputs and

        - `boxes` `(batch, K, 4)`, int32 `(y0, x0, y1, x1)`, half-open pixels of the
          image, -1 where absent; `K` is the largest of `max_patches`,
        - `scores` `(batch, K)`, float32, the evidence of each patch,
        - `valid` `(batch, K)`, whether there is such a patch,
        - `branch` `(batch,)`, int32, the place of the branch in `branches_of`.

    Raises:
        ValueError: If the model has no evidence, or an argument is out of its range.

    Example:

    >>> model = with_patches(anchornet((128, 160, 3), num_classes=10), (5, 3, 2))
    >>> model.output["boxes"].shape
    (None, 5, 4)
    """
    branches = branches_of(localizer)
    names = [
        f"{kind}_{branch['name']}"
        for branch in branches
        for kind in ("logits", "evidence")
    ]
    layer = LocalizePatches(
        branches, max_patches, iou_threshold, coverage, name="patches"
    )
    chosen = layer({name: localizer.output[name] for name in names})
    kept = {key: chosen[key] for key in ("boxes", "scores", "valid", "branch")}
    return keras.Model(
        localizer.input, {**localizer.output, **kept}, name=name or localizer.name
    )
