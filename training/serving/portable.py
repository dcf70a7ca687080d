"""ONNX, LiteRT and OpenVINO files that take raw pixels, checked after writing.

All leave out texts, such as `class`. A LiteRT file takes one image at a time, as
telephones do; the others any number.
"""

import contextlib
import json
import logging
import os
import re
import tempfile

import keras
import numpy as np

from keras_attn.graph.keras_graph import traced_once
from keras_attn.ops.tracing import NAMES, traced_for
from keras_attn.training.serving.agreement import check_outputs, run_once
from keras_attn.training.serving.saved_model import add_endpoint
from keras_attn.training.serving.signatures import (
    TEXTS,
    example_images,
    with_probabilities,
)

FILES = {"onnx": "model.onnx", "litert": "model.tflite", "openvino": "model.xml"}
OPSET = 18


def write_portable(format, trained, answer, folder):
    """Writes a model file and compares its answers with the Keras model's.

    Args:
        format: One of `FILES`.
        trained: `Trained`.
        answer: `ServedAnswer` of the signature `image`.
        folder: Folder to write to.

    Raises:
        ValueError: If the format has no such operation, or the file disagrees with the
            model.
        ImportError: If a package is missing.
    """
    import tensorflow as tf

    (network,) = answer.networks
    network, shape = _without_fitting(network, trained.spec)

    def portable(images):
        return with_probabilities(dict(network(images, training=False)))

    def expected(images):
        outputs = answer.function(images)
        return {name: value for name, value in outputs.items() if name not in TEXTS}

    file = folder / FILES[format]
    folder.mkdir()
    convert, run = {
        "onnx": (_write_onnx, _run_onnx),
        "litert": (_write_litert, _run_litert),
        "openvino": (_write_openvino, _run_openvino),
    }[format]
    with traced_for(format):
        try:
            convert(portable, network, shape, trained, file)
        except ValueError as error:
            # Keras puts lines around what a layer raises.
            reason = re.search(r"^.*cannot express .*$", str(error), re.MULTILINE)
            plain = reason and re.sub(r"\x1b\[\d+m", "", reason.group())
            raise ValueError(plain or str(error)) from error
    pixels = tf.cast(example_images(trained.spec), tf.float32)
    what = f"the {NAMES[format]} file"
    received = run_once(what, lambda: run(file, pixels.numpy()))
    check_outputs(what, expected, expected(pixels), received, trained.model, pixels)


def _without_fitting(network, spec):
    """The network, behind a layer that fits images of any size, and its input shape.

    ONNX and LiteRT cannot resize images of any size; such a file takes images of the
    model's size.
    """
    first = [layer for layer in network.layers if layer.name == "fitted"]
    if first:
        network = keras.Model(first[0].output, network.output, name=network.name)
        return network, (None, spec.height, spec.width, 3)
    return network, tuple(network.inputs[0].shape)


def _refuse(format, operations, trained):
    raise ValueError(
        f"{NAMES[format]} cannot express {trained.name}: it has no operation "
        f"{', '.join(sorted(set(operations)))}. Nothing was written; the format "
        "saved_model has them all."
    )


# ---- ONNX --------------------------------------------------------------------------


def _write_onnx(function, network, shape, trained, file):
    import tensorflow as tf

    try:
        import onnx
        import onnxruntime  # noqa: F401
        import tf2onnx
    except ImportError as error:
        raise ImportError(
            f"ONNX needs {error.name}: pip install 'keras-attn[onnx]'"
        ) from error
    signature = [tf.TensorSpec(shape, tf.float32, "images")]
    # What it cannot convert is an error below, not lines of a log.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    model, _ = tf2onnx.convert.from_function(
        tf.function(function, signature, autograph=False),
        signature,
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, []), "SelectV2": (_select, [])},
    )
    unknown = [name for name in _operations(model.graph) if not onnx.defs.has(name)]
    if unknown:
        _refuse("onnx", unknown, trained)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    names = json.dumps(list(trained.class_names))
    onnx.helper.set_model_props(model, {"name": trained.name, "class_names": names})
    onnx.save(model, file)


