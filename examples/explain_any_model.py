# %% [markdown]
# # Explaining any model
#
# A model from elsewhere: a pretrained backbone used as a layer, a head on it. Nothing
# in it is prepared for explanations. Which pixels speak for its answer, and which of
# the explanations can be trusted?

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from example_data import QUICK, load, picture_path

from keras_attn import explain, metrics

keras.utils.set_random_seed(0)
FOLDER = None  # your images: "photos/", with a folder for each class in it
WEIGHTS = None if QUICK else "imagenet"
SIZE = 64 if QUICK else 160
EPOCHS = 1 if QUICK else 3
SHOWN = 2 if QUICK else 4

train, test, class_names = load(FOLDER, SIZE, examples=30 if QUICK else 300)

# %% [markdown]
# ## The model
#
# Load yours with `keras.saving.load_model`. Here is a stand-in: a MobileNetV2 inside a
# sequential model, its head trained for a moment.

# %%
if QUICK:
    # A few layers with the name of the many.
    backbone = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(16, 3, 4, "same", activation="relu"),
            keras.layers.Conv2D(32, 3, 4, "same", activation="relu"),
        ],
        name="mobilenetv2",
    )
else:
    backbone = keras.applications.MobileNetV2(
        (SIZE, SIZE, 3), include_top=False, weights=WEIGHTS, name="mobilenetv2"
    )
    backbone.trainable = False
model = keras.Sequential(
    [
        keras.Input((SIZE, SIZE, 3)),
        keras.layers.Rescaling(1 / 127.5, -1),
        backbone,
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(len(class_names), activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(*train, epochs=EPOCHS, batch_size=32, verbose=0)
print(f"Accuracy {model.evaluate(*test, verbose=0)[1]:.1%}")

# %% [markdown]
# ## Four explanations
#
# All of them take the model as it is. They explain the most probable class; `labels=`
# names another. The default is the last feature map; name another with
# `layer="mobilenetv2/block_13_expand_relu"`.

# %%
images = test[0][:SHOWN].astype("float32")
methods = {
    "Grad-CAM": explain.grad_cam,
    "Grad-CAM++": explain.grad_cam_plus_plus,
    "CAM": explain.class_activation_map,
    "occlusion": explain.occlusion,
}
maps = {
    name: keras.ops.convert_to_numpy(method(model, images))
    for name, method in methods.items()
}

# %%
figure, axes = plt.subplots(
    len(maps) + 1, SHOWN, figsize=(2 * SHOWN, 10), squeeze=False
)
figure.set_layout_engine("constrained")
for column in range(SHOWN):
    axes[0, column].imshow(test[0][column])
    for row, (name, each) in enumerate(maps.items(), 1):
        axes[row, column].imshow(test[0][column])
        axes[row, column].imshow(each[column], "inferno", alpha=0.6)
        axes[row, 0].set_title(name, loc="left")
for axis in axes.flat:
    axis.axis("off")
figure.savefig(picture_path("explain_any_model"))
plt.close(figure)

# %% [markdown]
# ## Can they be trusted?
#
# A picture always looks convincing. Two questions have numbers for an answer:
#
# - Remove the pixels in the order of their importance in the map: the probability
#   should fall fast, so a small area under this *deletion* curve is good. Show them in
#   the same order on a blurred image: it should rise fast, so a large *insertion* area
#   is good.
# - Make the weights random, layer by layer: a map that does not change shows the image,
#   as an edge detector does, not the model.
#
# A random map is the line to beat.

# %%
maps["random map"] = np.random.default_rng(0).uniform(size=images.shape[:3])
steps = 4 if QUICK else 16


def probabilities(images):
    return model(images, training=False)


print(f"{'':12} deletion  insertion")
for name, each in maps.items():
    fall = metrics.deletion_curve(probabilities, images, each, steps=steps)
    rise = metrics.insertion_curve(probabilities, images, each, steps=steps)
    print(f"{name:12} {fall['areas'].mean():8.3f} {rise['areas'].mean():10.3f}")

# %%
check = metrics.randomization_check(
    model, lambda model: explain.grad_cam(model, images), stages=2
)
for stage in check:
    print(
        f"{stage['share']:.0%} of the layers random: rank correlation with the map of "
        f"the model {stage['rank_correlation']:.2f}"
    )

# %% [markdown]
# Where boxes of the objects are known, `metrics.pointing_game` and
# `metrics.energy_inside_box` measure how often a map points at the object.
