import keras
import numpy as np

from keras_attn.training.methods.optimizers import LayerwiseSGD


def network(optimizer):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, name="backbone")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    model.compile(optimizer, "mse")
    return model


def moved(optimizer, steps):
    """Distances by which steps on the same batch move the two kernels."""
    model = network(optimizer)
    before = [w.numpy() if hasattr(w, "numpy") else np.array(w) for w in model.weights]
    batch = np.ones((8, 3), "float32"), np.full((8, 2), 3.0, "float32")
    for _ in range(steps):
        model.train_on_batch(*batch)
    after = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    return [b - a for a, b in zip(before, after, strict=True)]


def test_named_layers_move_by_the_factor():
    plain = moved(keras.optimizers.SGD(1e-3, momentum=0.9), 1)
    ours = moved(LayerwiseSGD(1e-3, {"logits": 5.0}, momentum=0.9), 1)
    for index, factor in enumerate((1.0, 1.0, 5.0, 5.0)):
        np.testing.assert_allclose(ours[index], factor * plain[index], rtol=1e-3)


def test_without_factors_it_is_sgd():
    plain = moved(keras.optimizers.SGD(1e-2, momentum=0.9), 3)
    ours = moved(LayerwiseSGD(1e-2, momentum=0.9), 3)
    for theirs, own in zip(plain, ours, strict=True):
        np.testing.assert_array_equal(theirs, own)


def test_survives_its_configuration():
    optimizer = LayerwiseSGD(1e-2, {"logits": 5.0}, momentum=0.8)
    revived = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(revived, LayerwiseSGD)
    assert revived.factors == {"logits": 5.0} and revived.momentum == 0.8
