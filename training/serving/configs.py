"""Files that TensorFlow Serving reads beside the models: `models.config`, templates.

`models.config` names all models of a folder, the versions that are served, and their
labels:

- `canary` is the newest version;
- `stable` stays as it is, or is the newest version if there was none. Once the newest
  version is trusted, its number is put there by hand or with `promote`.

Only versions with a label are served. The server rereads the file regularly, so an
export or a changed label takes effect without a restart.
"""

import importlib.resources
import pathlib
import re

from keras_attn.pipelines.files import write_then_rename

NAME = "models.config"
# Path of the folder of all models inside the container.
MOUNTED = "/models"
# Files beside all models, and those of a single one, in which NAME is its name.
COMMON = ("batching.config", "monitoring.config", "compose.yaml", "kubernetes.yaml")
OF_A_MODEL = ("kserve.yaml",)
TRITON_TYPES = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16"}


def versions_of(folder):
    """The versions of a model, rising.

    Args:
        folder: Folder of the model, with a folder for each version.
    """
    return sorted(
        int(path.parent.name)
        for path in pathlib.Path(folder).glob("*/saved_model.pb")
        if path.parent.name.isdecimal()
    )


def models_of(folder):
    """Dict from the names of the models in a folder to their versions, rising."""
    found = {
        path.name: versions_of(path)
        for path in sorted(pathlib.Path(folder).iterdir())
        if path.is_dir()
    }
    return {name: versions for name, versions in found.items() if versions}


def read_models_config(folder):
    """The `ModelServerConfig` of a folder, empty where there is none.

    Raises:
        ValueError: If the file cannot be read.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    path = pathlib.Path(folder) / NAME
    if path.exists():
        try:
            text_format.Parse(path.read_text(), config)
        except (text_format.ParseError, UnicodeDecodeError, OSError) as error:
            raise ValueError(f"Cannot read {path}: {error}") from error
    return config


def write_models_config(folder, promote=()):
    """Brings `models.config` up to date with the models of a folder.

    Entries of other models, and other fields of an entry, stay as they are.

    Args:
        folder: Folder of all models.
        promote: Names of models whose newest version becomes `stable`.

    Returns:
        The path.

    Raises:
        ValueError: If the file cannot be read, or a model to promote is not there.
    """
    folder = pathlib.Path(folder)
    config = read_models_config(folder)
    models = models_of(folder)
    for name in promote:
        if name not in models:
            raise ValueError(
                f"Expected a model in {folder}: {', '.join(models) or 'none'}. "
                f"Received: {name!r}"
            )
    entries = config.model_config_list.config
    known = {entry.name: entry for entry in entries}
    for name, versions in models.items():
        entry = known.get(name)
        if entry is None:
            entry = entries.add(
                name=name, base_path=f"{MOUNTED}/{name}", model_platform="tensorflow"
            )
        _label(entry, versions, name in promote)
    path = folder / NAME
    with write_then_rename(path) as file:
        file.write(_as_text(config).encode())
    return path


def _label(entry, versions, promoted):
    labels, newest = entry.version_labels, versions[-1]
    for label, version in list(labels.items()):
        if version not in versions:
            del labels[label]
    labels["canary"] = newest
    if promoted or "stable" not in labels:
        labels["stable"] = newest
    policy = entry.model_version_policy
    # Another policy was chosen on purpose.
    if policy.WhichOneof("policy_choice") in (None, "specific"):
        del policy.specific.versions[:]
        policy.specific.versions.extend(sorted(set(labels.values())))


def _as_text(config):
    from google.protobuf import text_format

    heading = (
        "# Written by `keras-attn export`, which keeps what is changed here: put a\n"
        "# version's number behind the label stable once it is trusted.\n"
    )
    return heading + text_format.MessageToString(config)


def write_templates(folder, name):
    """Writes the files that the server needs beside the models, where they are missing.

    Args:
        folder: Folder of all models.
        name: Name of the exported model.

    Returns:
        The paths written.
    """
    folder = pathlib.Path(folder)
    written = []
    for file in (*COMMON, *OF_A_MODEL):
        target = (folder / name if file in OF_A_MODEL else folder) / file
        if not target.exists():
            with write_then_rename(target) as opened:
                opened.write(template(file, name).encode())
            written.append(target)
    return written


def template(file, name="NAME"):
    """The text of a template.

    Args:
        file: One of `COMMON` and `OF_A_MODEL`.
        name: Name of a model.
    """
    templates = importlib.resources.files("keras_attn.training.serving") / "templates"
    text = (templates / file).read_text()
    # Kubernetes wants names of lower-case letters, digits and hyphens.
    dns_name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return text.replace("DNS_NAME", dns_name).replace("NAME", name)


def write_triton(file):
    """Writes `config.pbtxt` beside the versions of an ONNX file, if it is missing.

    Triton then serves the folder above as a repository in which the model is `onnx`.

    Args:
        file: `NAME/onnx/VERSION/model.onnx`.
    """
    import onnx

    target = file.parent.parent / "config.pbtxt"
    if target.exists():
        return
    graph = onnx.load(file, load_external_data=False).graph
    lines = [
        "# tritonserver --model-control-mode explicit --load-model onnx",
        f"#   --model-repository {target.parent.parent.name}",
        'platform: "onnxruntime_onnx"',
        "max_batch_size: 32",
        "dynamic_batching { }",
    ]
    for kind, tensors in (("input", graph.input), ("output", graph.output)):
        for tensor in tensors:
            found = tensor.type.tensor_type
            dims = [size.dim_value or -1 for size in found.shape.dim[1:]]
            # One number per image has a dimension in Triton.
            shape = f"dims: {dims}" if dims else "dims: [1] reshape { shape: [] }"
            dtype = onnx.TensorProto.DataType.Name(found.elem_type)
            dtype = TRITON_TYPES.get(dtype, dtype)
            lines.append(
                f'{kind} {{ name: "{tensor.name}" data_type: TYPE_{dtype} {shape} }}'
            )
    with write_then_rename(target) as opened:
        opened.write("\n".join([*lines, ""]).encode())
