"""The toy method: classes by the mean colours of cells, learned on dark images."""

import keras

from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.methods.classifier import Classifier
from keras_attn.training.methods.feeds.images import ImageFeed

CELL = 8


class DarkFeed(ImageFeed):
    def training(self, start):
        return super().training(start).map(lambda images, labels: (images // 2, labels))


class Toy(Classifier):
    def make_model(self, recipe, spec):
        images = keras.Input((spec.height, spec.width, 3), name="images")
        x = ImagePreprocessing(spec, name="preprocessing")(images)
        x = keras.layers.AveragePooling2D(CELL)(x)
        x = keras.layers.Conv2D(len(spec.class_names), 1, name="patch_logits")(x)
        logits = keras.layers.GlobalAveragePooling2D(name="logits")(x)
        return keras.Model(images, {"logits": logits, "patch_logits": x}, name="toy")

    def losses(self, recipe, model):
        weights = {"logits": recipe.options.strength}
        return {**super().losses(recipe, model), "loss_weights": weights}

    def make_feed(self, recipe, splits, spec):
        return DarkFeed(recipe, splits)


METHOD = Toy()
