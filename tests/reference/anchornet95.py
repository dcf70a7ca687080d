"""AnchorNet-95 in plain NumPy, in the authors' layout: names, (out, in, row, column).

Written from the table of the network, not from the Keras model.
"""

import numpy as np

# Input and output channels, expanded channels, stride, hidden squeeze channels.
BLOCKS = (
    (16, 16, 16, 2, 4),
    (16, 24, 48, 2, 4),
    (24, 24, 96, 1, 6),
    (24, 48, 96, 1, 6),
    (48, 96, 96, 1, 12),
    (96, 96, 144, 1, 24),
    (96, 96, 144, 1, 24),
)


def random_checkpoint(num_classes, seed=0):
    """Random weights in the authors' layout, with what they store and never use."""
    generator = np.random.default_rng(seed)
    weights = {}

    def convolution(name, shape, bias=False):
        # Keeps activations near one, so that a wrong epsilon or a bias left out shows.
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{name}.weight"] = scale * generator.normal(size=shape)
        if bias:
            weights[f"{name}.bias"] = generator.normal(size=shape[0])

    def normalization(name, width):
        weights[f"{name}.weight"] = generator.uniform(0.2, 1, width)
        weights[f"{name}.bias"] = generator.normal(size=width)
        weights[f"{name}.running_mean"] = generator.normal(size=width)
        weights[f"{name}.running_var"] = generator.uniform(0.02, 2, width)
        weights[f"{name}.num_batches_tracked"] = np.array(500_400)

    convolution("conv1", (16, 3, 3, 3))
    normalization("bn1", 16)
    for index, (width, filters, expanded, _, hidden) in enumerate(BLOCKS):
        block = f"bneck.{index}"
        convolution(f"{block}.conv1", (expanded, width, 1, 1))
        normalization(f"{block}.bn1", expanded)
        convolution(f"{block}.conv2", (expanded, 1, 3, 3))
        normalization(f"{block}.bn2", expanded)
        convolution(f"{block}.se.se1", (hidden, expanded, 1, 1), bias=True)
        convolution(f"{block}.se.se2", (expanded, hidden, 1, 1), bias=True)
        convolution(f"{block}.conv3", (filters, expanded, 1, 1))
        normalization(f"{block}.bn3", filters)
    convolution("exp_conv", (512, 96, 1, 1), bias=True)
    convolution("fc", (num_classes, 512), bias=True)
    return {
        name: value.astype("int64" if "num_batches" in name else "float32")
        for name, value in weights.items()
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


def convolve(x, kernel, stride=1, grouped=False):
    """Without padding; `x` is (batch, channels, rows, columns)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    if grouped:
        return np.einsum("bchwij,cij->bchw", windows, kernel[:, 0])
    return np.einsum("bchwij,ocij->bohw", windows, kernel, optimize=True)


def forward(weights, images):
    """Features (batch, rows, columns, 512) and logits of (batch, rows, columns, 3)."""
    weights = {name: value.astype("float64") for name, value in weights.items()}

    def normalized(x, name):
        scale, offset, mean, variance = (
            weights[f"{name}.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + offset

    def gate(x, name):
        mean = x.mean(axis=(2, 3), keepdims=True)
        first, second = (weights[f"{name}.se{i}.weight"] for i in (1, 2))
        biases = [weights[f"{name}.se{i}.bias"][:, None, None] for i in (1, 2)]
        hidden = swish(convolve(mean, first) + biases[0])
        return sigmoid(convolve(hidden, second) + biases[1])

    x = np.transpose(images.astype("float64"), (0, 3, 1, 2))
    x = swish(normalized(convolve(x, weights["conv1.weight"], 2), "bn1"))
    for index, (width, filters, expanded, stride, _) in enumerate(BLOCKS):
        block, shortcut = f"bneck.{index}", x
        if expanded != width:
            x = convolve(x, weights[f"{block}.conv1.weight"])
            x = swish(normalized(x, f"{block}.bn1"))
        x = convolve(x, weights[f"{block}.conv2.weight"], stride, grouped=True)
        x = swish(normalized(x, f"{block}.bn2"))
        x = x * gate(x, f"{block}.se")
        x = normalized(convolve(x, weights[f"{block}.conv3.weight"]), f"{block}.bn3")
        if stride == 1 and width == filters:
            # The last two rows and columns of the input have no counterpart.
            x = x + shortcut[:, :, :-2, :-2]
    features = convolve(x, weights["exp_conv.weight"])
    features = features + weights["exp_conv.bias"][:, None, None]
    pooled = features.mean(axis=(2, 3))
    logits = pooled @ weights["fc.weight"].T + weights["fc.bias"]
    return np.transpose(features, (0, 2, 3, 1)), logits
