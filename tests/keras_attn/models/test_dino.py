import keras
import numpy as np
import pytest

from keras_attn.losses import dino_loss
from keras_attn.models import Dino, WarmupCosine, dino_optimizer
from tests.harness import gradients, to_numpy

HEAD = {"units": 11, "hidden_units": 6, "bottleneck_units": 5, "hidden_layers": 1}


def backbone(dropout=0.0, normalized=False, size=8, width=7):
    images = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(width, 4, 4, name="stem")(images)
    if normalized:
        x = keras.layers.BatchNormalization(name="normalization")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(images, {"embedding": x, "pooled": x})


def make_model(**kwargs):
    student, teacher = backbone(0.3), backbone()
    return Dino(student, teacher, **{"head": HEAD, **kwargs})


def views(batch=3, seed=0):
    generator = np.random.default_rng(seed)
    shapes = {
        "global_views": (batch, 2, 8, 8, 3),
        "local_views": (batch, 3, 4, 4, 3),
    }
    return {
        name: generator.standard_normal(shape).astype("float32")
        for name, shape in shapes.items()
    }


def values(variables):
    return [to_numpy(variable) for variable in variables]


def test_steps_of_training():
    """Teacher, centre and last layer do what they shall do, step by step."""
    model = make_model(teacher_momentum=WarmupCosine(0.5, 0.9, steps=4))
    model.compile(
        dino_optimizer(2, 2, batch_size=256, learning_rate=0.1, warmup_epochs=0)
    )
    assert model.averaged
    students = [student for student, _ in model.averaged]
    teachers = [teacher for _, teacher in model.averaged]
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in students}
    for student, teacher in zip(values(students), values(teachers), strict=True):
        np.testing.assert_array_equal(student, teacher)

    batch = views()
    momenta = [0.9 - 0.4 * (1 + np.cos(np.pi * step / 4)) / 2 for step in range(3)]
    start, seen, means, centers = values(teachers), [], [], [values([model.center])[0]]
    last_layers = [values([model.student_head.directions])[0]]
    for _ in range(3):
        scores = to_numpy(model(batch)["teacher"])
        means.append(scores.mean(axis=(0, 1)))
        model.train_on_batch(batch)
        seen.append(values(students))
        centers.append(values([model.center])[0])
        last_layers.append(values([model.student_head.directions])[0])

    # t_k = t_0 prod m + sum_i (1 - m_i) s_i prod_{j > i} m_j, and nothing else.
    for index, teacher in enumerate(values(teachers)):
        wanted = start[index] * np.prod(momenta)
        for step, weights in enumerate(seen):
            share = (1 - momenta[step]) * np.prod(momenta[step + 1 :])
            wanted = wanted + share * weights[index]
        np.testing.assert_allclose(teacher, wanted, atol=1e-6)
    # c_k = 0.1 sum_i 0.9^(k - i) mean_i, where c_0 = 0.
    wanted = sum(0.1 * 0.9 ** (2 - step) * mean for step, mean in enumerate(means))
    np.testing.assert_allclose(centers[-1], wanted, atol=1e-6)
    assert np.abs(wanted).max() > 1e-3
    # The last layer rests in the first epoch, of two steps; others do not.
    np.testing.assert_array_equal(last_layers[0], last_layers[2])
    assert (last_layers[2] != last_layers[3]).any()
    assert (seen[0][0] != start[0]).any()
    assert int(model.steps.value) == 3


def test_the_loss_is_that_of_the_scores():
    model = make_model()
    batch = views()
    model.center.assign(np.linspace(-0.1, 0.1, 11))
    scores = {name: to_numpy(x) for name, x in model(batch).items()}
    assert scores["student"].shape == (3, 5, 11)
    assert scores["teacher"].shape == (3, 2, 11)
    # Teacher and student are the same so far, and see the global views first.
    np.testing.assert_allclose(scores["student"][:, :2], scores["teacher"], atol=1e-6)
    single = {"global_views": batch["local_views"][1:2, 2:]}
    alone = to_numpy(model(single)["student"])
    np.testing.assert_allclose(alone[0, 0], scores["student"][1, 4], atol=1e-6)
    found = float(model.compute_loss(y_pred=model(batch), training=False))
    wanted = dino_loss(scores["student"], scores["teacher"], to_numpy(model.center))
    assert found == pytest.approx(float(wanted), rel=1e-6)
    assert found > float(model.entropy_tracker.result())


