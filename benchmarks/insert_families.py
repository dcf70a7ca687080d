"""A block in every family of `keras.applications`: writes the table of docs/insert.md.

    python -m benchmarks.insert_families             # all families, about ten minutes
    python -m benchmarks.insert_families ResNet VGG  # some; the others' rows are kept

For each family the smallest member with random weights; its statistics and biases are
disturbed first, so that a value that is not copied shows.
"""

import argparse
import dataclasses
import gc
import pathlib
import sys
import tempfile

import keras
import numpy as np

from keras_attn import insert
from keras_attn.layers import ClassEmbedding
from keras_attn.losses import mixed_patch_loss

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "insert.md"
BEGIN, END = "<!-- families -->\n", "<!-- end of families -->\n"
CLASSES = 3
USUAL_SIZE = 224


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of `keras.applications`.

    Args:
        member: Name of its smallest network.
        at: Layers behind which a block goes, from fine to coarse maps.
        size: Side of the images of the checks.
    """

    member: str
    at: tuple
    size: int = 64

    def build(self, size=None):
        size = size or self.size
        builder = getattr(keras.applications, self.member)
        return builder(weights=None, include_top=False, input_shape=(size, size, 3))


FAMILIES = {
    "ConvNeXt": Family(
        "ConvNeXtTiny",
        tuple(f"convnext_tiny_downsampling_block_{stage}" for stage in range(3)),
    ),
    "DenseNet": Family(
        "DenseNet121", ("conv3_block12_concat", "conv4_block24_concat", "relu")
    ),
    "EfficientNet": Family(
        "EfficientNetB0", ("block3b_add", "block5c_add", "top_activation")
    ),
    "EfficientNetV2": Family(
        "EfficientNetV2B0", ("block3b_add", "block5e_add", "top_activation")
    ),
    "InceptionResNetV2": Family(
        "InceptionResNetV2", ("block35_10_ac", "block17_20_ac", "conv_7b_ac"), 96
    ),
    "InceptionV3": Family("InceptionV3", ("mixed2", "mixed7", "mixed10"), 96),
    "MobileNet": Family(
        "MobileNet", ("conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu")
    ),
    "MobileNetV2": Family("MobileNetV2", ("block_5_add", "block_12_add", "out_relu")),
    "MobileNetV3": Family(
        "MobileNetV3Small",
        ("expanded_conv_2_add", "expanded_conv_7_add", "expanded_conv_10_add"),
    ),
    "NASNet": Family(
        "NASNetMobile", ("normal_concat_3", "normal_concat_8", "normal_concat_12")
    ),
    "ResNet": Family(
        "ResNet50", ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out")
    ),
    "ResNetV2": Family(
        "ResNet50V2", ("conv3_block3_out", "conv4_block5_out", "post_relu")
    ),
    "VGG": Family("VGG16", ("block4_conv3", "block5_conv3", "block5_pool")),
    "Xception": Family(
        "Xception",
        ("block4_sepconv2_bn", "block13_sepconv2_bn", "block14_sepconv2_act"),
        75,
    ),
}


def disturb(model, seed=0):
    """Gives every small variable values of its own, as training would."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if len(variable.shape) == 1 and "seed" not in variable.path:
            change = random.uniform(0.0, 0.2, variable.shape).astype("float32")
            variable.assign(variable + change)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return model


def images_of(family, count=2):
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (count, family.size, family.size, 3))
    return images.astype("float32")


def weights_by_layer(model, prefix=""):
    """Dict from path to value, without the weights of blocks of these checks."""
    found = {}
    for layer in model.layers:
        path = f"{prefix}{layer.name}/"
        if isinstance(layer, keras.Model):
            found |= weights_by_layer(layer, path)
        elif not layer.name.startswith("check_"):
            for number, weight in enumerate(layer.weights):
                found[f"{path}{number}"] = keras.ops.convert_to_numpy(weight)
    return found


