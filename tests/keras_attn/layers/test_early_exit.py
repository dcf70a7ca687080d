import keras
import numpy as np
import pytest
from keras import ops

from keras_attn.early_exit.thresholds import ExitThresholds
from keras_attn.graph.costs import multiply_adds
from keras_attn.layers.early_exit import EarlyExit
from keras_attn.layers.localize_patches import LocalizePatches
from keras_attn.models.localizer import branches_of
from keras_attn.ops.resize import resize_bicubic
from keras_attn.ops.rows import can_gather
from tests.harness import check_layer, to_numpy
from tests.keras_attn.counting import counted, small_classifier, small_localizer
from tests.reference.early_exit import early_exit

SIZES = {0: (7, 7), 1: (11, 11), 2: (15, 15)}
RESIZED = (13, 11)
FORMS = [None, False] if can_gather() else [None]
SELECTION = {"max_patches": (3, 3, 2), "iou_threshold": 0.05, "coverage": 0.3}
STAGES = 4
THRESHOLDS = [0.55, 0.78, 0.92]


class Setting:
    """The three networks, images, and the answers of each network."""

    def __init__(self, images=9):
        random = np.random.default_rng(0)
        shape = (images, 29, 31, 3)
        self.images = random.uniform(0, 255, shape).astype("float32")
        # Smooth images of different kinds, so that branches and confidences differ.
        self.images *= random.uniform(0, 1, (images, 1, 1, 3)).astype("float32")
        self.localizer = small_localizer()
        self.resized = small_classifier(scale=0.6, seed=23)
        self.patches = small_classifier(scale=0.6, seed=25)
        self.branches = branches_of(self.localizer)

    def layer(self, thresholds=None, **changes):
        arguments = {"resized_size": RESIZED, **SELECTION, **changes}
        return EarlyExit(
            self.localizer,
            self.resized,
            self.patches,
            self.branches,
            thresholds=thresholds,
            **arguments,
        )

    def found(self):
        """Patches of all images."""
        layer = LocalizePatches(self.branches, **SELECTION)
        maps = self.localizer(self.images, training=False)
        return {name: to_numpy(value) for name, value in layer(maps).items()}

    def expected(self, thresholds):
        """The same, one image and one patch at a time."""
        found = self.found()
        small = resize_bicubic(ops.convert_to_tensor(self.images), RESIZED)
        resized = to_numpy(self.resized(small, training=False)["logits"])
        costs = [multiply_adds(self.patches, (*size, 3)) for size in SIZES.values()]
        first = multiply_adds(self.resized, (*RESIZED, 3))
        results = []
        for index, image in enumerate(self.images):
            branch = found["branch"][index]
            one = early_exit(
                resized[index],
                lambda patch: to_numpy(self.patches(patch[None])["logits"])[0],
                image,
                {name: value[index] for name, value in found.items()},
                SIZES[branch],
                thresholds,
                STAGES,
            )
            asked = one["confidence"][0] <= thresholds[0]
            one["cost"] = first + asked * multiply_adds(self.localizer)
            one["cost"] += one["exit"] * costs[branch]
            one["branch"] = branch if asked else -1
            one["valid"] = found["valid"][index] & asked
            one["boxes"] = np.where(asked, found["boxes"][index], -1)
            one["scores"] = np.where(asked, found["scores"][index], 0)
            results.append(one)
        return {name: np.stack([one[name] for one in results]) for name in results[0]}


@pytest.fixture(scope="module")
def setting():
    return Setting()


def run(layer, images):
    outputs = layer(ops.convert_to_tensor(images))
    return {name: to_numpy(value) for name, value in outputs.items()}


def check(outputs, wanted):
    assert set(outputs) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(
            outputs[name], value, rtol=1e-4, atol=1e-4, err_msg=name
        )


