"""Self-supervised training of a vision transformer: recipe and images -> model."""

import sys

import keras
import numpy as np

from keras_attn.metrics import knn_accuracy
from keras_attn.models import Dino, EpochwiseWarmup, WarmupCosine, dino_optimizer
from keras_attn.models.vit import VIT_SIZES, vit
from keras_attn.pipelines.batches import build
from keras_attn.pipelines.batches.multi_crop import multi_crop_batches
from keras_attn.pipelines.images.streaming import clear_errors
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.data.load import load_data
from keras_attn.training.fit import callbacks
from keras_attn.training.fit.train import check_same_data, dtype_policy
from keras_attn.training.runs import devices
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress, restore_state

WATCHED = "val_knn_accuracy"


def train_dino(
    recipe, workdir, data=None, source=None, on_corrupt="error", verbose=None
):
    """Trains a transformer without labels, or goes on where that run stopped.

    Labels only judge it: at the end of an epoch the nearest training images of each
    validation image vote for its class, by the teacher's embeddings. The model of the
    run is the teacher's transformer, raw images of `image_size` in, `embedding` and
    `tokens` out.

    Args:
        recipe: `DinoRecipe`.
        workdir, data, source, on_corrupt, verbose: As in
        `keras_attn.training.fit.train.train`.

    Returns:
        The `Run`.

    Raises:
        ValueError, NotFiniteError, SaveError: As of
        `keras_attn.training.fit.train.train`.
    """
    run = Run.check(workdir, recipe)
    state = run.checkpoints / "last.npz"
    progress = load_progress(state)
    start = progress.epochs
    if start >= recipe.epochs:
        print(f"{run.workdir} is finished: {start} epochs.")
        return run
    devices.check_recipe(recipe)
    spec, splits = load_data(recipe, data, source, on_corrupt)
    check_same_data(run, progress, splits)
    images = splits["train"][0]
    steps = build.steps_per_epoch(len(images), recipe.batch_size)
    model = trainable_model(recipe, spec, steps)
    network = make_network(recipe, spec)
    if start:
        restore_state(state, model)
        print(f"Resuming {run.workdir} after epoch {start} of {recipe.epochs}.")
    views = multi_crop_batches(
        images,
        recipe.batch_size,
        recipe.seed,
        recipe.epochs,
        start,
        recipe.multi_crop(),
    )
    Run.create(workdir, recipe)
    if verbose is None:
        verbose = 1 if sys.stdout.isatty() else 2
    judged = len(splits["validation"][1]) > 0
    try:
        with clear_errors():
            model.fit(
                views,
                initial_epoch=start,
                epochs=recipe.epochs,
                steps_per_epoch=steps,
                shuffle=False,
                verbose=verbose,
                callbacks=[
                    callbacks.StopAtNotFinite(run, progress),
                    TakeTeacher(network),
                    *([JudgeByNeighbours(network, recipe, splits)] if judged else []),
                    callbacks.Checkpoint(
                        run, progress, WATCHED if judged else None, saved=network
                    ),
                    callbacks.EventFiles(run),
                ],
            )
    except KeyboardInterrupt:
        done = load_progress(state).epochs
        print(
            f"\nInterrupted {run.workdir} after epoch {done} of {recipe.epochs}. The "
            "same command goes on from there."
        )
        raise
    return run


def trainable_model(recipe, spec, steps):
    """The recipe's compiled `Dino` and built optimizer, before the first step.

    Args:
        recipe: `DinoRecipe`.
        spec: `ImageSpec`.
        steps: Steps of an epoch.
    """
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    with devices.scope(), dtype_policy(recipe.dtype_policy):
        model = Dino(
            _backbone(recipe, spec, recipe.drop_path),
            _backbone(recipe, spec),
            head={
                "units": recipe.units,
                "hidden_units": recipe.hidden_units,
                "bottleneck_units": recipe.bottleneck_units,
            },
            teacher_temperature=EpochwiseWarmup(
                recipe.first_teacher_temperature,
                recipe.teacher_temperature,
                recipe.teacher_warmup_epochs,
                steps,
            ),
            teacher_momentum=WarmupCosine(
                recipe.teacher_momentum, 1.0, steps * recipe.epochs
            ),
        )
        optimizer = dino_optimizer(
            steps,
            recipe.epochs,
            recipe.batch_size,
            recipe.learning_rate,
            recipe.final_learning_rate,
            recipe.warmup_epochs,
            recipe.weight_decay,
            recipe.final_weight_decay,
            recipe.clipnorm,
            recipe.resting_epochs,
        )
        model.compile(optimizer, jit_compile=recipe.jit_compile)
        model.optimizer.build(model.trainable_variables)
    return model


def make_network(recipe, spec):
    """The transformer as it is used: raw images in, `embedding` and `tokens` out."""
    with dtype_policy(recipe.dtype_policy):
        images = keras.Input((spec.height, spec.width, 3), name="images")
        pixels = ImagePreprocessing(spec, name="preprocessing")(images)
        return _transformer(recipe, pixels)


def initial_network(recipe, spec):
    """The network that a run of the recipe starts with."""
    network = make_network(recipe, spec)
    # Any number of steps: it is not trained.
    model = trainable_model(recipe, spec, steps=1)
    network.set_weights(model.teacher.get_weights())
    return network


def _backbone(recipe, spec, drop_path=0.0):
    """The transformer for views of several sizes."""
    views = keras.Input((None, None, 3), name="views")
    layer = ImagePreprocessing(spec, resize=False, name="preprocessing")
    return _transformer(recipe, layer(views), drop_path)


def _transformer(recipe, pixels, drop_path=0.0):
    width, blocks, heads = VIT_SIZES[recipe.size]
    return vit(
        (width, recipe.blocks or blocks, heads),
        recipe.patch_size,
        position_size=recipe.global_size,
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
        recipe: `DinoRecipe`.
        splits: As of `keras_attn.training.data.load.load_data`.
    """

    def __init__(self, network, recipe, splits):
        super().__init__()
        self.network = network
        self.neighbours = recipe.neighbours
        self.splits = {
            name: evenly(*splits[name], recipe.judged_images)
            for name in ("train", "validation")
        }

    def on_epoch_end(self, epoch, logs=None):
        logs[WATCHED] = self.accuracy()

    def accuracy(self):
        """Share of the validation images whose neighbours say their class."""
        found = [
            (embeddings(self.network, images), labels)
            for images, labels in (self.splits["validation"], self.splits["train"])
        ]
        return knn_accuracy(*found[0], *found[1], k=self.neighbours)


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
    """At most so many of the images, spread over all of them."""
    chosen = np.unique(np.linspace(0, len(labels) - 1, min(count, len(labels))).round())
    chosen = chosen.astype(int)
    return images[chosen], labels[chosen]
