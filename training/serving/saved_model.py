"""SavedModels that take encoded files and pixels."""

import keras

from keras_attn.graph.keras_graph import traced_once
from keras_attn.pipelines.images.orientation import read_orientation, turned
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.serving.signatures import LABEL, PIXELS, input_of


def write_saved_model(answers, model, spec, folder):
    """Writes a SavedModel with a signature for each answer.

    Args:
        answers: Result of `answers_of`.
        model: The Keras model whose images they take.
        spec: Its `ImageSpec`.
        folder: Folder to write to.
    """
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    for network in {id(each): each for each in _networks(answers)}.values():
        archive.track(network)
    decode = _decoder(spec)
    for signature, answer in answers.items():
        if signature == PIXELS:
            function, shape, dtype = answer.function, model.inputs[0].shape, tf.float32
        else:
            function = _bytes_endpoint(answer, decode)
            shape, dtype = (None,), tf.string
        given = [tf.TensorSpec(shape, dtype, input_of(signature))]
        if answer.labelled:
            given.append(tf.TensorSpec((None,), tf.int32, LABEL))
        add_endpoint(archive, signature, function, given)
    with traced_once():
        archive.write_out(str(folder), verbose=False)


def add_endpoint(archive, name, function, given):
    """Adds an endpoint that is traced now, and now alone.

    With a signature, and without the list, saving traces it again.
    """
    import tensorflow as tf

    traced = tf.function(function, autograph=False)
    concrete = traced.get_concrete_function(*given)
    traced._list_all_concrete_functions_for_serialization = lambda: [concrete]
    archive.add_endpoint(name, traced)


def _networks(answers):
    return [network for answer in answers.values() for network in answer.networks]


def _bytes_endpoint(answer, decode):
    if answer.labelled:
        return lambda image_bytes, label: answer.function(decode(image_bytes), label)
    return lambda image_bytes: answer.function(decode(image_bytes))


def _decoder(spec):
    """One graph function, which all signatures share."""
    import tensorflow as tf

    fit_size = ImagePreprocessing(spec).fit_size
    size = (spec.height, spec.width)

    def decode_one(data):
        # The decoder of `keras_attn.pipelines.images.decoding.decode_image`.
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        image = turned(image, read_orientation(data))
        # As in training, images of the right size stay as they are.
        image = tf.cond(
            tf.reduce_all(tf.equal(tf.shape(image)[:2], size)),
            lambda: image,
            lambda: tf.cast(fit_size(image), tf.uint8),
        )
        return tf.ensure_shape(image, (*size, 3))

    def decode(image_bytes):
        signature = tf.TensorSpec((*size, 3), tf.uint8)
        images = tf.map_fn(decode_one, image_bytes, fn_output_signature=signature)
        return tf.cast(images, tf.float32)

    return tf.function(decode, [tf.TensorSpec((None,), tf.string)], autograph=False)


def signatures_of(loaded):
    """Inputs and outputs of a SavedModel's signatures.

    Args:
        loaded: Result of `tf.saved_model.load`.

    Returns:
        Dict from names to dicts of `inputs` and `outputs`, each from names to dicts of
        `dtype` and `shape`, `None` where a size is open.
    """
    return {
        name: {
            "inputs": _described(signature.structured_input_signature[1]),
            "outputs": _described(signature.structured_outputs),
        }
        for name, signature in loaded.signatures.items()
    }


def _described(tensors):
    return {
        name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
        for name, spec in sorted(tensors.items())
    }
