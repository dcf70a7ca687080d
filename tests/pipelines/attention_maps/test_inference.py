"""A frozen model that makes batches while another one trains."""

import threading

import keras
import numpy as np

from keras_attn.pipelines.attention_maps.inference import inference


def test_many_threads_while_another_model_trains():
    frozen = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(3, 2)), random.normal(size=2)
    frozen.set_weights([kernel, bias])
    call, found = inference(frozen), {}
    batches = random.normal(size=(12, 5, 3)).astype("float32")

    def work(number):
        for index in range(number, 12, 3):
            found[index] = call(batches[index])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    trained = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    trained.compile("sgd", "mse")
    for thread in threads:
        thread.start()
    for batch in batches:
        trained.train_on_batch(batch, batch[:, :2])
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(12))
    for index, batch in enumerate(batches):
        assert isinstance(found[index], np.ndarray)
        np.testing.assert_allclose(found[index], batch @ kernel + bias, atol=1e-5)
    # A batch of another size, and the frozen weights are still there.
    np.testing.assert_allclose(call(batches[0][:2]), found[0][:2], atol=1e-6)


def test_layers_run_in_inference_mode():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.9)])
    batch = np.ones((3, 4), "float32")
    np.testing.assert_array_equal(inference(model)(batch), batch)