def test_no_gradient_reaches_the_teacher():
    model = make_model()
    batch = views()
    variables = [variable for pair in model.averaged for variable in pair]

    def loss(*tensors):
        mapping = list(zip(variables, tensors, strict=True))
        with keras.StatelessScope(mapping):
            return model.compute_loss(y_pred=model(batch), training=False)

    found = gradients(loss, *values(variables))
    for student, teacher in zip(found[::2], found[1::2], strict=True):
        assert np.abs(student).max() > 0
        assert teacher is None or not teacher.any()


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the same on all backends, and every network is compiled anew",
)
class TestOnOneBackend:
    def test_buffers_are_each_networks_own(self):
        model = Dino(
            backbone(normalized=True),
            backbone(normalized=True),
            head=HEAD,
            teacher_momentum=1.0,
        )
        model.compile(keras.optimizers.SGD(0.0))
        model.student.get_layer("stem").bias.assign(np.full(7, 5.0))
        model.train_on_batch(views())
        mean = [
            to_numpy(network.get_layer("normalization").moving_mean)
            for network in (model.student, model.teacher)
        ]
        # The student's maps are 5 higher. It has seen local views after the global.
        assert (mean[1] != 0).all() and (mean[0] > mean[1] + 0.04).all()

    def test_the_same_after_saving(self, tmp_path):
        model = make_model(teacher_momentum=WarmupCosine(0.99, 1.0, 10))
        model.compile(dino_optimizer(2, 2, 8, warmup_epochs=0))
        model.train_on_batch(views())
        model.save(tmp_path / "dino.keras")
        loaded = keras.saving.load_model(tmp_path / "dino.keras")
        for name, wanted in model(views()).items():
            np.testing.assert_allclose(loaded(views())[name], wanted, atol=1e-6)
        np.testing.assert_array_equal(loaded.center, model.center)
        logs = [m.train_on_batch(views(seed=1)) for m in (model, loaded)]
        assert len(model.averaged) == len(loaded.averaged) == 7
        assert float(loaded.teacher_momentum(0)) == pytest.approx(0.99)
        assert np.isfinite(logs).all()

    def test_half_precision(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = make_model()
        assert model(views())["student"].dtype == "bfloat16"
        model.compile(dino_optimizer(2, 2, 8, warmup_epochs=0))
        assert np.isfinite(model.train_on_batch(views())).all()
        assert {weight.dtype for weight in model.weights} <= {"float32", "int32"}

    def test_it_learns_to_tell_images_apart(self):
        """Noisy views of two images: the student comes to know which is which."""
        generator = np.random.default_rng(0)
        images = np.repeat(generator.standard_normal((2, 1, 8, 8, 3)), 8, axis=0)
        model = make_model(teacher_momentum=0.9, teacher_temperature=0.06)
        model.compile(keras.optimizers.Adam(3e-2, clipnorm=3.0))

        def noisy(count):
            noise = generator.normal(0, 0.3, (16, count, 8, 8, 3))
            return {"global_views": (images + noise).astype("float32")}

        logs = []
        for _ in range(61):
            model.reset_metrics()
            logs.append(model.train_on_batch(noisy(2), return_dict=True))
        scores = to_numpy(model(noisy(1))["teacher"])[:, 0].argmax(axis=-1)
        assert logs[-1]["loss"] < 0.5 * logs[0]["loss"], logs[-1]
        assert len(set(scores[:8])) == len(set(scores[8:])) == 1
        assert scores[0] != scores[8]

    @pytest.mark.parametrize(
        ("teacher", "words"),
        [(backbone(width=6), "weights of the same shapes")],
    )
    def test_networks_that_do_not_fit(self, teacher, words):
        with pytest.raises(ValueError, match=words):
            Dino(backbone(), teacher, head=HEAD)

    def test_a_backbone_without_embeddings(self):
        images = keras.Input((8, 8, 3))
        maps = keras.Model(images, keras.layers.Conv2D(3, 1)(images))
        with pytest.raises(ValueError, match="returns embeddings"):
            Dino(maps, maps, head=HEAD)
