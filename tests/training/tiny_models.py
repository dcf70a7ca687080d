"""Models whose answers are known without a calculation, for quick tests."""

import keras
import numpy as np
from PIL import Image

from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from training.recipe import Recipe
from training.run import Run

COLOURS = ("red", "green", "blue")
HEIGHT, WIDTH, CELL = 16, 24, 8
# Patch logits are this times the mean channel values, 0..1, of a cell.
GAIN = 10.0


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


def generated_run(folder, checkpoints=("best", "last")):
    """A run folder with an untrained model of the generated data's classes."""
    from pipelines.generated import generated_source

    recipe = Recipe(name="generated_colours", examples=120, epochs=1)
    run = Run.create(folder, recipe)
    names = generated_source(examples=2).class_names
    model = colour_model(height=32, width=32, class_names=names)
    for which in checkpoints:
        model.save(run.checkpoints / f"{which}.keras")
    return run
