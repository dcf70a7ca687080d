"""The two-branch ResNet8 of the attention-masked residuals, from its equations."""

import numpy as np


def convolution(images, kernel, strides=1, padding=0):
    """By the definition, one window after the other."""
    size = len(kernel)
    edges = (padding, padding)
    images = np.pad(images, ((0, 0), edges, edges, (0, 0)))
    rows = range(0, images.shape[1] - size + 1, strides)
    columns = range(0, images.shape[2] - size + 1, strides)
    windows = [
        [images[:, top : top + size, left : left + size] for left in columns]
        for top in rows
    ]
    return np.einsum("ijbklc,klcf->bijf", np.array(windows), kernel)


def resnet8(model, images, attention_map, strength, target):
    """Logits and masks in inference, with the weights of a Keras model.

    Args:
        model: `masked_resnet` with `stem="patch"`, whose layers are found by name.
        images, attention_map: Batches of the same height and width.
    """

    def weights(name):
        return [
            value.astype("float64") for value in model.get_layer(name).get_weights()
        ]

    def normalized(x, name, strides=1, padding=0):
        x = convolution(x, *weights(name), strides, padding)
        gamma, beta, mean, variance = weights(f"{name}_normalization")
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def two_convolutions(x, name, strides):
        x = np.maximum(normalized(x, f"{name}_conv1", strides, 1), 0)
        return normalized(x, f"{name}_conv2", 1, 1)

    a, masks = strength, []
    x = np.maximum(normalized(images, "stem", 4), 0)
    m = np.maximum(normalized(attention_map, "attention_stem", 4), 0)
    for stage, strides in ((1, 1), (2, 2), (3, 2)):
        name = f"stage{stage}_block1"
        f = two_convolutions(x, name, strides)
        p = normalized(x, f"{name}_projection", strides) if strides > 1 else x
        m = 1 / (1 + np.exp(-two_convolutions(m, f"{name}_attention", strides)))
        masks.append(m)
        if target == "shortcut":
            x = f + p * (1 - a + a * m)
        elif target == "branch":
            x = f * (1 - a + a * m) + p
        else:
            x = f + a * p * m + a * f
        x = np.maximum(x, 0)
    kernel, bias = weights("logits")
    return x.mean((1, 2)) @ kernel + bias, masks
