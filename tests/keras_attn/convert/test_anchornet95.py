"""The converted network computes what the authors' network computes."""

import keras
import numpy as np
import pytest

from keras_attn.convert import (
    ANCHORNET95_IMAGES,
    CheckpointError,
    convert_anchornet95,
    load_anchornet95,
)
from keras_attn.convert.anchornet95 import NEVER_USED
from keras_attn.models.anchornet95 import anchornet95
from keras_attn.preprocessing import ImagePreprocessing
from tests.harness import to_numpy
from tests.keras_attn.convert.archives import TorchArchive, save_state_dict
from tests.reference.anchornet95 import BLOCKS, forward, random_checkpoint

CLASSES = 7
SIZE = (103, 111)
CELLS = 2 * 3


@pytest.fixture(scope="module")
def checkpoint():
    return random_checkpoint(CLASSES)


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(1)
    return generator.normal(size=(2, *SIZE, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return anchornet95(num_classes=CLASSES, input_shape=(*SIZE, 3))


def assert_outputs(outputs, features, logits, weights):
    """Within 1e-5 of the largest logit, and so is the evidence at every cell."""
    activation_maps = features @ weights["fc.weight"].T + weights["fc.bias"]
    for found, wanted in [
        (outputs["logits"], logits),
        (outputs["logits_95"], logits),
        (outputs["evidence_95"] * CELLS, activation_maps),
    ]:
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found / scale, wanted / scale, atol=1e-5)


@pytest.mark.parametrize("folded", [False, True])
def test_equals_a_forward_pass_in_numpy(checkpoint, images, tmp_path, folded):
    """From the file on: its bytes, names, layouts and every layer."""
    path = save_state_dict(tmp_path / "anchornet.pth", checkpoint)
    model = load_anchornet95(path, input_shape=(*SIZE, 3), folded=folded)
    features, logits = forward(checkpoint, images)
    assert features.shape == (2, 2, 3, 512)
    outputs = model.predict_on_batch(images)
    assert_outputs(outputs, features, logits, checkpoint)


def torch_forward(torch, weights, images):
    """The authors' network in functions of torch."""
    f = torch.nn.functional
    weights = {name: torch.from_numpy(value.copy()) for name, value in weights.items()}

    def convolve(x, name, **options):
        return f.conv2d(
            x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **options
        )

    def normalize(x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        return f.batch_norm(x, *(weights[f"{name}.{part}"] for part in parts))

    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    x = f.silu(normalize(convolve(x, "conv1", stride=2), "bn1"))
    for index, (width, filters, expanded, stride, _) in enumerate(BLOCKS):
        name, shortcut = f"bneck.{index}.", x
        if expanded != width:
            x = f.silu(normalize(convolve(x, name + "conv1"), name + "bn1"))
        x = convolve(x, name + "conv2", stride=stride, groups=expanded)
        x = f.silu(normalize(x, name + "bn2"))
        gate = f.silu(convolve(f.adaptive_avg_pool2d(x, 1), name + "se.se1"))
        x = x * torch.sigmoid(convolve(gate, name + "se.se2"))
        x = normalize(convolve(x, name + "conv3"), name + "bn3")
        if stride == 1 and width == filters:
            x = x + shortcut[..., : x.shape[-2], : x.shape[-1]]
    features = convolve(x, "exp_conv")
    pooled = f.adaptive_avg_pool2d(features, 1).flatten(1)
    logits = f.linear(pooled, weights["fc.weight"], weights["fc.bias"])
    return features.permute(0, 2, 3, 1).numpy(), logits.numpy()


def test_equals_a_forward_pass_in_torch(checkpoint, images, tmp_path, model):
    """Saved by torch as the authors' training does, from a parallel network."""
    torch = pytest.importorskip("torch")
    features, logits = torch_forward(torch, checkpoint, images)
    tensors = {
        f"module.{name}": torch.from_numpy(value.copy())
        for name, value in checkpoint.items()
    }
    content = {"net": tensors, "acc": 0.6, "epoch": 99, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "anchornet_best.pth.tar")
    loaded = load_anchornet95(
        tmp_path / "anchornet_best.pth.tar", input_shape=(*SIZE, 3)
    )
    model.set_weights(loaded.get_weights())
    assert_outputs(model.predict_on_batch(images), features, logits, checkpoint)


def test_checkpoint_has_the_parameters_of_the_authors():
    """674,984, as their program prints, buffers not counted."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    parameters = {
        name: value.size
        for name, value in random_checkpoint(1000).items()
        if not name.endswith(buffers)
    }
    assert sum(parameters.values()) == 674_984
    assert sum(parameters.get(name, 0) for name in NEVER_USED) == 288


def test_every_tensor_matters_but_the_named_ones(checkpoint, model):
    """Changing a used tensor changes a variable; the rest changes nothing."""
    convert_anchornet95(checkpoint, model)
    before = [to_numpy(weight) for weight in model.weights]
    used = {
        name
        for name in checkpoint
        if name not in NEVER_USED and not name.endswith("num_batches_tracked")
    }
    assert len(used) == len(before)
    convert_anchornet95({n: checkpoint[n] for n in used}, model)
    doubled = {n: v * (1 if n in used else 2) for n, v in checkpoint.items()}
    convert_anchornet95(doubled, model)
    for value, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)
    doubled = {name: 2 * value for name, value in checkpoint.items()}
    convert_anchornet95(doubled, model)
    for value, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), 2 * value)


def test_lists_every_tensor_that_does_not_fit(checkpoint, model, tmp_path):
    before = [to_numpy(weight) for weight in model.weights]
    wrong = dict(checkpoint)
    del wrong["bneck.3.se.se1.bias"], wrong["bn1.running_mean"]
    wrong["head.weight"] = np.zeros(3)
    wrong["head.num_batches_tracked"] = np.zeros(())
    wrong["bneck.1.conv2.weight"] = np.zeros((1, 48, 3, 3), "float32")
    with pytest.raises(CheckpointError) as caught:
        convert_anchornet95(wrong, model)
    message = str(caught.value)
    assert "missing: bn1.running_mean, bneck.3.se.se1.bias" in message
    assert "unknown: head.num_batches_tracked, head.weight" in message
    assert "bneck.1.conv2.weight (1, 48, 3, 3) instead of (48, 1, 3, 3)" in message
    for value, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)
    path = save_state_dict(tmp_path / "anchornet.pth", wrong)
    with pytest.raises(ValueError, match="missing: .*In: .*anchornet.pth"):
        load_anchornet95(path, input_shape=(*SIZE, 3))


def test_refuses_another_number_of_classes_and_other_models(checkpoint, model):
    other = random_checkpoint(CLASSES + 1)
    with pytest.raises(CheckpointError, match=r"fc.weight \(8, 512\) instead of \(7"):
        convert_anchornet95(other, model)
    folded = anchornet95(num_classes=3, input_shape=(95, 95, 3), folded=True)
    with pytest.raises(CheckpointError, match=r"fc.bias \(7,\) instead of \(3,\)"):
        convert_anchornet95(checkpoint, folded)
    inputs = keras.Input((5,))
    dense = keras.Model(inputs, keras.layers.Dense(3)(inputs), name="mine")
    with pytest.raises(ValueError, match="Expected a model of anchornet95.*'mine'"):
        convert_anchornet95(checkpoint, dense)


def test_takes_raw_pixels_behind_the_authors_preprocessing(checkpoint, tmp_path):
    archive = TorchArchive()
    path = archive.save(
        tmp_path / "anchornet.pth.tar", {"net": archive.state_dict(checkpoint)}
    )
    pixels = keras.Input((224, 224, 3))
    images = ImagePreprocessing(ANCHORNET95_IMAGES)(pixels)
    model = load_anchornet95(path, input_tensor=images)
    assert model.output["evidence_95"].shape == (None, 17, 17, CLASSES)
    assert ANCHORNET95_IMAGES.crop_fraction == 224 / 256
