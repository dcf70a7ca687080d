# %% [markdown]
# # Patches for faster inference
#
# Most of an image does not bear on its class, yet a network spends as much on it. A
# small localiser finds the places that do; the large classifier then sees a few patches
# instead of the image. The saving depends on the size of the localiser relative to the
# classifier and on the share of the image that the patches leave out: count before you
# train.

# %%
import time

import keras
import matplotlib.pyplot as plt
import numpy as np
from example_data import QUICK, load, picture_path

from keras_attn import multiply_adds
from keras_attn.models import (
    as_localizer,
    branches_of,
    build_downstream,
    cost_of,
    patch_classifier,
)

keras.utils.set_random_seed(0)
FOLDER = None  # your images: "photos/", with a folder for each class in it
SIZE, PATCH, PATCHES = 96, 48, 2
EPOCHS = 1 if QUICK else 10

train, test, class_names = load(FOLDER, SIZE, examples=30 if QUICK else 1000)
classes = len(class_names)
scaled = [(images / 127.5 - 1).astype("float32") for images in (train[0], test[0])]

# %% [markdown]
# ## A localiser
#
# Any classifier that averages a map and ends in one dense layer is one: the share of
# each cell in a logit is its evidence, and its receptive field is the region behind it.

# %%
small = keras.Sequential([keras.Input((SIZE, SIZE, 3))], name="localizer")
for width in (8, 16, 24, 32):
    small.add(keras.layers.Conv2D(width, 3, 2, "same", activation="relu"))
small.add(keras.layers.GlobalAveragePooling2D())
small.add(keras.layers.Dense(classes))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
small.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
small.fit(scaled[0], train[1], batch_size=32, epochs=EPOCHS, verbose=0)
localizer = as_localizer(small, patch_size=PATCH)
print(branches_of(localizer))

# %% [markdown]
# ## A classifier of patches
#
# Here a small ResNet that is trained on crops anywhere in the image; a pretrained
# network that takes any size, such as `build_downstream("resnet50", classes,
# weights="imagenet")`, would be fine-tuned on the localiser's patches. Every
# image gives one random crop in each epoch.

# %%
classifier = build_downstream("small_resnet", classes)
crop = keras.layers.RandomCrop(PATCH, PATCH)
view = keras.Input((SIZE, SIZE, 3))
trained = keras.Model(view, classifier(crop(view))["logits"])
trained.compile(keras.optimizers.Adam(2e-3), loss)
trained.fit(scaled[0], train[1], batch_size=32, epochs=EPOCHS, verbose=0)

localizer.trainable = False  # no gradient goes through the choice of patches
model = patch_classifier(localizer, classifier, max_patches=PATCHES)
model.compile("adam", {"logits": loss})
history = model.fit(scaled[0], {"logits": train[1]}, batch_size=32, verbose=0).history
print(f"Fine-tuned on the localiser's patches: loss {history['loss'][-1]:.2f}")

# %% [markdown]
# ## Costs
#
# Multiply-adds are exact; seconds are those of this machine, where small networks spend
# their time on other things than multiplying. The larger the classifier, the more of
# the counted gain arrives. `docs/patches.md` has measured numbers for ResNet-50, and
# early exits, which save more.

# %%
full = multiply_adds(classifier, (SIZE, SIZE, 3))
answers = model.predict(scaled[1], verbose=0)
patches = answers["valid"].sum(axis=1)
spent = cost_of(model).mean(answers["branch"], patches)
print(
    f"Multiply-adds: {spent / 1e6:.0f} M with patches, {full / 1e6:.0f} M on the image"
)


def seconds(predictor):
    predictor.predict(scaled[1], verbose=0)  # compile
    start = time.perf_counter()
    predictor.predict(scaled[1], verbose=0)
    return time.perf_counter() - start


whole = keras.Model(view, classifier(view))
print(f"Seconds: {seconds(model):.2f} with patches, {seconds(whole):.2f} on the image")
accuracy = np.mean(answers["logits"].argmax(-1) == test[1])
print(f"Test accuracy with patches: {accuracy:.1%}")

# %%
figure, axes = plt.subplots(2, 3, figsize=(9, 6), layout="constrained")
for index, axis in enumerate(axes.flat):
    axis.imshow(test[0][index])
    axis.axis("off")
    for y0, x0, y1, x1 in answers["boxes"][index][answers["valid"][index]]:
        side = plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="w")
        axis.add_patch(side)
figure.suptitle(f"The {PATCHES} patches that are classified instead of the image")
figure.savefig(picture_path("patches_for_faster_inference"))
plt.close(figure)
