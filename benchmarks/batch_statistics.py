"""Accuracy by the statistics of batch normalisation, after short trainings.

    python -m benchmarks.batch_statistics --flowers FLOWERS.tar --cifar CIFAR.tar.xz

Trains as `keras-attn train --data` does, on 100, 300 and all photographs and on 5,000
of CIFAR-10's images. Gradients do not depend on the momentum, so that one training
serves all: statistics of a momentum of 0.99 are followed beside those of the recipe,
and others are estimated anew on all training images. Prints a table of the accuracy on
images that were not trained on. Times nothing.
"""

import argparse
import dataclasses

import keras
import numpy as np

from keras_attn.graph.keras_graph import layers_of
from keras_attn.pipelines.sources.load import load_source
from keras_attn.pipelines.sources.splits import split_indices
from keras_attn.training.data.load import image_spec
from keras_attn.training.data.own import own_data_recipe
from keras_attn.training.evaluation.evaluate import evaluate_model
from keras_attn.training.fit.train import prepare, trainable_model
from keras_attn.training.methods import method_of

KEPT = 0.99
JUDGED = 600


class Slower(keras.callbacks.Callback):
    """Follows the statistics that a momentum of `KEPT` would give."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.seen = statistics(layers)
        self.values = self.seen

    def on_train_batch_end(self, batch, logs=None):
        momenta = [layer.momentum for layer in self.layers for _ in range(2)]
        now = statistics(self.layers)
        self.values = [
            KEPT * value + (1 - KEPT) * (new - m * old) / (1 - m)
            for value, new, old, m in zip(
                self.values, now, self.seen, momenta, strict=True
            )
        ]
        self.seen = now


def normalisations(model):
    kind = keras.layers.BatchNormalization
    return [layer for layer in layers_of(model) if isinstance(layer, kind)]


def statistics(layers):
    pairs = [(layer.moving_mean, layer.moving_variance) for layer in layers]
    return [np.asarray(each, "float64") for pair in pairs for each in pair]


def assign(layers, values):
    for layer, mean, variance in zip(layers, values[::2], values[1::2], strict=True):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)


def estimate(model, layers, images, batch_size):
    """Means of the statistics of all batches of some images."""
    for number, start in enumerate(range(0, len(images), batch_size)):
        for layer in layers:
            layer.momentum = number / (number + 1)
        model(images[start : start + batch_size], training=True)


def accuracies(path, count, seed, epochs=None):
    """Steps, and accuracies by momentum 0.99, the recipe's, and estimated anew."""
    source = load_source("folder", path)
    rng = np.random.default_rng([seed, count])
    order = rng.permutation(len(source))
    recipe = own_data_recipe(path)
    wanted = min(count, len(source))
    recipe = dataclasses.replace(
        recipe,
        seed=seed,
        split="pooled_65_15_20",
        epochs=epochs or int(np.clip(6000 // wanted, 10, 30)),
    )
    chosen = source._subset(np.sort(order[:wanted]))
    parts = split_indices(chosen, recipe.split)
    spec = image_spec(recipe, source)
    rest = source._subset(np.sort(order[wanted:][:JUDGED]))
    train = chosen._subset(parts["train"]).decoded(spec)
    unseen = np.setdiff1d(np.arange(len(chosen)), parts["train"])
    judged = (rest if len(rest) > 100 else chosen._subset(unseen)).decoded(spec)
    method = method_of(recipe)
    splits = {"train": (train.images, train.labels), "validation": ((), ())}
    feed = method.make_feed(recipe, splits, spec)
    prepare(recipe)
    model = trainable_model(recipe, spec, feed.steps)
    layers = normalisations(model)
    slower = Slower(layers)
    batches = method.label(model, feed.training(0))
    model.fit(
        batches,
        epochs=recipe.epochs,
        steps_per_epoch=feed.steps,
        shuffle=False,
        verbose=0,
        callbacks=[slower],
    )
    own = statistics(layers)
    found = []
    for values in (slower.values, own, None):
        if values is None:
            estimate(model, layers, train.images, recipe.batch_size)
        else:
            assign(layers, values)
        result = evaluate_model(model, judged.images, judged.labels)
        found.append(100 * result["accuracy"])
    return feed.steps * recipe.epochs, found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flowers", required=True)
    parser.add_argument("--cifar", required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--cases", type=int, nargs="+", default=range(4))
    given = parser.parse_args()
    cases = [
        ("TF Flowers", given.flowers, 100, None),
        ("TF Flowers", given.flowers, 300, None),
        ("TF Flowers", given.flowers, 3000, None),
        ("CIFAR-10", given.cifar, 5000, 3),
    ]
    print("| images | steps | momentum 0.99 | of the recipe | estimated anew |")
    print("|---|---|---|---|---|")
    for name, path, count, epochs in (cases[number] for number in given.cases):
        runs = [accuracies(path, count, seed, epochs) for seed in range(given.seeds)]
        columns = zip(*(found for _, found in runs), strict=True)
        cells = [" / ".join(f"{each:.1f}" for each in column) for column in columns]
        print(f"| {name}, {count:,} | {runs[0][0]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
