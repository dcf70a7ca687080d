# %% [markdown]
# # A pretrained ResNet-50 with a volumetric transformer, on your own folder
#
# Fine-grained classes differ in parts: a beak, a grille, a wing. A volumetric
# transformer behind the last features moves those parts, group of channels by group of
# channels, to where they usually are; a consistency loss on images of the same class
# teaches it.
#
# Set `FOLDER` to a folder that has a folder of images for each class. The published
# weights are downloaded once (95 MB).

# %%
import dataclasses

import keras
import matplotlib.pyplot as plt
import numpy as np
from example_data import QUICK, load, picture_path

from keras_attn import ImagePreprocessing, ImageSpec
from keras_attn.losses import ConsistencyLoss
from keras_attn.models import backbone_normalization, warped_classifier

keras.utils.set_random_seed(0)
FOLDER = None  # "photos/"
BACKBONE, WEIGHTS = ("small_resnet", None) if QUICK else ("resnet50", "imagenet")
# A minute on two cores, to see that all runs. For answers that mean something: 224
# pixels (the paper: 448, on a GPU), (3, 5) epochs and all your images.
SIZE = 64 if QUICK else 160
EPOCHS = (1, 1)  # of the new layers, then of all
BATCH = 16

train, test, class_names = load(FOLDER, SIZE, examples=30 if QUICK else 60)
print(f"{len(train[0])} images of {len(class_names)} classes")

# %% [markdown]
# ## The model
#
# The preprocessing is the model's first layer, with the normalisation of the published
# weights: a saved model takes raw pixels and cannot be fed wrong ones. `options` are
# arguments of `VolumetricTransformer`: the window of candidates must fit into the last
# map, 7 x 7 for images of 224 pixels.

# %%
spec = ImageSpec(SIZE, SIZE, class_names=tuple(class_names))
spec = dataclasses.replace(spec, **backbone_normalization(BACKBONE))
images = keras.Input((SIZE, SIZE, 3), name="images")
model = warped_classifier(
    BACKBONE,
    num_classes=len(class_names),
    input_tensor=ImagePreprocessing(spec)(images),
    weights=WEIGHTS,
    options={"groups": 8, "window": 5, "estimator_filters": (32, 64)},
    warped_output=True,
)
for name, tensor in model.output.items():
    print(name, tensor.shape)

# %% [markdown]
# ## Training
#
# The consistency loss compares images of a class within the batch, so batches are to
# hold several of each: with more than about ten classes use
# `keras_attn.pipelines.batches.pairs`, or `keras-attn train` with a recipe of the
# method, which does all of this and resumes.
#
# First the new layers alone, so that their random gradients do not spoil the features,
# then everything at a tenth of the learning rate. Batch normalisation stays frozen, as
# its averages do not suit batches this small.

# %%
new = ("deformation", "logits")
losses = {
    "logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "warped": ConsistencyLoss(margin=30.0),
}


def fit(epochs, learning_rate):
    model.compile(
        keras.optimizers.Adam(learning_rate),
        loss=losses,
        loss_weights={"logits": 1.0, "warped": 0.01},
        metrics={"logits": "accuracy"},
    )
    # With metrics Keras wants a target for every output, also where there is no loss.
    targets = dict.fromkeys(model.output, train[1])
    history = model.fit(train[0], targets, BATCH, epochs, verbose=0).history
    print(
        f"{epochs} epochs, loss {history['loss'][0]:.2f} -> {history['loss'][-1]:.2f}"
    )


for layer in model.layers:
    layer.trainable = WEIGHTS is None or layer.name in new
fit(EPOCHS[0], 1e-3)
for layer in model.layers:
    is_normalization = isinstance(layer, keras.layers.BatchNormalization)
    layer.trainable = WEIGHTS is None or not is_normalization
fit(EPOCHS[1], 1e-4)
answers = model.predict(test[0], BATCH, verbose=0)
print(f"Test accuracy {np.mean(answers['logits'].argmax(-1) == test[1]):.1%}")

# %% [markdown]
# The baseline is the same script with `deformation="none"` and no `warped` loss, over
# several seeds.
#
# ## The warps
#
# An arrow begins at a cell of the warped map and ends at the source of its features.
# There is one field per group of channels; here the mean over the groups, and the first
# two.

# %%
figure, axes = plt.subplots(3, 4, figsize=(9, 7), layout="constrained")
for row, line in enumerate(axes):
    fields = answers["fields"][row]
    rows, columns, groups = fields.shape[:3]
    shown = {
        "image": None,
        f"mean of {groups} groups": fields.mean(2),
        "group 1": fields[:, :, 0],
        "group 2": fields[:, :, 1],
    }
    for axis, (title, field) in zip(line, shown.items(), strict=True):
        axis.imshow(test[0][row], extent=(-0.5, columns - 0.5, rows - 0.5, -0.5))
        axis.axis("off")
        if row == 0:
            axis.set_title(title)
        if field is not None:
            axis.quiver(
                field[..., 1],
                field[..., 0],
                color="w",
                angles="xy",
                scale_units="xy",
                scale=1,
            )
figure.savefig(picture_path("resnet50_with_a_volumetric_transformer"))
plt.close(figure)

# %% [markdown]
# ## Use it
#
# Without the warped map, which only the loss needs: `classifier.save("birds.keras")`,
# `classifier.export("birds")`.

# %%
outputs = {name: model.output[name] for name in ("logits", "embedding", "fields")}
classifier = keras.Model(model.input, outputs)
print(sorted(classifier.output))
