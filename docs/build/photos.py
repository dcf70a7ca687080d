"""Draws `docs/images/photos.jpg`: Grad-CAM of a published network on four photographs.

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

from keras_attn.explain import grad_cam
from keras_attn.training import drawing

IMAGES = pathlib.Path(__file__).parent.parent / "images"
SIZE = 224


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
    maps = keras.ops.convert_to_numpy(grad_cam(model, images))
    figure = drawing.new_figure((2.2 * len(images), 4.7))
    axes = figure.subplots(2, len(images))
    for column, (image, values) in enumerate(zip(images, maps, strict=True)):
        best = probabilities[column].argmax()
        drawing.draw_image(axes[0, column], image)
        drawing.draw_map(axes[1, column], image, values, 1)
        answer = f"{names[best]}, {100 * probabilities[column, best]:.0f} %"
        axes[1, column].set_title(answer, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture)
    Image.open(picture).convert("RGB").save(IMAGES / "photos.jpg", quality=90)


if __name__ == "__main__":
    main(*sys.argv[1:])
