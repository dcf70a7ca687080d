import h5py
import keras
import numpy as np
import pytest

from keras_attn import ImagePreprocessing, ImageSpec
from keras_attn.models.feature_backbones import backbone_normalization, feature_backbone
from tests.harness import save_legacy_weights, slow_on, to_numpy, unweighted

NETWORKS = {"resnet50": "resnet", "vgg19": "vgg19"}

slow_on_jax = slow_on("jax")


def model_of(name, shape=(32, 64, 3), **options):
    images = keras.Input(shape)
    return keras.Model(images, feature_backbone(name, images, **options))


@slow_on_jax
@pytest.mark.parametrize("name", NETWORKS)
def test_published_weights_meet_their_preprocessing(name, tmp_path):
    keras.utils.set_random_seed(1)
    builders = {"resnet50": "ResNet50", "vgg19": "VGG19"}
    published = getattr(keras.applications, builders[name])(
        weights=None, include_top=False, input_shape=(32, 64, 3)
    )
    file = tmp_path / "published.h5"
    with h5py.File(file, "w") as opened:
        save_legacy_weights(opened, published)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3)).astype("float32")
    preprocess = getattr(keras.applications, NETWORKS[name]).preprocess_input
    images = keras.Input((32, 64, 3))
    spec = ImageSpec(32, 64, **backbone_normalization(name))
    normalized = ImagePreprocessing(spec)(images)
    ours = keras.Model(images, feature_backbone(name, normalized, weights=file))
    wanted = published.layers[-2 if name == "vgg19" else -1].output
    wanted = keras.Model(published.input, wanted)(preprocess(pixels.copy()))
    wanted = to_numpy(wanted)
    np.testing.assert_allclose(
        to_numpy(ours(pixels)), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max()
    )


@slow_on_jax
@unweighted()
def test_last_stage_without_stride_has_a_map_twice_as_large():
    assert model_of("resnet50").output.shape == (None, 1, 2, 2048)
    larger = model_of("resnet50_stride16")
    assert larger.output.shape == (None, 2, 4, 2048)
    assert larger.count_params() == 23_587_712


@unweighted()
def test_small_resnet_for_cpus():
    assert model_of("small_resnet").output.shape == (None, 4, 8, 96)


def test_penalizes_every_kernel():
    model = model_of("small_resnet", weight_decay=0.5)
    kernels = [w for w in model.weights if w.path.endswith("/kernel")]
    wanted = sum(0.5 * np.sum(to_numpy(kernel) ** 2) for kernel in kernels)
    np.testing.assert_allclose(float(sum(model.losses)), wanted, rtol=1e-5)


@unweighted()
def test_another_convolution_takes_the_place_of_the_last_one():
    class Marked(keras.layers.Conv2D):
        pass

    model = model_of(
        "small_resnet",
        last_convolution=Marked,
        convolution_options={"bias_initializer": "ones"},
    )
    (marked,) = [layer for layer in model.layers if isinstance(layer, Marked)]
    assert marked.name == "stage3_block2_conv2"
    assert (marked.filters, marked.use_bias) == (96, False)


def test_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'resnet50'"):
        model_of("resnet5")
    with pytest.raises(ValueError, match="have published weights"):
        model_of("small_resnet", weights="imagenet")
    with pytest.raises(FileNotFoundError, match="not there"):
        model_of("resnet50", weights=tmp_path / "missing.h5")
