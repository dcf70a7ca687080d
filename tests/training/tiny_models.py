"""Models whose answers are known without a calculation, for quick tests."""

import keras
import numpy as np
from PIL import Image

from keras_attn.layers.branch_decision import BranchDecision
from keras_attn.layers.class_evidence import ClassEvidence
from keras_attn.layers.spatial_attention_branch import SpatialAttentionBranch
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.recipes.schema import Recipe
from keras_attn.training.runs.run import Run

COLOURS = ("red", "green", "blue")
HEIGHT, WIDTH, CELL = 16, 24, 8
# Patch logits are this times the mean channel values, 0..1, of a cell.
GAIN = 10.0
# Of the localiser: its image, and how far one window is from the next.
LOCALIZER_SIZE = (40, 56)
STRIDE = 8
WINDOWS = (16, 24)


def colour_model(patch_logits=True, height=HEIGHT, width=WIDTH, class_names=COLOURS):
    """Classes are colours: logits are the mean of the cells' channel values."""
    spec = ImageSpec(height, width, class_names=class_names)
    images = keras.Input((height, width, 3), name="images")
    x = ImagePreprocessing(spec, name="preprocessing")(images)
    x = keras.layers.AveragePooling2D(CELL, name="pool")(x)
    layer = keras.layers.Conv2D(
        len(class_names), 1, use_bias=False, name="patch_logits"
    )
    x = layer(x)
    layer.set_weights([GAIN * np.eye(3, len(class_names))[None, None]])
    logits = keras.layers.GlobalAveragePooling2D(name="logits")(x)
    outputs = {"logits": logits}
    if patch_logits:
        outputs["patch_logits"] = x
    return keras.Model(images, outputs, name="colours")


def localizer(windows=WINDOWS, size=LOCALIZER_SIZE, crop_fraction=1.0, auxiliary=True):
    """Classes are colours, and the evidence of a window is that of its mean colour.

    Built like AnchorNet, with branches of average pooling.
    """
    spec = ImageSpec(*size, class_names=COLOURS, crop_fraction=crop_fraction)
    images = keras.Input((*size, 3), name="images")
    x = ImagePreprocessing(spec, name="preprocessing")(images)
    outputs = {}
    for window in windows:
        pooled = keras.layers.AveragePooling2D(window, STRIDE, name=f"pool_{window}")(x)
        attention = SpatialAttentionBranch(name=f"attention_{window}")(pooled)
        layer = ClassEvidence(len(COLOURS), name=f"evidence_{window}")
        branch = layer([pooled, attention])
        layer.classifier.set_weights([GAIN * np.eye(3), np.zeros(3)])
        outputs[f"logits_{window}"] = branch["logits"]
        outputs[f"evidence_{window}"] = branch["evidence"]
        outputs[f"attention_{window}"] = attention
        if auxiliary:
            mean = keras.layers.GlobalAveragePooling2D()(pooled)
            dense = keras.layers.Dense(len(COLOURS), name=f"auxiliary_{window}")
            outputs[f"auxiliary_{window}"] = dense(mean)
    logits = [outputs[f"logits_{window}"] for window in windows]
    decided = BranchDecision(name="logits")(logits)
    return keras.Model(images, {"logits": decided, **outputs}, name="localizer")


def save_localizer(folder, **options):
    path = folder / "localizer.keras"
    localizer(**options).save(path)
    return path


def save_colour_model(folder, **options):
    path = folder / "colours.keras"
    colour_model(**options).save(path)
    return path


def plain_image(red=0, green=0, blue=0, height=HEIGHT, width=WIDTH):
    return np.full((height, width, 3), (red, green, blue), "uint8")


def save_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def colour_folder(folder, each=2):
    """A folder of images by class, with a class for every colour."""
    for channel, name in enumerate(COLOURS):
        for number in range(each):
            pixels = plain_image(height=20 + number, width=30)
            pixels[..., channel] = 200
            save_image(folder / name / f"{number}.png", pixels)
    return folder


def localizer_run(folder, **changes):
    """A run folder of method anchornet with an untrained tiny localiser."""
    recipe = Recipe(name="flowers", method="anchornet", dataset="folder", **changes)
    run = Run.create(folder, recipe)
    for which in ("best", "last"):
        localizer().save(run.checkpoints / f"{which}.keras")
    return run


def patch_run(folder):
    """A run folder of patches that an untrained tiny localiser chooses."""
    choice = {
        "split": "pooled_65_15_20",
        "max_patches": (2,),
        "iou_threshold": 0.2,
        "coverage": (1.0,),
    }
    run = localizer_run(folder, image_size=40, localizer="tiny", **choice)
    localizer((16,), (40, 40)).save(run.checkpoints / "localizer.keras")
    for which in ("best", "last"):
        colour_model(False, 16, 16).save(run.checkpoints / f"{which}.keras")
    return run


def generated_run(folder, checkpoints=("best", "last")):
    """A run folder with an untrained model of the generated data's classes."""
    from keras_attn.pipelines.generated.dataset import generated_source

    recipe = Recipe(name="generated_colours", examples=120, epochs=1)
    run = Run.create(folder, recipe)
    names = generated_source(examples=2).class_names
    model = colour_model(height=32, width=32, class_names=names)
    for which in checkpoints:
        model.save(run.checkpoints / f"{which}.keras")
    return run
