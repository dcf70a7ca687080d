"""Draws maps of a published network on four photographs.

`docs/images/photos.jpg` has Grad-CAM, and `methods.jpg` other methods beside it.

    python docs/build/photos.py efficientnet_lite0_imagenet.keras imagenet_classes.txt

The model takes 8-bit images of 224 pixels and has one output, the probabilities; the
text file has the name of a class in each line.
"""

import io
import pathlib
import sys

import keras
import numpy as np
from PIL import Image, ImageOps

from keras_attn import explain
from keras_attn.training import drawing

IMAGES = pathlib.Path(__file__).parent.parent / "images"
SIZE = 224
# Of JPEG files, which are to stay under 150 kB.
QUALITY = {"photos.jpg": 88, "methods.jpg": 69}
# The last map of 14 x 14 cells.
EARLY = "block11_expand_relu"


def photographs():
    """The photographs, cut to squares: `(4, 224, 224, 3)`, 8-bit."""
    files = sorted((IMAGES / "photos").glob("*.jpg"))
    squares = [ImageOps.fit(Image.open(file), (SIZE, SIZE)) for file in files]
    return np.stack([np.asarray(square.convert("RGB")) for square in squares])


def main(model_file, class_file):
    model = keras.saving.load_model(model_file, compile=False)
    names = pathlib.Path(class_file).read_text().splitlines()
    images = photographs()
    probabilities = model.predict(images, verbose=0)
    maps = keras.ops.convert_to_numpy(explain.grad_cam(model, images))
    figure = drawing.new_figure((2.2 * len(images), 4.7))
    axes = figure.subplots(2, len(images))
    for column, (image, values) in enumerate(zip(images, maps, strict=True)):
        best = probabilities[column].argmax()
        drawing.draw_image(axes[0, column], image)
        drawing.draw_map(axes[1, column], image, values, (0, 1))
        answer = f"{names[best]}, {100 * probabilities[column, best]:.0f} %"
        axes[1, column].set_title(answer, fontsize=11)
    save(figure, "photos.jpg")
    draw_methods(model, images)


def draw_methods(model, images):
    """One row per photograph, one column per method."""
    methods = {
        "Grad-CAM": lambda: explain.grad_cam(model, images),
        "Finer-CAM": lambda: explain.grad_cam(model, images, against="nearest"),
        "LayerCAM, an early layer": lambda: explain.layer_cam(model, images, EARLY),
        "integrated gradients": lambda: explain.integrated_gradients(
            model, images, baseline=128.0
        ),
        "SmoothGrad": lambda: explain.smooth_grad(model, images),
        "occlusion": lambda: explain.occlusion(model, images),
    }
    figure = drawing.new_figure((1.9 * (1 + len(methods)), 2 * len(images)))
    axes = figure.subplots(len(images), 1 + len(methods))
    for axis, image in zip(axes[:, 0], images, strict=True):
        drawing.draw_image(axis, image)
    for column, (name, function) in enumerate(methods.items(), 1):
        axes[0, column].set_title(name, fontsize=9)
        maps = keras.ops.convert_to_numpy(function())
        for axis, image, values in zip(axes[:, column], images, maps, strict=True):
            # The few highest pixels of slopes would hide the others.
            values = np.minimum(values / np.quantile(values, 0.99), 1)
            drawing.draw_map(axis, image, values, (0, 1))
    save(figure, "methods.jpg")


def save(figure, name):
    picture = io.BytesIO()
    figure.savefig(picture)
    Image.open(picture).convert("RGB").save(IMAGES / name, quality=QUALITY[name])


if __name__ == "__main__":
    main(*sys.argv[1:])
