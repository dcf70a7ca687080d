# %% [markdown]
# # All four methods in one model
#
# They are layers, so they combine. This model
#
# 1. finds where in the image the evidence is and cuts patches out (*patches*),
# 2. lets a small transformer look at each patch and masks the shortcuts of a residual
#    network with its attention (*attention-masked residuals*),
# 3. scores every region of a patch against the classes (*class embedding*),
# 4. moves the parts of the last features to where the class usually has them
#    (*volumetric transformer*),
#
# and averages the answers of the patches. It is one functional model from raw images to
# all of these, trained with one `fit`. It makes no claim of being better than any one
# of them: such a comparison needs the same recipe and several seeds for each.

# %%
import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np
from example_data import QUICK, load, picture_path

from keras_attn import ImagePreprocessing, ImageSpec, insert, spec_of
from keras_attn.layers import (
    ClassEmbedding,
    CropPatches,
    LocalizePatches,
    VolumetricTransformer,
)
from keras_attn.losses import PatchCrossentropy
from keras_attn.models import (
    as_localizer,
    attention_map_model,
    branches_of,
    masked_resnet,
    vit,
)

keras.utils.set_random_seed(0)
FOLDER = None  # your images: "photos/", with a folder for each class in it
SIZE, PATCH = (96, 48) if QUICK else (128, 64)
PATCHES = 2
EPOCHS = 1 if QUICK else 3

train, test, class_names = load(FOLDER, SIZE, examples=30 if QUICK else 300)
classes = len(class_names)

# %% [markdown]
# ## The network of patches
#
# A vision transformer's class attention, averaged over the heads, is the map; a masked
# ResNet takes it through its attention branch. The transformer here learns with the
# rest, except behind the attention of its last block, which Keras warns about. To use
# one that was trained without labels, as in the paper, load its weights into
# `transformer` and set `transformer.trainable = False`.

