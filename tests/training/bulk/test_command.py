import json
import os
import subprocess
import sys

import pytest
import yaml

from keras_attn.training import cli
from keras_attn.training.bulk import local
from tests.training import tiny_models as tiny
from tests.training.bulk import jobs


@pytest.fixture
def given(tmp_path, monkeypatch):
    jobs.photos(tmp_path / "photos")
    tiny.save_colour_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "start", jobs.Forked)
    return tmp_path


JOB = "colours.keras photos --output out --shard 4 --quiet"


def running(capsys, command, code=0):
    assert cli.main(command.split()) == code
    return capsys.readouterr()


@pytest.mark.parametrize(
    ("task", "merged"), [("predict", "merged.jsonl"), ("embed", "index")]
)
def test_a_job(given, capsys, task, merged):
    form = "--format jsonl" if task == "predict" else ""
    out = running(capsys, f"bulk {task} {JOB} {form} --part 2/2").out
    assert out == "out: results of 7 of 7 images of this part\n"
    out = running(capsys, "bulk status out", 3).out
    assert out == "out: results of 7 of 15 images\n"
    running(capsys, f"bulk {task} {JOB} {form} --workers 2")
    state = json.loads(running(capsys, "bulk status out --json").out)
    assert state == {"images": 15, "done": 15, "waiting": 0, "aside": []}
    out = running(capsys, "bulk merge out").out
    assert out == f"out/{merged}: 15 images\n" and (given / "out" / merged).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("bulk predict {job} --part 0/4", "a part I/N with I from 1 to N"),
        ("bulk predict {job} --part x", "Received: 'x'"),
        ("bulk predict {job} --workers 0", "workers=0"),
        ("bulk predict {job} --runner rya", "The nearest is 'ray'"),
        ("bulk predict {job} --address 127.0.0.1:1", "an address with the runner ray"),
        ("bulk predict {job} --top 0", "top=0"),
        ("bulk predict colours.keras out.csv --output out", "does not exist"),
        ("bulk predict colours.keras empty --output out", "empty, which holds none"),
        ("bulk explain {job} --method grad", "grad_cam"),
        ("bulk localize {job}", "Expected a localiser"),
        ("bulk masks {job}", "or one that gives maps"),
        ("bulk predikt {job}", "The nearest is 'predict'"),
        ("bulk status photos", "without plan.json"),
        ("bulk merge photos", "without plan.json"),
    ],
)
def test_wrong_input_is_one_line(given, capsys, options, words):
    (given / "empty").mkdir()
    assert cli.main(options.format(job=JOB).split()) == 2
    error = capsys.readouterr().err
    assert words in error, error
    assert error.startswith(("error: ", "usage: "))
    assert len(error.strip().split("error: ")[-1].splitlines()) == 1
    assert not list(given.glob("out/0*"))


def test_another_job_in_the_folder_is_refused(given, capsys):
    running(capsys, f"bulk predict {JOB}")
    line = running(capsys, f"bulk predict {JOB} --top 1", 2).err
    assert "top=5 there, 1 now" in line and len(line.splitlines()) == 1
    plan = given / "out" / "plan.json"
    plan.write_bytes(plan.read_bytes()[:99])
    line = running(capsys, f"bulk predict {JOB}", 2).err
    assert "plan.json, which is damaged" in line


@pytest.mark.parametrize("kind", ["slurm", "kubernetes"])
def test_manifests(given, capsys, kind):
    command = "bulk predict my\\ model.keras photos --output=out --workers 6"
    words = [*command.replace("\\ ", "\0").split(), "--manifest", kind]
    assert cli.main([word.replace("\0", " ") for word in words]) == 0
    text = capsys.readouterr().out
    if kind == "slurm":
        assert "#SBATCH --array=1-6\n" in text
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
        run, last = ["bash", "-c", text], {"SLURM_ARRAY_TASK_ID": "6"}
    else:
        (job,) = yaml.safe_load_all(text)
        assert job["spec"]["completions"] == job["spec"]["parallelism"] == 6
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["workingDir"] == str(given)
        run = container["command"] + container["args"]
        last = {"JOB_COMPLETION_INDEX": "5"}
    program = given / "bin" / "keras-attn"
    program.parent.mkdir()
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        run, env={"PATH": path, **last}, capture_output=True, text=True, check=True
    )
    parsed = cli.parser().parse_args(json.loads(done.stdout))
    assert (parsed.action, parsed.model, parsed.source, parsed.output) == (
        "predict",
        "my model.keras",
        "photos",
        "out",
    )
    assert (parsed.part, parsed.workers, parsed.manifest) == ("6/6", 1, None)
