"""Converted heads compute what the authors' heads compute."""

import math

import numpy as np
import pytest

from keras_attn.convert import CheckpointError, convert_dino_head, load_dino_head
from keras_attn.layers import DinoHead
from tests.harness import to_numpy
from tests.keras_attn.convert.archives import TorchArchive, save_state_dict


def random_head(layers, normalized, width=6, hidden=5, bottleneck=4, units=7, seed=0):
    """Tensors by the names of `DINOHead(use_bn=normalized, nlayers=layers)`."""
    random = np.random.default_rng(seed)

    def normal(*shape):
        return random.normal(size=shape).astype("float32")

    tensors, place, sizes = {}, 0, [width, *[hidden] * (layers - 1), bottleneck]
    for number, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        name = "mlp" if layers == 1 else f"mlp.{place}"
        tensors[f"{name}.weight"] = normal(outputs, inputs)
        tensors[f"{name}.bias"] = normal(outputs)
        if number == layers - 1:
            break
        if normalized:
            place += 1
            for kind in ("weight", "bias", "running_mean"):
                tensors[f"mlp.{place}.{kind}"] = normal(outputs)
            tensors[f"mlp.{place}.running_var"] = 1 + normal(outputs) ** 2
            tensors[f"mlp.{place}.num_batches_tracked"] = np.array(9)
        place += 2
    tensors["last_layer.weight_g"] = 1 + normal(units, 1)
    tensors["last_layer.weight_v"] = normal(units, bottleneck)
    return tensors


def forward(tensors, x):
    """As PyTorch goes through `mlp`, one module after the other, in float64."""
    tensors = {name: np.float64(value) for name, value in tensors.items()}
    if "mlp.weight" in tensors:
        x = x @ tensors["mlp.weight"].T + tensors["mlp.bias"]
    last = max(
        [
            int(name.split(".")[1])
            for name in tensors
            if "mlp." in name and name.split(".")[1].isdecimal()
        ],
        default=-1,
    )
    for place in range(last + 1):
        name = f"mlp.{place}"
        if f"{name}.running_var" in tensors:
            x = x - tensors[f"{name}.running_mean"]
            x = x / np.sqrt(tensors[f"{name}.running_var"] + 1e-5)
            x = x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
        elif f"{name}.weight" in tensors:
            x = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
        else:
            x = x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    v = tensors["last_layer.weight_v"]
    v = v / np.linalg.norm(v, axis=1, keepdims=True)
    return x @ (tensors["last_layer.weight_g"] * v).T


@pytest.mark.parametrize(
    "layers, normalized", [(3, False), (3, True), (2, True), (1, False)]
)
def test_equals_a_forward_pass_in_numpy(tmp_path, layers, normalized):
    tensors = random_head(layers, normalized)
    head = load_dino_head(save_state_dict(tmp_path / "head.pth", tensors))
    assert head.batch_normalization == normalized
    x = np.random.default_rng(1).normal(size=(3, 6)).astype("float32")
    np.testing.assert_allclose(to_numpy(head(x)), forward(tensors, x), atol=2e-5)


def test_takes_the_heads_of_a_whole_training(tmp_path):
    heads = {"student": random_head(3, True), "teacher": random_head(3, True, seed=1)}
    archive, content = TorchArchive(), {"epoch": 100}
    for name, tensors in heads.items():
        first = "module." if name == "student" else ""
        entries = {f"{first}head.{one}": value for one, value in tensors.items()}
        entries[f"{first}backbone.cls_token"] = np.ones((1, 1, 6), "float32")
        content[name] = archive.state_dict(entries)
    path = archive.save(tmp_path / "full.pth", content)
    x = np.ones((1, 6), "float32")
    for name, tensors in heads.items():
        head = load_dino_head(path, name, learn_gain=True)
        np.testing.assert_allclose(to_numpy(head(x)), forward(tensors, x), atol=2e-5)


def test_what_does_not_fit_is_listed_and_changes_nothing(tmp_path):
    tensors = random_head(3, True)
    path = save_state_dict(tmp_path / "head.pth", tensors)
    with pytest.raises(CheckpointError, match="unknown: mlp.1.bias.*In: .*head.pth"):
        load_dino_head(path, batch_normalization=False)
    head = DinoHead(7, 5, 4)
    head.build((None, 6))
    before = head.get_weights()
    with pytest.raises(CheckpointError, match=r"mlp.2.weight \(5, 5\)|missing: mlp.2"):
        convert_dino_head(tensors, head)
    for found, wanted in zip(head.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)
    path = save_state_dict(tmp_path / "other.pth", {"fc.weight": np.zeros((2, 3))})
    with pytest.raises(CheckpointError, match="with mlp.0.weight and .*'fc.weight'"):
        load_dino_head(path)