def _erfc(context, node, name, _):
    """`erfc`, a part of GELU, as 1 - `erf`."""
    (given,), (output,) = node.input, node.output
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    context.remove_node(node.name)
    erf = context.make_node("Erf", [given]).output[0]
    one = context.make_const(f"{name}_one", np.array(1, "float32")).output[0]
    context.make_node(
        "Sub", [one, erf], outputs=[output], name=name, shapes=[shape], dtypes=[dtype]
    )


def _select(context, node, name, _):
    """`where`; tf2onnx multiplies by 0 and 1 instead, wrong for infinities."""
    import onnx

    (condition, first, second), (output,) = node.input, node.output
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    context.remove_node(node.name)
    last = {"outputs": [output], "name": name, "shapes": [shape], "dtypes": [dtype]}
    if dtype != onnx.TensorProto.BOOL:
        context.make_node("Where", [condition, first, second], **last)
        return
    # ONNX Runtime has no `Where` of truth values.
    opposite = context.make_node("Not", [condition]).output[0]
    taken = [
        context.make_node("And", pair).output[0]
        for pair in ([condition, first], [opposite, second])
    ]
    context.make_node("Or", taken, **last)


def _operations(graph):
    """Names of all operations, including those of nested graphs."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            for nested in (attribute.g, *attribute.graphs):
                yield from _operations(nested)


def _run_onnx(file, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))


# ---- LiteRT ------------------------------------------------------------------------


def _write_litert(function, network, shape, trained, file):
    import tensorflow as tf

    size = [given or own for given, own in zip(shape[1:3], _size(trained), strict=True)]
    archive = keras.export.ExportArchive()
    archive.track(network)
    given = tf.TensorSpec((1, *size, 3), tf.float32, "images")
    add_endpoint(archive, "image", function, [given])
    with tempfile.TemporaryDirectory() as folder:
        with traced_once():
            archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["image"]
        )
        try:
            with _quiet():
                content = converter.convert()
        except Exception as error:
            operations = re.findall(r"'tf\.(\w+)' op is neither", str(error))
            if not operations:
                raise
            _refuse("litert", operations, trained)
    file.write_bytes(content)


def _size(trained):
    return trained.spec.height, trained.spec.width


def _run_litert(file, images):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter
    with _quiet():
        interpreter = Interpreter(str(file))
        run = interpreter.get_signature_runner("image")
        answers = [run(images=images[i : i + 1]) for i in range(len(images))]
    return {
        name: np.concatenate([answer[name] for answer in answers])
        for name in answers[0]
    }


@contextlib.contextmanager
def _quiet():
    """Context that hides messages of compiled code on stderr."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# ---- OpenVINO ----------------------------------------------------------------------


def _write_openvino(function, network, shape, trained, file):
    import tensorflow as tf

    try:
        import openvino
    except ImportError as error:
        raise ImportError("OpenVINO needs openvino: pip install openvino") from error
    given = [tf.TensorSpec(shape, tf.float32, "images")]
    traced = tf.function(function, given, autograph=False).get_concrete_function()
    try:
        with _quiet():
            model = openvino.convert_model(traced)
    except Exception as error:
        operations = re.findall(r"^\s*(\w+) \(\d+ times\)", str(error), re.MULTILINE)
        _refuse("openvino", operations or [type(error).__name__], trained)
    for port in model.outputs:  # Which may have the name of a layer too.
        port.get_tensor().set_names(port.names & set(traced.structured_outputs))
    openvino.save_model(model, file, compress_to_fp16=False)


def _run_openvino(file, images):
    import openvino

    # By default, newer CPUs compute in bfloat16.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(file, "CPU", settings)
    answers = model({"images": images})
    return {next(iter(port.names)): value for port, value in answers.items()}
