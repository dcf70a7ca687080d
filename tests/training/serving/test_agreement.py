import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_attn.preprocessing import ImageSpec
from keras_attn.training.serving.agreement import check_agreement

SPEC = ImageSpec(6, 10)
PIXELS = tf.TensorSpec((None, 6, 10, 3), tf.float32, "images")
BYTES = tf.TensorSpec((None,), tf.string, "image_bytes")


def answering(choice, compiled=None, shift=0.0, noise=0.0):
    """A model that chooses a channel, possibly another one in a compiled graph."""

    def answer(images):
        chosen = choice
        if compiled is not None and not tf.executing_eagerly():
            chosen = compiled
        mean = tf.reduce_mean(images, axis=(1, 2)) / 255
        return {
            "choice": tf.fill(tf.shape(mean)[:1], chosen),
            "score": mean[:, chosen] + shift,
            "all": mean + noise,
        }

    return answer


def written(answer, folder):
    """A SavedModel of a function, as `export` writes it."""

    def decoded(image_bytes):
        decode = lambda data: tf.io.decode_png(data, channels=3)  # noqa: E731
        images = tf.map_fn(decode, image_bytes, tf.uint8)
        return answer(tf.ensure_shape(tf.cast(images, tf.float32), PIXELS.shape))

    module = tf.Module()
    module.images = tf.function(answer, [PIXELS])
    module.bytes = tf.function(decoded, [BYTES])
    signatures = {"image": module.images, "serving_default": module.bytes}
    tf.saved_model.save(module, str(folder), signatures)
    return folder


def model(dtype="float32"):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, dtype=dtype)])


def check(tmp_path, expected, exported, dtype="float32"):
    folder = written(exported, tmp_path / "saved")
    answers = dict.fromkeys(("serving_default", "image"), expected)
    check_agreement(answers, model(dtype), SPEC, tf.saved_model.load(str(folder)))


def test_equal_answers_agree(tmp_path):
    check(tmp_path, answering(1), answering(1, noise=1e-6))


@pytest.mark.parametrize(
    "exported, message",
    [
        (answering(1, noise=1e-2), "all of 'serving_default' is off by 0.01, of at"),
        (answering(1, shift=-0.5), "score of 'serving_default' is off by 0.5"),
        (answering(2), "choice of 'serving_default' is different"),
        (answering(1, noise=np.nan), "all of .* is off by nan"),
    ],
)
def test_other_answers_do_not(tmp_path, exported, message):
    with pytest.raises(ValueError, match=message):
        check(tmp_path, answering(1), exported)


def test_a_choice_that_rounding_decides_may_be_that_of_the_compiled_graph(tmp_path):
    check(tmp_path, answering(1, compiled=2), answering(2))


@pytest.mark.parametrize(
    "exported, output", [(answering(2, shift=0.5), "score"), (answering(0), "choice")]
)
def test_but_then_all_else_must_follow_from_it(tmp_path, exported, output):
    with pytest.raises(ValueError, match=output):
        check(tmp_path, answering(1, compiled=2), exported)


def test_half_precision_is_less_precise(tmp_path):
    close = answering(1, noise=3e-3)
    check(tmp_path, answering(1), close, "mixed_bfloat16")
    with pytest.raises(ValueError, match="off by 0.003"):
        check(tmp_path, answering(1), close)


def test_missing_outputs_are_named(tmp_path):
    def more(images):
        return {**answering(1)(images), "more": images}

    with pytest.raises(ValueError, match=r"'more', 'score'\].*from 'serving_default'"):
        check(tmp_path, more, answering(1))
