"""Parsed by the protocol buffers and schemas where these are installed."""

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from keras_attn.training.serving import configs

yaml = pytest.importorskip("yaml")

# Of TensorFlow Serving, whose Python package leaves these two out: field names and
# numbers of BatchingParameters, each an Int64Value but for the last two.
BATCHING = {
    "max_batch_size": 1,
    "batch_timeout_micros": 2,
    "max_enqueued_batches": 3,
    "num_batch_threads": 4,
    "allowed_batch_sizes": 6,
    "pad_variable_length_inputs": 7,
}
FLAGS = {
    "--model_config_file=/models/models.config",
    "--model_config_file_poll_wait_seconds=30",
    "--allow_version_labels_for_unavailable_models=true",
    "--enable_batching=true",
    "--batching_parameters_file=/models/batching.config",
    "--monitoring_config_file=/models/monitoring.config",
    "--rest_api_timeout_in_ms=10000",
}


@pytest.fixture
def folder(tmp_path):
    add(tmp_path, "flowers", 1)
    add(tmp_path, "cars", 2, 10)
    (tmp_path / "flowers" / ".2.partial-7").mkdir()
    (tmp_path / "flowers" / "onnx" / "5").mkdir(parents=True)
    (tmp_path / "nothing").mkdir()
    return tmp_path


def add(folder, name, *versions):
    for version in versions:
        (folder / name / str(version)).mkdir(parents=True)
        (folder / name / str(version) / "saved_model.pb").touch()


def entries(folder):
    """The part that the server reads: labels and versions by name."""
    config_pb2 = pytest.importorskip(
        "tensorflow_serving.config.model_server_config_pb2"
    )
    config = config_pb2.ModelServerConfig()
    text_format.Parse((folder / configs.NAME).read_text(), config)
    return {
        each.name: (
            dict(each.version_labels),
            list(each.model_version_policy.specific.versions),
            each.base_path,
        )
        for each in config.model_config_list.config
    }


def test_all_models_and_versions_are_found(folder):
    assert configs.models_of(folder) == {"cars": [2, 10], "flowers": [1]}


def test_labels_say_which_version_is_trusted(folder):
    pytest.importorskip("tensorflow_serving")
    configs.write_models_config(folder)
    assert entries(folder) == {
        "cars": ({"canary": 10, "stable": 10}, [10], "/models/cars"),
        "flowers": ({"canary": 1, "stable": 1}, [1], "/models/flowers"),
    }
    add(folder, "flowers", 2, 3)
    configs.write_models_config(folder)
    assert entries(folder)["flowers"][:2] == ({"canary": 3, "stable": 1}, [1, 3])
    configs.write_models_config(folder, promote=["flowers"])
    assert entries(folder)["flowers"][:2] == ({"canary": 3, "stable": 3}, [3])
    with pytest.raises(ValueError, match="cars, flowers. Received: 'flower'"):
        configs.write_models_config(folder, promote=["flower"])


def test_what_was_changed_by_hand_is_kept(folder):
    pytest.importorskip("tensorflow_serving")
    (folder / configs.NAME).write_text(
        """
        model_config_list {
          config {
            name: "flowers" base_path: "/elsewhere/flowers"
            model_version_policy { all {} }
            version_labels { key: "gone" value: 9 }
            version_labels { key: "stable" value: 1 }
            logging_config { log_collector_config { type: "file" } }
          }
          config { name: "of another folder" base_path: "/there" }
        }
        """
    )
    add(folder, "flowers", 4)
    text = configs.write_models_config(folder).read_text()
    found = entries(folder)
    assert found["flowers"] == ({"canary": 4, "stable": 1}, [], "/elsewhere/flowers")
    assert set(found) == {"flowers", "of another folder", "cars"}
    assert 'type: "file"' in text and "all {" in text
    (folder / configs.NAME).write_text("model_config_list { config }")
    with pytest.raises(ValueError, match="Cannot read .*models.config"):
        configs.write_models_config(folder)


