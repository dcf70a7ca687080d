import keras
from keras import ops

from keras_attn._checks import pair
from keras_attn.layers._classifiers import two_sided
from keras_attn.layers._maps import MapLayer
from keras_attn.ops.patches import (
    branch_decision,
    check_selection,
    listed,
    localize_patches,
)

# Section 4.1 of the AnchorNet paper: arguments of `LocalizePatches` for the branches
# 63, 95 and 111. The tight ones show patches, the slack ones give many overlapping
# patches to fine-tune a network on.
TIGHT = {
    "max_patches": (5, 3, 2),
    "iou_threshold": 0.3,
    "coverage": (0.05, 0.04, 0.03),
}
SLACK = {"max_patches": (24, 10, 8), "iou_threshold": 0.8, "coverage": 0.3}


@keras.saving.register_keras_serializable(package="keras_attn")
class LocalizePatches(MapLayer):
    """Selects the class of an image, its best branch, and the patches of that branch.

    AnchorNet paper, section 3.3: equations (6) to (8) decide on a class and a branch
    (`keras_attn.ops.branch_decision`), algorithm 1 selects patches on the branch's
    evidence for the class (`keras_attn.ops.localize_patches`). With a single branch,
    class and branch are its own.

    Args:
        branches: List of dicts with `name`, `patch_size` and, where they are not 8 and
            0, `stride` and `offset` of a branch, in increasing order of the patches.
        max_patches: Largest number of patches, `K`; an integer or one for each branch.
        iou_threshold: Patches overlap less than this, `T` in 0..1; a number or one for
            each branch, with `compat` one for each patch.
        coverage: Share of the cells that are visited, `P` in (0, 1]; a number or one
            for each branch.
        compat: Whether to select as the authors' released code does.

    Call arguments:
        inputs: Dict of the localiser's outputs.

    Input shape: a dict with `logits_NAME` `(batch, classes)` and `evidence_NAME`
        `(batch, height, width, classes)` for every branch. Other entries are ignored.
        A single class is class 1; the evidence for class 0 is its negative.

    Output shape: a dict of
        - `label` `(batch,)`, int32, the class,
        - `branch` `(batch,)`, int32, the index in `branches`,
        - `boxes` `(batch, K, 4)`, int32, `K` being the largest of `max_patches`,
        - `scores` `(batch, K)`, float32 under any policy, the evidence,
        - `valid` `(batch, K)`, bool.

    Convention: boxes are `(y0, x0, y1, x1)`, half-open pixel coordinates; where
        not valid they are -1 and the scores 0.

    Raises:
        ValueError: For arguments out of their range, branches in another order, missing
            inputs, and NaN in evidence that is known when the layer is called.

    Example:

    >>> branches = [{"name": "63", "patch_size": 63}]
    >>> layer = LocalizePatches(branches, max_patches=5)
    >>> found = layer({
    ...     "logits_63": keras.random.normal((2, 10)),
    ...     "evidence_63": keras.random.normal((2, 21, 21, 10)),
    ... })
    >>> found["boxes"].shape
    (2, 5, 4)

    Reference: [yang2020] arXiv:2002.03737, section 3.3.
    """

    def __init__(
        self,
        branches,
        max_patches,
        iou_threshold=0.3,
        coverage=1.0,
        compat=False,
        **kwargs,
    ):
        # Rounding to half precision would make ties.
        kwargs.setdefault("autocast", False)
        branches = [_checked_branch(branch) for branch in branches]
        sizes = [branch["patch_size"] for branch in branches]
        if not sizes or sizes != sorted(sizes):
            raise ValueError(
                "Expected at least one branch, in increasing order of the patch sizes. "
                f"Received: branches={branches}"
            )
        max_patches = _one_each("max_patches", max_patches, len(sizes))
        coverage = _one_each("coverage", coverage, len(sizes))
        iou_threshold = listed(iou_threshold)
        several = isinstance(iou_threshold, (tuple, list))
        if several and not compat:
            iou_threshold = _one_each("iou_threshold", iou_threshold, len(sizes))
        for index, most in enumerate(max_patches):
            threshold = (
                iou_threshold[index] if several and not compat else iou_threshold
            )
            check_selection(most, threshold, coverage[index], compat)
        super().__init__(**kwargs)
        self.branches = branches
        self.max_patches = max_patches
        self.coverage = coverage
        self.iou_threshold = tuple(iou_threshold) if several else iou_threshold
        self.compat = compat

    def call(self, inputs):
        self._check_names(inputs)
        names = [branch["name"] for branch in self.branches]
        logits = [two_sided(inputs[f"logits_{name}"]) for name in names]
        logits = ops.stack(logits, axis=1)
        label, branch = branch_decision(logits)
        found = {}
        for index, name in enumerate(names):
            patches = self._patches_of(index, inputs[f"evidence_{name}"], label)
            found = patches if index == 0 else _choose(branch == index, patches, found)
        return {"label": label, "branch": branch, **found}

    def _check_names(self, inputs):
        wanted = [
            f"{kind}_{branch['name']}"
            for branch in self.branches
            for kind in ("logits", "evidence")
        ]
        missing = [name for name in wanted if name not in inputs]
        if missing:
            raise ValueError(
                f"Expected a dict with {', '.join(wanted)}. Received: "
                f"{', '.join(sorted(inputs))}, without {', '.join(missing)}"
            )

    def _patches_of(self, index, evidence, label):
        """Patches of one branch, padded to the largest number of all branches."""
        branch, threshold = self.branches[index], self.iou_threshold
        if isinstance(threshold, tuple) and not self.compat:
            threshold = threshold[index]
        if evidence.shape[-1] == 1:
            evidence = ops.concatenate([-evidence, evidence], axis=-1)
        label = ops.reshape(label, (-1, 1, 1, 1))
        evidence = ops.take_along_axis(evidence, label, axis=-1)[..., 0]
        patches = localize_patches(
            evidence,
            branch["patch_size"],
            self.max_patches[index],
            threshold,
            self.coverage[index],
            branch["stride"],
            branch["offset"],
            self.compat,
        )
        more = max(self.max_patches) - self.max_patches[index]
        return {
            "boxes": ops.pad(
                patches["boxes"], [(0, 0), (0, more), (0, 0)], constant_values=-1
            ),
            "scores": ops.pad(patches["scores"], [(0, 0), (0, more)]),
            "valid": ops.pad(patches["valid"], [(0, 0), (0, more)]),
        }

    def compute_output_shape(self, input_shape):
        batch = input_shape[f"logits_{self.branches[0]['name']}"][0]
        most = max(self.max_patches)
        return {
            "label": (batch,),
            "branch": (batch,),
            "boxes": (batch, most, 4),
            "scores": (batch, most),
            "valid": (batch, most),
        }

    def compute_output_spec(self, inputs):
        self._check_names(inputs)
        shapes = {name: tensor.shape for name, tensor in inputs.items()}
        dtypes = {"scores": "float32", "valid": "bool"}
        return {
            name: keras.KerasTensor(shape, dtypes.get(name, "int32"))
            for name, shape in self.compute_output_shape(shapes).items()
        }

    def get_config(self):
        return {
            **super().get_config(),
            "branches": [dict(branch) for branch in self.branches],
            "max_patches": self.max_patches,
            "iou_threshold": self.iou_threshold,
            "coverage": self.coverage,
            "compat": self.compat,
        }


