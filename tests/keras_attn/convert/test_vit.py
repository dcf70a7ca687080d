"""The converted transformer computes what the authors' transformer computes."""

import math

import keras
import numpy as np
import pytest

from keras_attn.convert import DINO_IMAGES, CheckpointError, convert_vit, load_vit
from keras_attn.models import attention_map_model, attention_of, vit
from keras_attn.preprocessing import ImagePreprocessing
from tests.harness import slow_on, to_numpy
from tests.keras_attn.convert.archives import TorchArchive, save_state_dict
from tests.reference.vit import forward, random_checkpoint

SIZE = (24, 2, 3)
CLASSES = 5

pytestmark = slow_on("jax")


@pytest.fixture(scope="module")
def checkpoint():
    return random_checkpoint(classes=CLASSES)


@pytest.fixture(scope="module")
def model():
    return vit(SIZE, 8, (32, 32, 3), num_classes=CLASSES)


def pixels(*size):
    generator = np.random.default_rng(1)
    return generator.normal(size=(2, *size, 3)).astype("float32")


def hugging_face(tensors, prefix=""):
    """The same tensors by the names of Hugging Face, one by one."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm": "layernorm",
    }
    renamed = {}
    for name, value in tensors.items():
        start, _, kind = name.rpartition(".")
        if start == "head":
            renamed[f"classifier.{kind}"] = value
            continue
        if not start:
            start, kind = name, ""
        block = ""
        if start.startswith("blocks."):
            _, index, start = start.split(".", 2)
            block = f"encoder.layer.{index}."
        if start == "attn.qkv":
            for part, third in zip(
                ("query", "key", "value"), np.split(value, 3), strict=True
            ):
                renamed[f"{prefix}{block}attention.attention.{part}.{kind}"] = third
            continue
        whole = f"{prefix}{block}{names[start]}"
        renamed[f"{whole}.{kind}" if kind else whole] = value
    return renamed


def test_equals_a_forward_pass_in_numpy(checkpoint, tmp_path):
    """From the file on: its bytes, names, layouts, tokens and all attention."""
    path = save_state_dict(tmp_path / "vit.pth", checkpoint)
    model = load_vit(path, size=SIZE)
    assert model.input_shape == (None, 32, 32, 3)
    images = pixels(32, 32)
    tokens, attentions = forward(checkpoint, images, heads=3)
    outputs = model(images)
    logits = tokens[:, 0] @ checkpoint["head.weight"].T + checkpoint["head.bias"]
    for found, wanted in [
        (outputs["tokens"], tokens),
        (outputs["embedding"], tokens[:, 0]),
        (outputs["logits"], logits),
        (attention_of(model, 0)(images), attentions[0]),
        (attention_of(model)(images), attentions[1]),
    ]:
        np.testing.assert_allclose(to_numpy(found), wanted, atol=1e-5)
    maps = to_numpy(attention_map_model(model)(images))
    wanted = attentions[1][:, :, 0, 1:].reshape(2, 3, 4, 4).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(maps, wanted, atol=1e-6)
    alone = 1.0 - attentions[1][:, :, 0, 0]
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), alone, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (16, 64), (40, 24)])
def test_equals_a_forward_pass_in_torch(checkpoint, size):
    """16 x 64 has as many patches as the positions are learned for."""
    torch = pytest.importorskip("torch")
    from benchmarks.plain_vit import VisionTransformer

    images = pixels(*size)
    theirs = VisionTransformer(*SIZE, 8, 32, CLASSES)
    tensors = {name: torch.tensor(value) for name, value in checkpoint.items()}
    theirs.load_state_dict(tensors)
    model = vit(
        SIZE,
        8,
        (*size, 3),
        num_classes=CLASSES,
        position_size=32,
        position_offset=0.1,
    )
    convert_vit(checkpoint, model)
    with torch.no_grad():
        channels_first = torch.tensor(images).permute(0, 3, 1, 2)
        tokens = theirs(channels_first)
        logits, attention = theirs.last_attention(channels_first)
    outputs = model(images)
    for found, wanted in [
        (outputs["tokens"], tokens),
        (outputs["logits"], logits),
        (attention_of(model, "block_2")(images), attention),
    ]:
        np.testing.assert_allclose(to_numpy(found), wanted.numpy(), atol=1e-5)


def torch_positions(grid, size, offset):
    """PyTorch's `interpolate(mode="bicubic")`, one cell and neighbour at a time.

    With DINO's `scale_factor=(size + offset) / len(grid)`, by which places are found.
    """

    def kernel(x):
        x, a = abs(x), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    places = [
        [(cell + 0.5) * count / (wanted + offset) - 0.5 for cell in range(wanted)]
        for count, wanted in zip(grid.shape, size, strict=False)
    ]
    resized = np.zeros((*size, grid.shape[2]))
    for row, y in enumerate(places[0]):
        for column, x in enumerate(places[1]):
            for i in range(math.floor(y) - 1, math.floor(y) + 3):
                for j in range(math.floor(x) - 1, math.floor(x) + 3):
                    cell = grid[
                        min(max(i, 0), len(grid) - 1), min(max(j, 0), len(grid[0]) - 1)
                    ]
                    resized[row, column] += kernel(y - i) * kernel(x - j) * cell
    return resized


@pytest.mark.parametrize("layout, offset", [("authors", 0.1), ("hugging_face", 0.0)])
def test_positions_at_other_sizes_are_those_of_the_layout(
    checkpoint, tmp_path, layout, offset
):
    tensors = checkpoint if layout == "authors" else hugging_face(checkpoint)
    path = save_state_dict(tmp_path / "vit.pth", tensors)
    # As many patches as learned positions, in another shape, and others.
    for rows, columns in ((2, 8), (5, 3)):
        model = load_vit(path, size=SIZE, input_shape=(8 * rows, 8 * columns, 3))
        positions = model.get_layer("positions").positions_at(rows, columns)
        grid = checkpoint["pos_embed"][0, 1:].reshape(4, 4, 24).astype("float64")
        wanted = torch_positions(grid, (rows, columns), offset).reshape(-1, 24)
        np.testing.assert_allclose(to_numpy(positions)[1:], wanted, atol=1e-5)
    whole = load_vit(path, size=SIZE, position_offset=0.3)
    assert whole.get_layer("positions").offset == 0.3


def test_equals_transformers(tmp_path):
    """With the file that the library itself writes."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=32,
        patch_size=8,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )
    theirs = transformers.ViTModel(config, add_pooling_layer=False).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    theirs.save_pretrained(tmp_path)
    model = load_vit(tmp_path / "model.safetensors", size=SIZE)
    images = pixels(32, 32)
    with torch.no_grad():
        wanted = theirs(
            torch.tensor(images).permute(0, 3, 1, 2), output_attentions=True
        )
    found = to_numpy(model(images)["tokens"])
    np.testing.assert_allclose(found, wanted.last_hidden_state.numpy(), atol=1e-5)
    attention = to_numpy(attention_of(model)(images))
    np.testing.assert_allclose(attention, wanted.attentions[-1].numpy(), atol=1e-5)