def test_templates_are_written_once(folder):
    written = configs.write_templates(folder, "flowers")
    assert {path.name for path in written} == {*configs.COMMON, *configs.OF_A_MODEL}
    (folder / "compose.yaml").write_text("mine")
    assert [path.name for path in configs.write_templates(folder, "cars")] == [
        "kserve.yaml"
    ]
    assert (folder / "compose.yaml").read_text() == "mine"
    assert "pvc://models/cars" in (folder / "cars" / "kserve.yaml").read_text()


# ---- the templates themselves ------------------------------------------------------


def message(name, fields):
    """An empty protocol buffer with `(name, number, kind, type)` fields."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", package="test", syntax="proto3"
    )
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    kinds = descriptor_pb2.FieldDescriptorProto
    described = file.message_type.add(name=name)
    for field, number, kind, label in fields:
        added = described.field.add(name=field, number=number, label=label)
        if isinstance(kind, str):
            added.type, added.type_name = kinds.TYPE_MESSAGE, kind
        else:
            added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}"))()


def test_batching_parameters():
    kinds = descriptor_pb2.FieldDescriptorProto
    wrapped = (".google.protobuf.Int64Value", kinds.LABEL_OPTIONAL)
    types = {
        "allowed_batch_sizes": (kinds.TYPE_INT64, kinds.LABEL_REPEATED),
        "pad_variable_length_inputs": (kinds.TYPE_BOOL, kinds.LABEL_OPTIONAL),
    }
    fields = [(name, n, *types.get(name, wrapped)) for name, n in BATCHING.items()]
    parameters = message("BatchingParameters", fields)
    text_format.Parse(configs.template("batching.config"), parameters)
    sizes = list(parameters.allowed_batch_sizes)
    # The server refuses to start otherwise.
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == parameters.max_batch_size.value == 32
    assert parameters.num_batch_threads.value >= 1


def test_monitoring_config():
    kinds = descriptor_pb2.FieldDescriptorProto
    prometheus = message(
        "PrometheusConfig",
        [
            ("enable", 1, kinds.TYPE_BOOL, kinds.LABEL_OPTIONAL),
            ("path", 2, kinds.TYPE_STRING, kinds.LABEL_OPTIONAL),
        ],
    )
    text = configs.template("monitoring.config")
    opening, inner = text.split("prometheus_config {")
    assert all(line.startswith("#") for line in opening.splitlines())
    text_format.Parse(inner.rstrip().removesuffix("}"), prometheus)
    assert prometheus.enable
    assert prometheus.path in configs.template("kubernetes.yaml")


def test_compose_file():
    (service,) = yaml.safe_load(configs.template("compose.yaml"))["services"].values()
    assert set(service["command"]) == FLAGS
    assert service["volumes"] == [".:/models:ro"]
    # Nobody but this machine reaches a server without passwords.
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    known = {"image", "command", "ports", "volumes", "restart", "stop_grace_period"}
    assert set(service) == known | {"healthcheck", "deploy"}


def test_kubernetes_manifests():
    deployment, service = yaml.safe_load_all(configs.template("kubernetes.yaml"))
    assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert set(container["args"]) == FLAGS
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    assert {each["targetPort"] for each in service["spec"]["ports"]} == set(ports)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        (action,) = set(container[probe]) & {"tcpSocket", "httpGet"}
        assert container[probe][action]["port"] in ports
    volumes = [each["name"] for each in pod["spec"]["volumes"]]
    assert [each["name"] for each in container["volumeMounts"]] == volumes


def test_kubernetes_manifests_fit_their_schema():
    validator = pytest.importorskip("kubernetes_validate")
    for manifest in yaml.safe_load_all(configs.template("kubernetes.yaml")):
        validator.validate(manifest, "1.30", strict=True)
        manifest["spec"]["replica"] = 1
        with pytest.raises(validator.ValidationError):
            validator.validate(manifest, "1.30", strict=True)


def test_kserve_manifest():
    manifest = yaml.safe_load(configs.template("kserve.yaml", "My_Flowers.v2"))
    assert manifest["apiVersion"] == "serving.kserve.io/v1beta1"
    assert manifest["kind"] == "InferenceService"
    assert manifest["metadata"] == {"name": "my-flowers-v2"}
    model = manifest["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "tensorflow"}
    assert model["storageUri"] == "pvc://models/My_Flowers.v2"