@pytest.mark.parametrize("gather", FORMS)
@pytest.mark.parametrize("thresholds", [THRESHOLDS, [0.0] * 3, [1.0] * 3])
def test_equals_one_image_at_a_time(setting, thresholds, gather):
    wanted = setting.expected(thresholds)
    check(run(setting.layer(thresholds, gather=gather), setting.images), wanted)
    counts = setting.found()["valid"].sum(axis=1)
    if thresholds[0] == 0:
        assert not wanted["exit"].any()
    elif thresholds[0] == 1:
        # Stops at the last valid patch, of which not all images have as many.
        assert (wanted["exit"] == counts).all() and len(set(counts)) > 2
    else:
        assert len(set(wanted["exit"])) >= 3 and len(set(wanted["branch"])) >= 3


def test_one_threshold_holds_for_all_stages_and_none_never(setting):
    first = run(setting.layer(0.8), setting.images)
    check(run(setting.layer([0.8] * 3), setting.images), first)
    never = run(setting.layer([1] * 3), setting.images)
    check(run(setting.layer(), setting.images), never)


def test_an_image_gets_the_same_in_any_company(setting):
    layer = setting.layer(THRESHOLDS)
    together = run(layer, setting.images)
    order = [4, 2, 0] * 3
    check(
        run(layer, setting.images[order]),
        {name: value[order] for name, value in together.items()},
    )


def networks_seen(setting, call, images, outputs):
    """Checks calls and examples of each network against the outputs' exits."""
    networks = setting.localizer, setting.resized, setting.patches
    for network in networks:
        counted(network)
    call(ops.convert_to_tensor(images))
    asked = (outputs["branch"] >= 0).sum()
    stages = [
        set(outputs["branch"][outputs["exit"] >= stage]) for stage in (1, 2, 3, 4)
    ]
    assert [counted(network) for network in networks] == [
        (int(asked > 0), asked),
        (1, len(images)),
        (sum(len(branches) for branches in stages), outputs["exit"].sum()),
    ]


@pytest.mark.parametrize("thresholds", [THRESHOLDS, 0.0, None])
def test_finished_images_cost_nothing(setting, thresholds):
    if not can_gather():
        pytest.skip("JAX computes the whole batch")
    layer = setting.layer(thresholds)
    networks_seen(setting, layer, setting.images, run(layer, setting.images))


@keras.saving.register_keras_serializable(package="tests")
class Agreement:
    """Stops where two stages in a row are surer than a bound."""

    def __init__(self, bound):
        self.bound = bound

    def stop(self, stage, confidences):
        assert confidences.shape[1] == stage + 1
        sure = confidences[:, max(stage - 1, 0) :] > self.bound
        return ops.logical_and(ops.all(sure, axis=1), stage > 0)

    def get_config(self):
        return {"bound": self.bound}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@pytest.mark.parametrize("gather", FORMS)
def test_a_policy_sees_all_confidences_so_far(setting, gather):
    layer = setting.layer(policy=Agreement(0.7), gather=gather)
    outputs = run(layer, setting.images)
    every = run(setting.layer(), setting.images)
    counts = every["valid"].sum(axis=1)
    sure = every["confidence"] > 0.7
    for index, count in enumerate(counts):
        stops = [s for s in range(1, count) if sure[index, s - 1] and sure[index, s]]
        assert outputs["exit"][index] == (stops[0] if stops else count)
    assert (outputs["exit"] < counts).any() and 1 < len(set(outputs["exit"]))


def test_images_of_the_right_size_are_not_resized(setting):
    layer = setting.layer(0.0, resized_size=(29, 31))
    wanted = to_numpy(setting.resized(ops.convert_to_tensor(setting.images))["logits"])
    logits = run(layer, setting.images)["logits"]
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)


def test_compiled_by_jax(setting):
    if keras.backend.backend() != "jax":
        pytest.skip("compiled by JAX")
    import jax

    layer = setting.layer(THRESHOLDS)
    outputs = jax.jit(layer)(setting.images)
    check(outputs, run(layer, setting.images))