def test_equals_timm(checkpoint):
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    theirs = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5
    ).eval()
    theirs.load_state_dict(
        {name: torch.tensor(value) for name, value in checkpoint.items()}
    )
    model = convert_vit(checkpoint, vit(SIZE, 8, (32, 32, 3), num_classes=5))
    images = pixels(32, 32)
    with torch.no_grad():
        wanted = theirs(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(to_numpy(model(images)["logits"]), wanted, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_all_layouts_give_the_same_weights(checkpoint, model, prefix):
    convert_vit(checkpoint, model)
    wanted = model.get_weights()
    convert_vit({name: 2 * value for name, value in checkpoint.items()}, model)
    renamed = hugging_face(checkpoint, prefix)
    assert len(renamed) == len(checkpoint) + 2 * 2 * 2
    convert_vit(renamed, model)
    for found, value in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("key, prefix", [("teacher", ""), ("student", "module.")])
def test_takes_student_or_teacher_of_a_whole_training(tmp_path, key, prefix):
    networks = {"student": random_checkpoint(seed=1), "teacher": random_checkpoint()}
    archive = TorchArchive()
    content = {"epoch": 100}
    for name, tensors in networks.items():
        first = "module." if name == "student" else ""
        entries = {f"{first}backbone.{one}": value for one, value in tensors.items()}
        entries[f"{first}head.last_layer.weight_g"] = np.ones((7, 1), "float32")
        content[name] = archive.state_dict(entries)
    path = archive.save(tmp_path / "full.pth", content)
    loaded = load_vit(path, key, size=SIZE)
    wanted = convert_vit(networks[key], vit(SIZE, 8, (32, 32, 3)))
    for found, value in zip(loaded.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(found, value)
    with pytest.raises(CheckpointError, match="choose one with key="):
        load_vit(path, size=SIZE)


def test_reads_size_and_patches_from_the_tensors(tmp_path):
    checkpoint = random_checkpoint(width=128, depth=1, patch=4, grid=(2, 2))
    path = save_state_dict(tmp_path / "vit.pth", checkpoint)
    images = ImagePreprocessing(DINO_IMAGES)(keras.Input((300, 260, 3)))
    model = load_vit(path, input_tensor=images)
    assert model.output["tokens"].shape == (None, 1 + 56 * 56, 128)
    assert model.get_layer("block_1").num_heads == 2
    assert model.get_layer("positions").grid == (2, 2)
    assert DINO_IMAGES.crop_fraction == 224 / 256


def test_lists_every_tensor_that_does_not_fit(checkpoint, model, tmp_path):
    before = model.get_weights()
    wrong = hugging_face(checkpoint)
    del wrong["encoder.layer.1.attention.attention.key.bias"]
    wrong["pooler.dense.bias"] = np.zeros(3)
    wrong["classifier.weight"] = np.zeros((7, 24), "float32")
    with pytest.raises(CheckpointError) as caught:
        convert_vit(wrong, model)
    message = str(caught.value)
    assert "missing: encoder.layer.1.attention.attention.key.bias;" in message
    assert "unknown: pooler.dense.bias;" in message
    assert "classifier.weight (7, 24) instead of (5, 24)" in message
    for found, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, value)
    path = save_state_dict(tmp_path / "vit.pth", wrong)
    with pytest.raises(ValueError, match="missing: .*In: .*vit.pth"):
        load_vit(path, size=SIZE)


def test_refuses_other_sizes_and_other_networks(checkpoint, model, tmp_path):
    other = vit(SIZE, 8, (32, 48, 3), num_classes=CLASSES)
    with pytest.raises(CheckpointError, match=r"pos_embed \(1, 17, 24\) instead"):
        convert_vit(checkpoint, other)
    deeper = random_checkpoint(depth=3, classes=CLASSES)
    with pytest.raises(CheckpointError, match=r"unknown: blocks.2.attn.proj.bias"):
        convert_vit(deeper, model)
    with pytest.raises(CheckpointError, match=r"with 'cls_token' or .*'fc.weight'"):
        convert_vit({"fc.weight": np.zeros(3)}, model)
    path = save_state_dict(tmp_path / "vit.pth", checkpoint)
    with pytest.raises(CheckpointError, match="64 wide, or `size`.*width 24"):
        load_vit(path)
    longer = {**checkpoint, "pos_embed": np.zeros((1, 9, 24), "float32")}
    path = save_state_dict(tmp_path / "longer.pth", longer)
    with pytest.raises(CheckpointError, match="square of patches"):
        load_vit(path, size=SIZE)
    inputs = keras.Input((5,))
    dense = keras.Model(inputs, keras.layers.Dense(3)(inputs), name="mine")
    with pytest.raises(ValueError, match=r"Expected a model of vit\(\).*'mine'"):
        convert_vit(checkpoint, dense)
