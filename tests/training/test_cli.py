import json
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from keras_attn.pipelines.files import write_then_rename
from keras_attn.pipelines.progress import QUIET
from keras_attn.training import cli
from keras_attn.training.recipes.registry import RECIPES
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import Progress
from keras_attn.training.serving import warmup
from tests.training import tiny_models as tiny


def failing(capsys, *arguments):
    """Runs a command that must fail; its one line on stderr."""
    assert cli.main([str(each) for each in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def running(capsys, *arguments):
    assert cli.main([str(each) for each in arguments]) == 0
    return capsys.readouterr().out


# ---- arguments -----------------------------------------------------------------------


def command(*arguments, options=("-X", "importtime"), **environment):
    """Runs a command in a process of its own, as a shell would."""
    return subprocess.run(
        [sys.executable, *options, "-m", "keras_attn.training.cli"]
        + [str(each) for each in arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("argument", ["--help", "recipes"])
def test_help_and_recipes_import_nothing_heavy(argument):
    done = command(argument)
    assert done.returncode == 0
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "keras_attn.training.commands" in imported
    assert not imported & {"tensorflow", "keras", "numpy", "matplotlib"}
    if argument == "recipes":
        for name in RECIPES:
            assert f"\n{name} " in done.stdout
        assert "\nclass_embedding_table1_cifar10\n" in done.stdout


def test_a_command_in_its_own_process_loads_every_registered_class(tmp_path):
    """There `import keras_attn` alone registers nothing."""
    path = tiny.save_colour_model(tmp_path)
    file = tiny.save_image(tmp_path / "x.png", tiny.plain_image(green=99))
    done = command("predict", path, file)
    assert "green" in done.stdout, done.stderr
    assert "keras_attn.losses.patch_crossentropy\n" in done.stderr


def test_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "keras_attn.training.cli", "summry"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Received: 'summry'. The nearest is 'summary'." in done.stderr


def test_every_command_has_help(capsys):
    commands = "recipes summary train evaluate predict explain export data reproduce"
    for command in [*commands.split(), "demo"]:
        assert f"keras-attn {command}" in running(capsys, command, "--help")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required: COMMAND"),
        (["train", "--data"], "expected one argument"),
        (["evaluate", "x", "--split", "tests"], "nearest is 'test'"),
        (["predict", "x", "y", "--top", "two"], "invalid int value: 'two'"),
        (["explain", "x", "y"], "required: --output"),
        (["explain", "x", "y", "--output", "z", "--top", "1", "--classes", "a"], "not"),
        (["train", "--work", "x"], "unrecognized arguments: --work"),
        (
            ["finetune", "photos", "--from", "net.keras", "--blocks", "cbam"],
            "unrecognized arguments: --blocks cbam. The nearest is '--block'.",
        ),
        (["exit-policy", "ftt"], "Received: 'ftt'. The nearest is 'fit'."),
        (["masks", "x", "y", "--out"], "--output: expected one argument"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    assert cli.main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors.splitlines()[-1]
    assert errors.splitlines()[-1].startswith("error: ")


def test_recipes_by_pattern_and_method(capsys):
    lines = running(capsys, "recipes", "flowers", "--method", "anchornet").splitlines()
    assert lines[0].startswith("RECIPE: anchornet ")
    found = {line.split()[0] for line in lines[1:] if line} - {"EXPERIMENT"}
    assert found and all("flowers" in name for name in found)
    assert {RECIPES[name].method for name in found & set(RECIPES)} == {"anchornet"}
    (name,) = running(capsys, "recipes", "generated_*_dino").splitlines()[1].split()[:1]
    assert RECIPES[name].method == "dino"
    assert "Nearest: generated_rn26" in failing(
        capsys, "recipes", "generated_rn26_clas_"
    )
    assert "FIELD" in running(capsys, "recipes", "generated_rn26_baseline")


def test_help_has_the_keys_of_every_method(capsys):
    text = " ".join(running(capsys, "train", "--help").split())
    shared = text.partition("keys of --set, all recipes: ")[2]
    assert "learning_rate" in shared[:400]
    assert "grey" in shared.partition("method dino: ")[2][:400]


def test_out_is_a_silent_alias_of_output(capsys):
    for arguments in (["--out", "a=b"], ["--out=a=b"], ["--output", "a=b"]):
        assert cli.parser().parse_args(["masks", "x", "y", *arguments]).output == "a=b"
    assert "--out " not in running(capsys, "masks", "--help")


@pytest.mark.parametrize("command", ["summary", "train"])
def test_unknown_recipes_and_keys_name_the_nearest(capsys, command):
    message = failing(capsys, command, "generated_rn26_class_embeding")
    assert "generated_rn26_class_embedding" in message
    recipe = "generated_rn26_baseline"
    message = failing(capsys, command, recipe, "--set", "epoch=2")
    assert "Did you mean 'epochs'?" in message
    message = failing(capsys, command, recipe, "--set", "epochs=two")
    assert "an integer" in message
    message = failing(capsys, command, recipe, "--set", "dataset=cifr10")
    assert "cifar10" in message


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="name of a recipe"):
        cli.main(["summary", "nothing", "--debug"])


def test_defects_keep_their_traceback(monkeypatch):
    def broken(*arguments):
        raise KeyError("defect")

    monkeypatch.setattr("keras_attn.training.fit.summary.summarize", broken)
    with pytest.raises(KeyError):
        cli.main(["summary", "generated_rn26_baseline"])


@pytest.mark.parametrize(
    "module, arguments",
    [
        ("tensorflow", ["train"]),
        ("PIL", ["data", "generated"]),
        ("matplotlib", ["report", "run"]),
    ],
)
def test_a_missing_package_is_one_line_with_its_extra(tmp_path, module, arguments):
    missing = f"raise ModuleNotFoundError('missing', name={module!r})"
    (tmp_path / f"{module}.py").write_text(missing)
    done = command(*arguments, options=(), PYTHONPATH=str(tmp_path))
    expected = f'error: {module} is not installed: pip install "keras-attn[train]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


@pytest.mark.parametrize(
    "error, message",
    [
        (ModuleNotFoundError("gone", name="aiohttp.web"), '"keras-attn[serving]"'),
        (ModuleNotFoundError("gone", name="flask"), '"keras-attn[view]"'),
        (ModuleNotFoundError("gone", name="other"), "error: gone"),
        (ImportError("pip install 'keras-attn[datasets]'"), "keras-attn[datasets]"),
    ],
)
def test_missing_extra_is_an_error(capsys, monkeypatch, error, message):
    def missing(*arguments):
        raise error

    monkeypatch.setattr("keras_attn.training.fit.summary.summarize", missing)
    assert message in failing(capsys, "summary", "generated_rn26_baseline")


# ---- train ---------------------------------------------------------------------------


def fake_training(monkeypatch, end=None, epochs=2):
    """`fit.train` that writes a run folder with `epochs` epochs, then ends with `end`.

    Returns the list of its arguments.
    """
    calls = []

    def train(recipe, workdir, data=None, on_corrupt="error"):
        calls.append((recipe, str(workdir), data, on_corrupt))
        run = Run.create(workdir, recipe)
        history = [
            {"epoch": epoch, "val_logits_accuracy": epoch / 10}
            for epoch in range(1, epochs + 1)
        ]
        progress = Progress(history, best=epochs / 10, best_epoch=epochs - 1)
        state = {"progress": np.array(json.dumps(vars(progress)))}
        with write_then_rename(run.checkpoints / "last.npz") as file:
            np.savez(file, **state)
        (run.checkpoints / "best.keras").touch()
        if end is not None:
            raise end
        return run

    monkeypatch.setattr("keras_attn.training.fit.train.train", train)
    return calls


def test_train_passes_everything_on(capsys, monkeypatch, tmp_path):
    calls = fake_training(monkeypatch)
    workdir = tmp_path / "run"
    out = running(
        capsys,
        *("train", "cifar10_rn26_baseline", "--workdir", workdir),
        *("--data", "images.tar", "--on-corrupt", "skip", "--mixed-precision"),
        *("--set", "epochs=3", "seed=7", "--set", "batch_size=64"),
    )
    ((recipe, folder, data, on_corrupt),) = calls
    assert (recipe.name, folder) == ("cifar10_rn26_baseline", str(workdir))
    assert (recipe.epochs, recipe.seed, recipe.batch_size) == (3, 7, 64)
    assert recipe.dtype_policy == "mixed_bfloat16"
    assert (data, on_corrupt) == ("images.tar", "skip")
    assert "Validation accuracy, best epoch (2): 20.00 %" in out
    assert f"Model: {workdir}/checkpoints/best.keras" in out
    assert f"keras-attn evaluate {workdir} --data images.tar" in out


def test_train_has_a_default_recipe_and_folder(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    calls = fake_training(monkeypatch)
    running(capsys, "train")
    ((recipe, folder, data, on_corrupt),) = calls
    assert recipe.name == "generated_rn26_class_embedding"
    assert folder == "runs/generated_rn26_class_embedding"
    assert (data, on_corrupt, recipe.dtype_policy) == (None, "error", "float32")


def test_interrupt_is_no_error(capsys, monkeypatch, tmp_path):
    fake_training(monkeypatch, KeyboardInterrupt())
    assert cli.main(["train", "--workdir", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err.strip() == "Interrupted."
    assert Run.open(tmp_path / "run")


def test_divergence_and_full_disks_are_errors(capsys, monkeypatch, tmp_path):
    from keras_attn.training.fit.callbacks import NotFiniteError, SaveError

    for number, error in enumerate((NotFiniteError("NaN at 3"), SaveError("full"))):
        fake_training(monkeypatch, error)
        workdir = tmp_path / str(number)
        assert str(error) in failing(capsys, "train", "--workdir", workdir)


def test_folder_of_another_recipe(capsys, monkeypatch, tmp_path):
    fake_training(monkeypatch)
    workdir = tmp_path / "run"
    running(capsys, "train", "--workdir", workdir)
    message = failing(capsys, "train", "--workdir", workdir, "--set", "seed=3")
    assert "belongs to another recipe: seed=0 there, 3 now" in message
    message = failing(capsys, "train", "--workdir", tmp_path)
    assert "holds something else" in message


def test_bad_data_before_training(capsys, tmp_path):
    train = ["train", "--workdir", tmp_path / "run", "--set", "dataset=folder"]
    message = failing(capsys, *train, "--data", tmp_path / "nowhere")
    assert "nowhere" in message
    (tmp_path / "empty").mkdir()
    message = failing(capsys, *train, "--data", tmp_path / "empty")
    assert "Expected images" in message
    tiny.save_image(tmp_path / "one" / "cat" / "1.png", tiny.plain_image())
    message = failing(capsys, *train, "--data", tmp_path / "one")
    assert "at least 2 classes" in message


# ---- summary, evaluate, predict, explain, export, data -------------------------------


def test_summary_as_json(capsys):
    out = running(capsys, "summary", "cifar10_resnet20_bn_relu_batch8", "--json")
    result = json.loads(out)
    assert result["outputs"] == {"logits": [None, 10]}
    assert list(result["maps"]) == ["stage1", "stage2", "stage3"]
    assert {"trainable_params", "multiply_adds"} <= set(result)


def test_evaluate(capsys, tmp_path):
    run = tiny.generated_run(tmp_path / "run")
    result = json.loads(running(capsys, "evaluate", run.workdir, "--json"))
    assert (result["split"], result["examples"]) == ("test", 20)
    assert (run.workdir / "evaluation.json").exists()
    message = failing(capsys, "evaluate", run.workdir, "--data", tmp_path)
    assert "generated data set reads no files" in message
    message = failing(capsys, "evaluate", tmp_path / "nothing")
    assert "nothing, which does not exist" in message


def test_evaluate_says_when_there_is_no_test_set(capsys, tmp_path):
    path = tiny.save_colour_model(tmp_path)
    data = tiny.colour_folder(tmp_path / "images")
    assert cli.main(["evaluate", str(path), "--data", str(data)]) == 0
    captured = capsys.readouterr()
    assert captured.err.strip() == "No test images; evaluated on split 'all'."
    assert "accuracy        100.00 %" in captured.out


def test_predict(capsys, tmp_path):
    path = tiny.save_colour_model(tmp_path)
    file = tiny.save_image(tmp_path / "in" / "x.png", tiny.plain_image(green=99))
    result = json.loads(running(capsys, "predict", path, file, "--top", 2, "--json"))
    assert [entry["image"] for entry in result] == [str(file)]
    assert [each["class"] for each in result[0]["predictions"]] == ["green", "red"]
    assert "%  green" in running(capsys, "predict", path, tmp_path / "in")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    message = failing(capsys, "predict", path, tmp_path / "in")
    assert "bad.jpg: not an image" in message
    arguments = ["predict", path, tmp_path / "in", "--on-corrupt", "skip"]
    assert cli.main([str(each) for each in arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"skipped: {tmp_path}/in/bad.jpg")
    assert "green" in captured.out


def test_explain(capsys, tmp_path):
    path = tiny.save_colour_model(tmp_path)
    file = tiny.save_image(tmp_path / "x.png", tiny.plain_image(green=99))
    arguments = ["explain", path, file, "--output", tmp_path / "out"]
    out = running(capsys, *arguments, "--classes", "blue", "red")
    assert out.split() == [f"{tmp_path}/out/x.png", f"{tmp_path}/out/overview.png"]
    message = failing(capsys, *arguments, "--classes", "gren")
    assert "nearest is 'green'" in message
    message = failing(capsys, *arguments, "--layer", "pool")
    assert "grad_cam" in message


def test_export_and_promote(capsys, tmp_path):
    path = tiny.save_colour_model(tmp_path)
    arguments = ["export", path, "--name", "shop", "--output", tmp_path / "saved"]
    out = running(capsys, *arguments)
    assert out.startswith(f"{tmp_path}/saved/shop/1\n")
    message = failing(capsys, *arguments, "--version", 1)
    assert "Expected a new version" in message
    if not warmup.has_protos():
        assert "pip install 'keras-attn[serving]'" in out
        return
    (tmp_path / "saved" / "shop" / "1").rename(tmp_path / "saved" / "shop" / "5")
    out = running(capsys, "promote", "shop", "--output", tmp_path / "saved")
    assert out == f"{tmp_path}/saved/models.config\n"
    assert "value: 5" in (tmp_path / "saved" / "models.config").read_text()


def test_data_counts_and_draws(capsys, tmp_path):
    picture = tmp_path / "sheets" / "generated.png"
    out = running(
        capsys,
        *("data", "generated", "--set", "examples=120", "image_size=32"),
        *("--split", "official", "--output", picture, "--examples-per-class", 3),
    )
    assert "generated: 120 images, 10 classes" in out
    totals = [line.split()[1] for line in out.splitlines() if line.startswith("total")]
    assert totals == ["90", "10", "20"]
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.size[0] > 3 * 64


def test_quiet_is_that_commands_alone(tmp_path):
    tiny.save_image(tmp_path / "one" / "1.png", tiny.plain_image())
    cli.main(["data", str(tmp_path), "--check", "--quiet"])
    assert QUIET.get() is False


def test_data_of_a_folder_with_a_corrupt_image(capsys, tmp_path):
    folder = tiny.colour_folder(tmp_path / "images")
    (folder / "green" / "0.png").write_bytes(b"\x89PNG broken")
    picture = tmp_path / "sheet.png"
    arguments = ["data", "folder", "--data", folder, "--output", picture]
    assert "green/0.png" in failing(capsys, *arguments)
    assert not picture.exists()
    out = running(capsys, *arguments, "--on-corrupt", "skip")
    assert "green         2" in out
    assert f"skipped: {folder}/green/0.png: not an image" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["cifar11"], "Did you mean 'cifar10'"),
        (["folder"], "--data"),
        (["generated", "--set", "size=32"], "with a key of examples, image_size"),
        (["generated", "--set", "image_size=big"], "of type int"),
        (["generated", "--set", "image_size=8"], "number in [32, 448]"),
        (["cifar10", "--set", "examples=9"], "only for generated"),
        (["generated", "--output", "x.txt"], "a PNG file"),
        (["generated", "--examples-per-class", "0"], "at least one example"),
        (["generated", "--set", "examples=120", "--split", "offical"], "'official'"),
    ],
)
def test_wrong_arguments_of_data(capsys, arguments, message):
    assert message in failing(capsys, "data", *arguments)


# ---- reproduce, demo -----------------------------------------------------------------


def test_reproduce_and_demo_pass_everything_on(capsys, monkeypatch):
    calls = []

    def record(*arguments, **options):
        calls.append((*arguments, options))

    stand_in = types.SimpleNamespace(reproduce=record, demo=record)
    for name in ("experiments.reproduce", "demo"):
        monkeypatch.setitem(sys.modules, f"keras_attn.training.{name}", stand_in)
    running(
        capsys,
        *("reproduce", "table", "--data", "d", "--workdir", "w", "--results", "r"),
        *("--seeds", 3, "--rows", "one", "two", "--set", "epochs=2"),
        *("--on-corrupt", "skip"),
    )
    running(capsys, "demo", "--workdir", "here")
    expected = {
        "data": "d",
        "workdir": "w",
        "results_folder": "r",
        "seeds": 3,
        "rows": ["one", "two"],
        "overrides": ["epochs=2"],
        "on_corrupt": "skip",
    }
    assert calls == [("table", expected), ("here", {})]


def test_defaults_of_reproduce():
    arguments = cli.parser().parse_args(["reproduce", "table"])
    assert (arguments.workdir, arguments.results) == ("runs", "results")
    assert (arguments.data, arguments.seeds, arguments.rows) == (None, 1, None)
    assert (arguments.set, arguments.on_corrupt) == ([], "error")