def test_tensorflow_graph_of_any_batch_size(setting):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a graph of TensorFlow")
    import tensorflow as tf

    layer = setting.layer(THRESHOLDS)
    outputs = run(layer, setting.images)
    signature = [tf.TensorSpec((None, 29, 31, 3))]
    call = tf.function(layer, input_signature=signature)
    for count in (1, 7):
        images = setting.images[:count]
        wanted = {name: value[:count] for name, value in outputs.items()}
        check({name: to_numpy(x) for name, x in call(images).items()}, wanted)
        networks_seen(setting, call, images, wanted)


def pooling_networks():
    """Networks without convolutions, quick to compile."""
    pixels = keras.Input((13, 11, 3))
    evidence = keras.layers.AveragePooling2D(5, strides=2, name="evidence_5")(pixels)
    logits = keras.layers.GlobalAveragePooling2D()(evidence)
    localizer = keras.Model(pixels, {"logits_5": logits, "evidence_5": evidence})
    classifiers = []
    for _ in range(2):
        pixels = keras.Input((None, None, 3))
        means = keras.layers.GlobalAveragePooling2D()(pixels)
        classifiers.append(keras.Model(pixels, keras.layers.Softmax()(means)))
    return localizer, *classifiers


def test_harness():
    localizer, resized, patches = pooling_networks()
    branch = {"name": "5", "patch_size": 5, "stride": 2, "offset": 0}
    check_layer(
        EarlyExit,
        {
            "localizer": localizer,
            "resized_classifier": resized,
            "patch_classifier": patches,
            "branches": [branch],
            "max_patches": 1,
            "resized_size": (7, 5),
            "iou_threshold": 0.2,
            "coverage": 0.5,
            "policy": ExitThresholds([0.5]),
            "from_logits": False,
            "costs": {"resized": 1, "localizer": 2, "patch": [3]},
            "gather": False,
        },
        (2, 13, 11, 3),
        differentiable=False,  # an exit is a choice
        float32_outputs=("logits", "confidence", "cost", "scores"),
        integer_outputs=("exit", "predictions", "branch", "boxes", "valid"),
    )


def test_reads_the_config_of_earlier_versions(setting):
    layer = setting.layer()
    layer.build((None, 29, 31, 3))
    assert layer.costs is None and layer.get_config()["costs"] is None
    config = {**layer.get_config(), "policy": None, "thresholds": THRESHOLDS}
    revived = EarlyExit.from_config({**config, "costs": layer.network_costs})
    assert revived.policy.thresholds == THRESHOLDS
    assert revived.costs == layer.network_costs


def test_refusals(setting):
    with pytest.raises(ValueError, match="policy of 4 exits.*Received: one of 3"):
        setting.layer([0.5, 0.5])
    with pytest.raises(ValueError, match="number in 0..1 or a list.*1.5"):
        setting.layer([0.5, 0.5, 1.5])
    with pytest.raises(ValueError, match="either `thresholds` or `policy`"):
        setting.layer(0.5, policy=Agreement(0.5))
    short = Agreement(0.5)
    short.exits = 3
    with pytest.raises(ValueError, match="policy of 4 exits.*Received: one of 3"):
        setting.layer(policy=short)
    other = small_classifier(classes=7)
    layer = EarlyExit(
        setting.localizer,
        other,
        setting.patches,
        setting.branches,
        resized_size=RESIZED,
        **SELECTION,
    )
    with pytest.raises(ValueError, match="same classes.*with 7 and .* with 5"):
        layer.build((None, 29, 31, 3))
    with pytest.raises(ValueError, match="at least 15 x 15 pixels.*Received: 14 x 31"):
        setting.layer().build((None, 14, 31, 3))
    for shape in [(1, 29, 31, 1), (1, 29, 31, 4), (1, 23, 31, 3)]:
        layer = setting.layer()
        layer.build((None, 29, 31, 3))
        with pytest.raises(ValueError, match=rf"29, 31, 3\), found .*{shape[1:]}"):
            layer(np.zeros(shape, "float32"))