def check_identity(model, at, images):
    """With a block that does nothing: the same outputs, bitwise, and weights."""
    copy = insert(model, at, keras.layers.Identity(name="check_identity"))
    expected = np.asarray(model(images, training=False))
    assert np.ptp(expected) > 0, f"The output of {model.name} is constant"
    np.testing.assert_array_equal(copy(images, training=False), expected)
    weights, copied = weights_by_layer(model), weights_by_layer(copy)
    assert weights.keys() == copied.keys(), weights.keys() ^ copied.keys()
    for path, weight in weights.items():
        np.testing.assert_array_equal(copied[path], weight, err_msg=path)


def check_life(backbone, at, images):
    """A classifier with a block: trains, saves and exports."""
    x = keras.layers.GlobalAveragePooling2D(name="check_pool")(backbone.output)
    logits = keras.layers.Dense(CLASSES, name="check_head")(x)
    classifier = keras.Model(backbone.input, logits)
    model = insert(classifier, at, ClassEmbedding(CLASSES, name="check_block"))
    model.compile(keras.optimizers.SGD(1e-4), **mixed_patch_loss(0.5))
    labels = np.arange(len(images)) % CLASSES
    kernel = model.get_layer("check_block").values.kernel
    before = keras.ops.convert_to_numpy(kernel).copy()
    targets = {"logits": labels, "patch_logits": labels}
    loss = model.fit(images, targets, batch_size=len(images), verbose=0).history["loss"]
    assert np.isfinite(loss).all(), f"The loss is {loss}"
    assert np.any(keras.ops.convert_to_numpy(kernel) != before), (
        "The block did not learn"
    )
    expected = model.predict(images, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        loaded = keras.saving.load_model(f"{folder}/model.keras")
        check_same(loaded.predict(images, verbose=0), expected)
        del loaded
        model.export(f"{folder}/exported", verbose=False)
        check_same(served(f"{folder}/exported", images), expected)


def served(folder, images):
    import tensorflow as tf

    exported = tf.saved_model.load(folder)
    return {name: value.numpy() for name, value in exported.serve(images).items()}


def check_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(found[name], value, atol=1e-4 * scale, rtol=1e-4)


def rows_of(name):
    """Rows of the table, one per place; raises an AssertionError where one fails."""
    family = FAMILIES[name]
    usual = family.build(USUAL_SIZE)
    shapes = {at: usual.get_layer(at).output.shape[1:] for at in family.at}
    del usual
    images = images_of(family)
    backbone = disturb(family.build())
    rows = []
    for at in family.at:
        check_identity(backbone, at, images)
        full = at == family.at[1]
        if full:
            check_life(backbone, at, images)
        size = " x ".join(map(str, shapes[at]))
        rows.append((name, family.member, f"`{at}`", size, "yes" if full else ""))
    return rows


def write(rows):
    """Puts rows into the page, in place of those of the same family."""
    before, rest = PAGE.read_text().split(BEGIN)
    old, after = rest.split(END)
    kept = [line for line in old.splitlines()[2:] if family_of(line) != rows[0][0]]
    lines = kept + [" | ".join(row).join(("| ", " |")) for row in rows]
    lines.sort(key=lambda line: list(FAMILIES).index(family_of(line)))
    head = ("family", "tried on", "`at`", f"map at {USUAL_SIZE}", "fit, save, export")
    head = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    table = "".join(f"{line}\n" for line in [*head, *lines])
    PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}")


def family_of(line):
    return line.split("|")[1].strip()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    names = parser.parse_args(arguments).families
    unknown = set(names) - set(FAMILIES)
    if unknown:
        parser.error(f"Expected names in {', '.join(FAMILIES)}. Received: {unknown}")
    for name in names or FAMILIES:
        print(name, "...", file=sys.stderr, flush=True)
        write(rows_of(name))
        keras.backend.clear_session()
        gc.collect()


if __name__ == "__main__":
    main()
