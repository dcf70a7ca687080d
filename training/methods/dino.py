"""DINO: a vision transformer that learns without labels from views of its images."""

import keras
import numpy as np

from keras_attn.metrics import knn_accuracy
from keras_attn.models import Dino, EpochwiseWarmup, WarmupCosine, dino_optimizer
from keras_attn.models.vit import VIT_SIZES, vit
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.methods.feeds.views import ViewFeed
from keras_attn.training.methods.protocol import Method
from keras_attn.training.runs import devices, hosts

WATCHED = "val_knn_accuracy"


class SelfDistillation(Method):
    """Trains a student and a teacher, whose transformer is the model of the run.

    Labels only serve the validation: at the end of an epoch the nearest training images
    of each validation image vote for its class, by the teacher's embeddings.
    """

    classifies = False
    next_commands = ("masks {run} {dataset} {data} --output maps",)

    def make_model(self, recipe, spec):
        """Raw images of `image_size` in, `embedding` and `tokens` out."""
        images = keras.Input((spec.height, spec.width, 3), name="images")
        pixels = ImagePreprocessing(spec, name="preprocessing")(images)
        return _transformer(recipe, pixels)

    def make_trainer(self, recipe, spec, steps):
        options = recipe.options
        return Dino(
            _backbone(recipe, spec, options.drop_path),
            _backbone(recipe, spec),
            head={
                "units": options.units,
                "hidden_units": options.hidden_units,
                "bottleneck_units": options.bottleneck_units,
            },
            teacher_temperature=EpochwiseWarmup(
                options.first_teacher_temperature,
                options.teacher_temperature,
                options.teacher_warmup_epochs,
                steps,
            ),
            teacher_momentum=WarmupCosine(
                options.teacher_momentum, 1.0, steps * recipe.epochs
            ),
        )

    def compile(self, model, recipe, steps):
        options = recipe.options
        optimizer = dino_optimizer(
            steps,
            recipe.epochs,
            recipe.batch_size,
            recipe.learning_rate,
            options.final_learning_rate,
            options.warmup_epochs,
            recipe.weight_decay,
            options.final_weight_decay,
            options.clipnorm,
            options.resting_epochs,
        )
        model.compile(optimizer, jit_compile=devices.compiles(recipe))

    def make_feed(self, recipe, splits, spec):
        return ViewFeed(recipe, splits)

    def saved_model(self, recipe, spec, model):
        """The teacher's transformer for images of `image_size`."""
        network = self.make_model(recipe, spec)
        network.set_weights(model.teacher.get_weights())
        return network

    def callbacks(self, recipe, saved, splits):
        judged = len(splits["validation"][1]) > 0
        judges = [JudgeByNeighbours(saved, recipe, splits)] if judged else []
        return [TakeTeacher(saved), *judges]

    def watched(self, model):
        return WATCHED


def _backbone(recipe, spec, drop_path=0.0):
    """The transformer for views of several sizes."""
    views = keras.Input((None, None, 3), name="views")
    layer = ImagePreprocessing(spec, resize=False, name="preprocessing")
    return _transformer(recipe, layer(views), drop_path)


def _transformer(recipe, pixels, drop_path=0.0):
    options = recipe.options
    width, blocks, heads = VIT_SIZES[options.size]
    return vit(
        (width, options.blocks or blocks, heads),
        options.patch_size,
        position_size=options.global_size,
        drop_path=drop_path,
        input_tensor=pixels,
    )


class TakeTeacher(keras.callbacks.Callback):
    """Gives a network the teacher's weights at the end of every epoch."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def on_epoch_end(self, epoch, logs=None):
        self.network.set_weights(self.model.teacher.get_weights())


class JudgeByNeighbours(keras.callbacks.Callback):
    """Adds the accuracy of nearest neighbours to the logs of every epoch.

    Args:
        network: Model with the output `embedding`.
        recipe: `Recipe`.
        splits: Dict from `train` and `validation` to `(images, labels)`.
    """

    def __init__(self, network, recipe, splits):
        super().__init__()
        self.network = network
        self.neighbours = recipe.options.neighbours
        self.splits = {
            name: evenly(*splits[name], recipe.options.judged_images)
            for name in ("train", "validation")
        }

    def on_epoch_end(self, epoch, logs=None):
        logs[WATCHED] = self.accuracy()

    def accuracy(self):
        """Share of the validation images whose neighbours vote for their class."""
        found = []
        for name in ("validation", "train"):
            images, labels = self.splits[name]
            found += hosts.group().rows(
                lambda own, images=images: embeddings(self.network, images[own]),
                len(labels),
            )
            found.append(labels)
        return knn_accuracy(*found, k=self.neighbours)


def embeddings(network, images, batch_size=64):
    """Embeddings `(images, width)` of raw images.

    Args:
        network: Model with the output `embedding`.
        images: `(images, height, width, 3)`, 8-bit.
        batch_size: Images at a time.
    """
    found = [
        keras.ops.convert_to_numpy(
            network(np.asarray(images[start : start + batch_size]), training=False)[
                "embedding"
            ]
        )
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(found)


def evenly(images, labels, count):
    """At most `count` of the images, spread over all of them."""
    chosen = np.unique(np.linspace(0, len(labels) - 1, min(count, len(labels))).round())
    chosen = chosen.astype(int)
    return images[chosen], labels[chosen]


METHOD = SelfDistillation()
