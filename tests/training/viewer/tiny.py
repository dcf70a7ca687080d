"""Tiny models and images for the viewer, and a page with them."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

from keras_attn.models.early_exit import early_exit_classifier
from keras_attn.models.masked_resnet import end_to_end, masked_resnet
from keras_attn.models.vit import attention_map_model, vit
from keras_attn.preprocessing import ImagePreprocessing, ImageSpec
from keras_attn.training.trained import Trained
from keras_attn.training.viewer.library import Library, Viewed
from keras_attn.training.viewer.uploads import check_upload
from tests.training import tiny_models as tiny
from tests.training.explain.test_warps import Shifted, model_with


def encoded(pixels, form="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def upload(pixels, name="image.png"):
    return check_upload(encoded(pixels), name)


def red_at_the_left():
    """An image of the localiser's size: red in the upper left, green elsewhere."""
    image = tiny.plain_image(
        0, 120, 0, height=tiny.LOCALIZER_SIZE[0], width=tiny.LOCALIZER_SIZE[1]
    )
    image[:16, :16] = (255, 0, 0)
    return image


def viewed(model):
    return Viewed(Trained(model, None))


def shifted():
    """A warped classifier: the first group stays, the second goes down and left."""
    return model_with(Shifted((0, 0), (1, -2)))


def masked():
    """A network with attention-masked residuals and the maps that it gets."""
    spec = ImageSpec(16, 24, class_names=tiny.COLOURS)
    images = keras.Input((16, 24, 3))
    normalized = ImagePreprocessing(spec, name="preprocessing")(images)
    transformer = vit((8, 2, 2), 4, input_tensor=normalized)
    for weight in transformer.weights:
        weight.assign(keras.random.normal(weight.shape, stddev=0.7, seed=3))
    maps = attention_map_model(transformer, "mean", "minmax")
    images = keras.Input((16, 24, 3), name="images")
    normalized = ImagePreprocessing(spec, name="preprocessing")(images)
    network = masked_resnet(num_classes=3, stem="native", input_tensor=normalized)
    return end_to_end(maps, network)


def early_exit(thresholds=None):
    def classifier():
        images = keras.Input((None, None, 3))
        x = keras.layers.Rescaling(tiny.GAIN / 255)(images)
        return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))

    return early_exit_classifier(
        tiny.localizer(auxiliary=False),
        classifier(),
        classifier(),
        max_patches=3,
        resized_size=16,
        thresholds=thresholds,
    )


def library(folder):
    """A library of two models, `colours` and `localizer`, without runs."""
    names = [tiny.save_colour_model(folder), tiny.save_localizer(folder)]
    return Library(names)


def app_of(folder, **options):
    """The Flask application with two models and an example."""
    pytest.importorskip("flask", reason="The viewer needs Flask (extra: view)")
    from keras_attn.training.viewer.mistakes import Searches
    from keras_attn.training.viewer.page import Viewer, make_app

    models = library(folder)
    example = tiny.save_image(
        folder / "examples" / "blue.png", tiny.plain_image(blue=9)
    )
    viewer = Viewer(models, Searches(models), [example], **options)
    return make_app(viewer), viewer


def softmax(values):
    exponents = np.exp(np.asarray(values, "float64"))
    return exponents / exponents.sum()
