# %% [markdown]
# # A block in your own model
#
# Starting from a trained model, which may contain other models, this example measures
# what a class-embedding block adds: the accuracy, and the class of every region of an
# image. `insert` puts the block behind any layer and keeps the weights.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from example_data import QUICK, load, picture_path

from keras_attn import insert
from keras_attn.layers import ClassEmbedding
from keras_attn.losses import mixed_patch_loss

keras.utils.set_random_seed(0)
FOLDER = None  # your images: "photos/", with a folder for each class in it
SIZE = 48 if QUICK else 64
EPOCHS = 1 if QUICK else 10

train, test, class_names = load(FOLDER, SIZE, examples=30 if QUICK else 1000)
print(f"{len(train[0])} images of {len(class_names)} classes")

# %% [markdown]
# ## Your model
#
# A stand-in for yours: a backbone used as a layer, and a head on it. Nothing in it
# prepares for the block.

# %%
backbone = keras.Sequential(
    [
        keras.Input((SIZE, SIZE, 3)),
        keras.layers.Conv2D(16, 3, 2, "same", activation="relu", name="conv1"),
        keras.layers.Conv2D(32, 3, 2, "same", activation="relu", name="conv2"),
        keras.layers.Conv2D(64, 3, 2, "same", activation="relu", name="conv3"),
        keras.layers.Conv2D(64, 3, 1, "same", activation="relu", name="conv4"),
    ],
    name="backbone",
)
images = keras.Input((SIZE, SIZE, 3), name="images")
x = keras.layers.Rescaling(1 / 127.5, -1)(images)
x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(x))
mine = keras.Model(images, keras.layers.Dense(len(class_names), name="logits")(x))

loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
mine.compile("adam", loss, metrics=["accuracy"])
mine.fit(*train, epochs=EPOCHS, batch_size=32, verbose=0)
before = mine.evaluate(*test, verbose=0, return_dict=True)
print(f"Without the block: {before['accuracy']:.1%}")

# %% [markdown]
# ## The block
#
# `backbone/conv3` is the third convolution inside the backbone. The block returns
# features of the same shape, the input of `conv4`, and the class scores of every
# region, which become an output of the model. All trained weights are kept.

# %%
model = insert(mine, at="backbone/conv3", block=ClassEmbedding(len(class_names)))
for name, tensor in model.output.items():
    print(name, tensor.shape)

# %% [markdown]
# Half of the loss goes to the image's logits and half to those of the regions. The
# baseline is the model without the block, trained for as long: a gain from more epochs
# is not a gain from the block.

# %%
model.compile("adam", **mixed_patch_loss(0.5), metrics={"logits": "accuracy"})
targets = {"logits": train[1], "patch_logits": train[1]}
model.fit(train[0], targets, epochs=EPOCHS, batch_size=32, verbose=0)
mine.fit(*train, epochs=EPOCHS, batch_size=32, verbose=0)
outputs = model.predict(test[0], verbose=0)
with_block = np.mean(outputs["logits"].argmax(-1) == test[1])
longer = mine.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
print(f"With the block: {with_block:.1%}; without, for as long: {longer:.1%}")

# %% [markdown]
# ## The class of every region
#
# The probability of the image's class in every region. It is low on the background,
# which is most of an image.

# %%
figure, axes = plt.subplots(2, 6, figsize=(12, 4.4), layout="constrained")
maps = keras.ops.convert_to_numpy(keras.ops.softmax(outputs["patch_logits"]))
for column, (above, below) in enumerate(axes.T):
    label = test[1][column]
    above.imshow(test[0][column])
    below.imshow(test[0][column])
    extent = (-0.5, SIZE - 0.5, SIZE - 0.5, -0.5)
    shown = below.imshow(
        maps[column, :, :, label], "inferno", alpha=0.7, extent=extent, vmin=0, vmax=1
    )
    for axis in (above, below):
        axis.axis("off")
figure.suptitle("Images, and the probability of their class in every region")
figure.colorbar(shown, ax=axes)
figure.savefig(picture_path("block_in_your_model"))
plt.close(figure)

# %% [markdown]
# The model saves and exports like any other:
# `model.save("model.keras")`, `model.export("exported")`.
