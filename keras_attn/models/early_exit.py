"""A classifier that stops as soon as the answer is clear, and the table of exits."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_attn._checks import check_images, sides
from keras_attn.early_exit.thresholds import policy_of
from keras_attn.layers.early_exit import NETWORKS, EarlyExit
from keras_attn.models.localizer import branches_of
from keras_attn.models.patch_classifier import fitted_size, image_shape


def early_exit_classifier(
    localizer: keras.Model,
    resized_classifier: keras.Model,
    patch_classifier: keras.Model,
    max_patches: int | Sequence[int],
    resized_size: int | tuple[int, int] | None = None,
    thresholds: float | Sequence[float] | None = None,
    policy=None,
    iou_threshold: float | Sequence[float] = 0.3,
    coverage: float | Sequence[float] = 1.0,
    from_logits: bool | None = None,
    image_size: tuple[int, int] | None = None,
    gather: bool | None = None,
    name: str = "early_exit_classifier",
) -> keras.Model:
    """Classifies the resized image, then patch after patch, until the answer is sure.

    See `EarlyExit`, the one layer of the model. With the localiser `anchornet95`, two
    ResNet-50 or DenseNet-201, `resized_size=95` and `max_patches=4` it is the
    classifier of the code that followed the AnchorNet paper.

    Args:
        localizer: Functional model with outputs `logits_NAME` and `evidence_NAME` for
            every branch, such as `anchornet95` returns.
        resized_classifier, patch_classifier: Keras models of the same classes.
        max_patches: Largest number of patches per image, one for all branches or one
            for each.
        resized_size: Size of the resized image; by default that which
            `resized_classifier` takes, or the images' own if it fits images to its
            size itself.
        thresholds, policy: Condition of an exit. With neither, no image exits before
            the end.
        iou_threshold, coverage: See `LocalizePatches`.
        from_logits, gather: See `EarlyExit`.
        image_size: `(height, width)` of the images, for a localiser that leaves it
            open. By default the size that its preprocessing fits images to, if any.
        name: Name of the model.

    The three networks get the same pixels, resized or cut out: all are to contain their
    own `ImagePreprocessing`, or none.

    Returns:
        Functional model with the outputs of `EarlyExit`.

    Raises:
        ValueError: If images are smaller than a patch, a classifier does not take
            the sizes that it would get, or the two have different classes.
    """
    shape = image_shape(localizer, image_size)
    branches = branches_of(localizer, shape[:2])
    check_images((None, *shape), [sides(each["patch_size"]) for each in branches])
    images = keras.Input(shape, dtype=localizer.inputs[0].dtype, name="images")
    layer = EarlyExit(
        localizer,
        resized_classifier,
        patch_classifier,
        branches,
        max_patches,
        _resized_size(resized_classifier, resized_size, shape),
        iou_threshold=iou_threshold,
        coverage=coverage,
        policy=policy_of(thresholds, policy),
        from_logits=from_logits,
        gather=gather,
        name="early_exit",
    )
    return keras.Model(images, layer(images), name=name)


def with_exits(
    model: keras.Model, thresholds: float | Sequence[float] | None = None, policy=None
) -> keras.Model:
    """An `early_exit_classifier` with other thresholds or another policy.

    The networks are those of the given model. With neither no image exits before the
    end.
    """
    layer = _early_exit(model)
    arguments = layer.get_config()
    changed = {"policy": policy_of(thresholds, policy)}
    networks = {name: getattr(layer, name) for name in NETWORKS}
    other = EarlyExit(**{**arguments, **networks, **changed})
    images = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    return keras.Model(images, other(images), name=model.name)


def exit_table(model: keras.Model, batches) -> dict[str, np.ndarray]:
    """Outcome of stopping every image at every exit: the data for a policy.

    All exits are forced to run. An image with fewer patches than there are exits
    keeps its last answer.

    Args:
        model: What `early_exit_classifier` returned, with any thresholds.
        batches: Iterable of `(images, labels)`, labels `(batch,)`.

    Returns:
        Dict of NumPy arrays: `confidence` `(images, exits)` float32, `correct`
        `(images, exits)` bool, and `cost` `(exits,)` float64, the mean multiply-adds of
        stopping at each exit, those of the localiser included.

    Example:

    >>> np.savez("table.npz", **exit_table(model, dataset.as_numpy_iterator()))
    """
    model = with_exits(model)
    costs = _early_exit(model).network_costs
    confidence, correct, cost = [], [], []
    for images, labels in batches:
        outputs = model.predict_on_batch(images)
        labels = np.asarray(labels).reshape((-1, 1))
        confidence.append(outputs["confidence"])
        correct.append(outputs["predictions"] == labels)
        exits = np.arange(outputs["confidence"].shape[1])
        patches = np.minimum(outputs["valid"].sum(axis=1)[:, None], exits)
        patch_costs = np.asarray(costs["patch"], "float64")[outputs["branch"]]
        localizer = costs["localizer"] * (exits > 0)
        cost.append(costs["resized"] + localizer + patches * patch_costs[:, None])
    if not confidence:
        raise ValueError("Expected at least one batch. Received: none")
    return {
        "confidence": np.concatenate(confidence),
        "correct": np.concatenate(correct),
        "cost": np.concatenate(cost).mean(axis=0),
    }


def _early_exit(model):
    layers = [layer for layer in model.layers if isinstance(layer, EarlyExit)]
    if len(layers) != 1:
        raise ValueError(
            "Expected a model from `early_exit_classifier`. Received: "
            f"{model.name!r} with {len(layers)} EarlyExit layers"
        )
    return layers[0]


def _resized_size(classifier, size, image):
    if size is None:
        size = tuple(classifier.inputs[0].shape[1:3])
    if None in sides(size) and fitted_size(classifier) is not None:
        return image[:2]
    if None in sides(size):
        raise ValueError(
            "Expected `resized_size`, because `resized_classifier` takes images of any "
            f"size. Received: resized_size={size}"
        )
    return sides(size)
