"""One model from images to classes by way of patches."""

from collections.abc import Sequence

import keras

from keras_attn._checks import check_images, sides
from keras_attn.graph.costs import PatchCost, patch_cost
from keras_attn.layers.classify_patches import ClassifyPatches
from keras_attn.layers.localize_patches import LocalizePatches
from keras_attn.models.building import ImageSize
from keras_attn.models.localizer import branches_of
from keras_attn.preprocessing import ImagePreprocessing


def patch_classifier(
    localizer: keras.Model,
    classifier: keras.Model,
    max_patches: int | Sequence[int],
    iou_threshold: float | Sequence[float] = 0.3,
    coverage: float | Sequence[float] = 1.0,
    compat: bool = False,
    from_logits: bool | None = None,
    image_size: tuple[int, int] | None = None,
    gather: bool | None = None,
    name: str = "patch_classifier",
) -> keras.Model:
    """A classifier that sees patches, around a localiser and any Keras classifier.

    AnchorNet paper, sections 3.3 and 4.4: the localiser decides on a branch and its
    patches (`LocalizePatches`); these are cut out of the image and classified one by
    one, and their softmax distributions added up (`ClassifyPatches`). The classifier
    works on valid patches only, those of the same size together; JAX, which
    compiles static shapes only, computes every slot and drops the others.

    Args:
        localizer: Functional model with outputs `logits_NAME` and `evidence_NAME` for
            every branch, such as `anchornet` or `as_localizer` return.
        classifier: Keras model of patches, see `ClassifyPatches`. If the branches have
            several patch sizes it must take images of any size.
        max_patches, iou_threshold, coverage, compat: See `LocalizePatches`; the first
            and third may have one value for every branch.
        from_logits, gather: See `ClassifyPatches`.
        image_size: `(height, width)` of the images, for a localiser that leaves it
            open. By default the size that its preprocessing fits images to, if any.
        name: Name of the model.

    Localiser and classifier get the same pixels: both are to contain their own
    `ImagePreprocessing`, the classifier one with `resize=False`, or neither.

    Returns:
        Functional model with the outputs of `ClassifyPatches`: `logits`,
        `patch_probabilities`; and those of `LocalizePatches`: `label`, `branch`,
        `boxes`, `scores`, `valid`.

    Raises:
        ValueError: If images are smaller than a patch, or the classifier does not take
            patches of every size, or images with the localiser's channels.

    Example:

    >>> localizer = anchornet((128, 160, 3), num_classes=10)
    >>> classifier = small_resnet(num_classes=10)
    >>> model = patch_classifier(localizer, classifier, max_patches=(5, 3, 2))
    >>> model.output["patch_probabilities"].shape
    (None, 5, 10)
    """
    shape = image_shape(localizer, image_size)
    branches = branches_of(localizer, shape[:2])
    images = keras.Input(shape, dtype=localizer.inputs[0].dtype, name="images")
    check_images((None, *shape), [sides(each["patch_size"]) for each in branches])
    maps = localizer(ImageSize(name="image_size")(images))
    localize = LocalizePatches(
        branches,
        max_patches,
        iou_threshold=iou_threshold,
        coverage=coverage,
        compat=compat,
        name="localize_patches",
    )
    found = localize(maps_of(maps, branches))
    classified = ClassifyPatches(
        classifier,
        [branch["patch_size"] for branch in branches],
        localize.max_patches,
        from_logits=from_logits,
        gather=gather,
        name="classify_patches",
    )([images, found["boxes"], found["valid"], found["branch"]])
    return keras.Model(images, {**classified, **found}, name=name)


def cost_of(model: keras.Model) -> PatchCost:
    """`PatchCost` of a model that `patch_classifier` returned.

    Example:

    >>> outputs = model.predict(images)
    >>> patches = outputs["valid"].sum(axis=1)
    >>> cost_of(model).mean(outputs["branch"], patches)
    """
    (localizer,) = [each for each in model.layers if isinstance(each, keras.Model)]
    (patches,) = [each for each in model.layers if isinstance(each, ClassifyPatches)]
    shape = tuple(model.inputs[0].shape[1:])
    return patch_cost(localizer, patches.classifier, patches.patch_sizes, shape)


def maps_of(maps, branches):
    """The outputs of a localiser that `LocalizePatches` takes."""
    return {
        f"{kind}_{branch['name']}": maps[f"{kind}_{branch['name']}"]
        for branch in branches
        for kind in ("logits", "evidence")
    }


def image_shape(localizer, image_size=None):
    """`(height, width, channels)` of the images of a composite model.

    Raises:
        ValueError: If the size is unknown, or not what the localiser takes.
    """
    *expected, channels = localizer.inputs[0].shape[1:]
    expected = fitted_size(localizer) or expected
    size = tuple(expected if image_size is None else image_size)
    if None in size:
        raise ValueError(
            "Expected `image_size`, because the localiser takes images of any size. "
            f"Received: image_size={image_size}"
        )
    if any(
        known not in (None, given) for known, given in zip(expected, size, strict=True)
    ):
        raise ValueError(
            "Expected images of the size that the localiser takes, "
            f"{tuple(expected)}. Received: image_size={image_size}"
        )
    return (*size, channels)


def fitted_size(model):
    """`(height, width)` that a model fits images to by itself, or `None`."""
    for layer in model.layers:
        if isinstance(layer, ImagePreprocessing) and layer.resize:
            return layer.spec.height, layer.spec.width
    return None
