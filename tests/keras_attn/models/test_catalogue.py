import keras
import pytest

from keras_attn import models
from keras_attn.models import list_models
from keras_attn.models.catalogue import NETWORKS, ROLES, network, normalization

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def test_lists_networks_by_pattern_and_role():
    everything = list_models()
    assert len(everything) == len(set(everything)) > 20
    assert list_models("vit_*") == ["vit_mini", "vit_tiny", "vit_small", "vit_base"]
    assert list_models("rn*", role="class_embedding") == ["rn26", "rn38"]
    assert list_models("vgg*", role="classifier") == []
    assert list_models("nothing") == []
    with pytest.raises(ValueError, match="Did you mean 'features'"):
        list_models(role="feature")


def test_every_role_is_that_of_a_network_and_of_a_public_builder():
    assert {role for entry in NETWORKS.values() for role in entry.roles} == set(ROLES)
    for role, use in ROLES.items():
        assert hasattr(models, use.split("`")[1]), role


def test_the_public_tables_are_views_of_the_one():
    assert list(models.BACKBONES) == list_models(role="class_embedding")
    assert list(models.FEATURE_BACKBONES) == list_models(role="features")
    assert list(models.DOWNSTREAM_NETWORKS) == list_models(role="classifier")
    assert [f"vit_{size}" for size in models.VIT_SIZES] == list_models(role="tokens")


@pytest.mark.parametrize("name", ["vit_mini", "masked_resnet8", "wrn16"])
def test_builders_take_sizes_and_classes(name):
    (role,) = NETWORKS[name].roles - {"classifier"}
    model = network(name, role).builder(input_shape=(32, 48, 3), num_classes=7)
    assert model.output["logits"].shape == (None, 7)
    if name == "masked_resnet8":
        assert "mask_3" in model.output and "mask_4" not in model.output


def test_masked_networks_have_both_kinds_of_block():
    names = list_models("masked_*")
    assert names == list_models(role="masked")
    found = [
        NETWORKS[f"masked_{name}"].builder for name in ("bottleneck14", "resnet50")
    ]
    assert [builder.args for builder in found] == [(14,), (50,)]
    assert {builder.keywords["block"] for builder in found} == {"bottleneck"}
    assert NETWORKS["masked_resnet20"].builder.keywords == {"block": "basic"}


def test_normalization_is_that_of_the_published_weights():
    images = keras.ops.ones((1, 2, 2, 3)) * 255.0
    wanted = keras.applications.resnet.preprocess_input(images)[0, 0, 0]
    for name in ("resnet50", "vgg19"):
        spec = normalization(name, "features")
        # The published weights take BGR.
        found = [(1 - m) / s for m, s in zip(spec["mean"], spec["std"], strict=True)]
        assert found[::-1] == pytest.approx([float(x) for x in wanted], rel=1e-5)
    assert normalization("densenet169", "classifier") == IMAGENET
    assert normalization("small_resnet", "features") == IMAGENET


def test_refuses_a_network_of_another_role():
    with pytest.raises(ValueError, match="`backbone` to be one of .*backbone='vgg19'"):
        network("vgg19", "classifier", "backbone")