def _checked_branch(branch):
    unknown = set(branch) - {"name", "patch_size", "stride", "offset"}
    if unknown or not {"name", "patch_size"} <= set(branch):
        raise ValueError(
            "Expected a branch with `name`, `patch_size` and optionally "
            f"`stride` and `offset`. Received: {dict(branch)}"
        )
    return {
        "name": str(branch["name"]),
        "patch_size": pair("patch_size", branch["patch_size"], minimum=1),
        "stride": pair("stride", branch.get("stride", 8), minimum=1),
        "offset": pair("offset", branch.get("offset", 0)),
    }


def _one_each(name, value, branches):
    """`value` for every branch, as a tuple."""
    value = listed(value)
    if not isinstance(value, (tuple, list)):
        return (value,) * branches
    if len(value) != branches:
        raise ValueError(
            f"Expected `{name}` to be one value or one for each of {branches} branches."
            f" Received: {name}={value}"
        )
    return tuple(value)


def _choose(mask, patches, others):
    """Patches of the images in `mask`, and others for the rest."""
    return {
        "boxes": ops.where(mask[:, None, None], patches["boxes"], others["boxes"]),
        "scores": ops.where(mask[:, None], patches["scores"], others["scores"]),
        "valid": ops.where(mask[:, None], patches["valid"], others["valid"]),
    }