# %%
patch = keras.Input((PATCH, PATCH, 3), name="patch")
transformer = vit((48, 2, 3), PATCH // 8, (PATCH, PATCH, 3), input_tensor=patch)
attention = attention_map_model(transformer, "mean", "minmax").output
network = masked_resnet(
    depth=8,
    num_classes=classes,
    strength=0.5,
    input_tensor=patch,
    map_tensor=attention,
    name="network",
)

# %% [markdown]
# The other two blocks go behind its stages. Each adds an output.

# %%
network = insert(
    network,
    at=["stage2", "stage3"],
    block=[
        ClassEmbedding(classes, name="class_embedding"),
        VolumetricTransformer(
            groups=4, window=3, estimator_filters=(16, 32), name="warp"
        ),
    ],
)
for name, tensor in network.output.items():
    print(name, tensor.shape)

# %% [markdown]
# ## The localiser
#
# Any network that averages a map and ends in one dense layer has a map of evidence.
# `anchornet` is the paper's; this one is smaller.

# %%
small = keras.Sequential([keras.Input((SIZE, SIZE, 3))], name="localizer")
for width in (16, 32, 64):
    small.add(keras.layers.Conv2D(width, 3, 2, "same", activation="relu"))
small.add(keras.layers.GlobalAveragePooling2D())
small.add(keras.layers.Dense(classes))
localizer = as_localizer(small, patch_size=PATCH)

# %% [markdown]
# ## One model
#
# The network sees the patches of all images as one batch. Every output gets the images'
# batch axis back, so that `fit` can pair it with labels. Absent patches do not count.

# %%
spec = ImageSpec(SIZE, SIZE, (0.5,) * 3, (0.25,) * 3, class_names=tuple(class_names))
images = keras.Input((SIZE, SIZE, 3), name="images")
pixels = ImagePreprocessing(spec)(images)
evidence = localizer(pixels)
find = LocalizePatches(branches_of(localizer), max_patches=PATCHES, name="find")
found = find({name: evidence[name] for name in evidence if "_" in name})

patches = CropPatches(PATCH)([pixels, found["boxes"]])
seen = network(keras.ops.reshape(patches, (-1, PATCH, PATCH, 3)))


def by_image(tensor):
    return keras.ops.reshape(tensor, (-1, PATCHES, *tensor.shape[1:]))


weights = keras.ops.cast(found["valid"], "float32")[:, :, None]
votes = keras.ops.softmax(by_image(seen["logits"])) * weights
share = keras.ops.sum(votes, axis=1) / keras.ops.sum(weights, axis=1)
outputs = {
    "logits": keras.ops.log(share + 1e-7),
    "localizer": evidence["logits"],
    "patch_logits": by_image(seen["patch_logits"]),
    "fields": by_image(seen["fields"]),
    "mask": by_image(seen["mask_3"]),
    "boxes": found["boxes"],
    "valid": found["valid"],
}
model = keras.Model(images, outputs, name="all_methods")

# %% [markdown]
# The localiser has a loss of its own, as no gradient goes through the choice of boxes.

# %%
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(
    keras.optimizers.Adam(2e-3),
    loss={"logits": loss, "localizer": loss, "patch_logits": PatchCrossentropy()},
    loss_weights={"logits": 1.0, "localizer": 1.0, "patch_logits": 0.3},
    metrics={"logits": "accuracy", "localizer": "accuracy"},
)
# With metrics Keras needs a target for every output, also where there is no loss.
targets = dict.fromkeys(model.output, train[1])
history = model.fit(train[0], targets, batch_size=16, epochs=EPOCHS, verbose=0).history
answers = model.predict(test[0], batch_size=16, verbose=0)
accuracy = np.mean(answers["logits"].argmax(-1) == test[1])
print(f"Loss {history['loss'][0]:.2f} -> {history['loss'][-1]:.2f}")
print(f"Test accuracy {accuracy:.1%}")

# %% [markdown]
# ## It saves and exports
#
# The loaded model, and the one that TensorFlow Serving would run, give the same boxes
# and logits. The class names and the normalisation are inside.

# %%
with tempfile.TemporaryDirectory() as folder:
    model.save(f"{folder}/model.keras")
    loaded = keras.saving.load_model(f"{folder}/model.keras")
    model.export(f"{folder}/exported", verbose=False)
    import tensorflow as tf

    exported = tf.saved_model.load(f"{folder}/exported")
    served = exported.serve(test[0][:4].astype("float32"))
    again = loaded.predict(test[0][:4], verbose=0)
for name in ("logits", "boxes", "fields"):
    np.testing.assert_allclose(again[name], answers[name][:4], atol=1e-3)
    np.testing.assert_allclose(served[name], answers[name][:4], atol=1e-3)
print("Classes of the loaded model:", len(spec_of(loaded).class_names))

# %% [markdown]
# ## Its patches and maps
#
# For some images their patches, and for the first patch what the attention branch lets
# through, the probability of the class in every region, and the volumetric
# transformer's field of the first group of channels.

# %%
figure, axes = plt.subplots(4, 4, figsize=(9, 9.5), layout="constrained")
titles = ("patches", "mask", "class in regions", "displacement")
for row, line in enumerate(axes):
    y0, x0, y1, x1 = answers["boxes"][row, 0]
    # Patches at the border reach beyond the image.
    around = np.pad(test[0][row], [(PATCH, PATCH), (PATCH, PATCH), (0, 0)])
    cut = around[PATCH + y0 : PATCH + y1, PATCH + x0 : PATCH + x1]
    line[0].imshow(test[0][row])
    for y0, x0, y1, x1 in answers["boxes"][row][answers["valid"][row]]:
        line[0].add_patch(
            plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="w")
        )
    line[1].imshow(answers["mask"][row, 0].mean(-1), "gray", vmin=0, vmax=1)
    regions = keras.ops.softmax(answers["patch_logits"][row, 0])
    regions = keras.ops.convert_to_numpy(regions)
    line[2].imshow(regions[:, :, test[1][row]], "inferno", vmin=0, vmax=1)
    field = answers["fields"][row, 0, :, :, 0]
    line[3].imshow(cut, extent=(-0.5, field.shape[1] - 0.5, field.shape[0] - 0.5, -0.5))
    # Both arrows and rows point down.
    line[3].quiver(
        field[..., 1], field[..., 0], color="w", angles="xy", scale_units="xy", scale=1
    )
    for axis, title in zip(line, titles, strict=True):
        axis.axis("off")
        if row == 0:
            axis.set_title(title)
figure.savefig(picture_path("all_methods_in_one_model"))
plt.close(figure)
