"""Blocks of timm with given weights, in a process without TensorFlow.

timm_blocks.py INPUTS OUTPUTS, both npz: `images` and `BLOCK/NUMBER`, the weights of
a block in the order of the layer; back come maps by the names of the blocks.
"""

import importlib
import sys

import numpy as np
import torch


def dense(kernel):
    """Kernel of a 1x1 convolution of torch, from that of a dense layer."""
    return np.transpose(kernel)[:, :, None, None]


def linear(name, kernel, bias):
    return {f"{name}.weight": dense(kernel), f"{name}.bias": bias}


def squeeze_excitation(w1, b1, w2, b2):
    return {**linear("fc1", w1, b1), **linear("fc2", w2, b2)}


def eca(kernel):
    return {"conv.weight": np.transpose(kernel, (2, 1, 0))}


def cbam(w1, w2, kernel, bias):
    # The bias is what timm's normalisation of the convolution's output adds.
    return {
        "channel.fc1.weight": dense(w1),
        "channel.fc2.weight": dense(w2),
        "spatial.conv.conv.weight": np.transpose(kernel, (3, 2, 0, 1)),
        "spatial.conv.bn.weight": [1],
        "spatial.conv.bn.bias": bias,
        "spatial.conv.bn.running_mean": [0],
        "spatial.conv.bn.running_var": [1 - 1e-5],
    }


def global_context(w, b, w1, b1, gamma, beta, w2, b2):
    return {
        **linear("conv_attn", w, b),
        **linear("mlp_add.fc1", w1, b1),
        "mlp_add.norm.weight": gamma,
        "mlp_add.norm.bias": beta,
        **linear("mlp_add.fc2", w2, b2),
    }


def coordinate_attention(w1, b1, gamma, beta, mean, variance, wh, bh, ww, bw):
    return {
        **linear("conv1", w1, b1),
        "bn1.weight": gamma,
        "bn1.bias": beta,
        "bn1.running_mean": mean,
        "bn1.running_var": variance,
        **linear("conv_h", wh, bh),
        **linear("conv_w", ww, bw),
    }


# Class, options that make it the paper's, and the names of the weights.
BLOCKS = {
    "squeeze_excitation": (
        "squeeze_excite.SEModule",
        {"rd_divisor": 1},
        squeeze_excitation,
    ),
    "eca": ("eca.EcaModule", {}, eca),
    "cbam": ("cbam.CbamModule", {}, cbam),
    "global_context": (
        "global_context.GlobalContext",
        {"fuse_add": True, "fuse_scale": False, "rd_channels": 4},
        global_context,
    ),
    "coordinate_attention": (
        "coord_attn.CoordAttn",
        {"bias": True, "rd_channels": 8},
        coordinate_attention,
    ),
}


def run(block, images, weights):
    name, options, names = BLOCKS[block]
    images = torch.tensor(np.transpose(images, (0, 3, 1, 2)))
    file, name = name.split(".")
    block = getattr(importlib.import_module(f"timm.layers.{file}"), name)
    module = block(images.shape[1], **options).eval()
    state = {
        name: torch.tensor(np.asarray(each, "float32"))
        for name, each in names(*weights).items()
    }
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    with torch.no_grad():
        return np.transpose(module(images).numpy(), (0, 2, 3, 1))


if __name__ == "__main__":
    given = np.load(sys.argv[1])
    results = {}
    for block in BLOCKS:
        number = sum(name.startswith(f"{block}/") for name in given)
        weights = [given[f"{block}/{place}"] for place in range(number)]
        results[block] = run(block, given["images"], weights)
    np.savez(sys.argv[2], **results)
