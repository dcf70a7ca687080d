"""Requests that TensorFlow Serving answers before it takes a new version into use."""

import numpy as np

from keras_attn.training.serving.signatures import LABEL, PIXELS, input_of

FOLDER = "assets.extra"
NAME = "tf_serving_warmup_requests"
MISSING = (
    "Without warm-up requests and models.config, which need tensorflow-serving-api: "
    "pip install 'keras-attn[serving]'"
)


def has_protos():
    """Tests whether TensorFlow Serving's protocol buffers are installed."""
    try:
        import tensorflow_serving.apis  # noqa: F401
    except ImportError:
        return False
    return True


def write_warmup(name, signatures, spec, folder):
    """Writes a request for each signature, of one grey image.

    Args:
        name: Name of the served model.
        signatures: Dict from the names of the signatures to `ServedAnswer`.
        spec: `ImageSpec` of the model.
        folder: The SavedModel.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    target = folder / FOLDER / NAME
    with tf.io.TFRecordWriter(str(target)) as writer:
        for signature, answer in signatures.items():
            request = request_of(name, signature, spec)
            if answer.labelled:
                label = tf.make_tensor_proto([-1], tf.int32)
                request.inputs[LABEL].CopyFrom(label)
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


def request_of(name, signature, spec):
    """A `PredictRequest` with one grey image of the model's size."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    shape = (spec.height, spec.width, 3)
    if signature == PIXELS:
        # One value, which stands for all, keeps the file small.
        given = tf.make_tensor_proto(127.0, tf.float32, (1, *shape))
    else:
        grey = tf.constant(np.full(shape, 127, "uint8"))
        given = tf.make_tensor_proto([tf.io.encode_png(grey).numpy()])
    request.inputs[input_of(signature)].CopyFrom(given)
    return request
