"""The demo on the generated data set: train, evaluate, explain, export, report."""

import pathlib
import shutil
import time

import numpy as np
from PIL import Image

from keras_attn.pipelines.files import write_then_rename
from keras_attn.training.data import describe
from keras_attn.training.data.load import load_data, load_source_of
from keras_attn.training.evaluation import evaluate, report
from keras_attn.training.explain import files
from keras_attn.training.fit.train import train
from keras_attn.training.recipes.registry import DEFAULT, get_recipe
from keras_attn.training.runs.environment import next_command
from keras_attn.training.serving.export import export

IMAGES = 6
MISTAKES = 6


def demo(workdir="runs/demo"):
    """Trains the default recipe, then evaluates, explains, exports and reports it.

    Writes, below `workdir`: a contact sheet of the data, the run folder `model`, six
    test images as PNG files, their class maps, and a report. The export goes to
    `saved_models/demo/`. A second call resumes where the first one stopped.

    Returns:
        The run.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    recipe = get_recipe(DEFAULT)
    started = time.perf_counter()

    def say(text):
        print(f"[{time.perf_counter() - started:4.0f} s] {text}", flush=True)

    say(f"1/6 data: drawing {recipe.examples} images of the generated data set")
    source = load_source_of(recipe)
    sheet = workdir / "data.png"
    describe.write_sheet(source, sheet)
    say(f"    {sheet}: a contact sheet")
    say(f"2/6 train: {recipe.name}, {recipe.epochs} epochs")
    run = train(recipe, workdir / "model", source=source)
    say("3/6 evaluate: on the test images")
    print(evaluate.format_evaluation(evaluate.evaluate(run.workdir, "test")))
    say("4/6 explain: class maps over test images")
    folder = write_test_images(recipe, source, workdir / "images")
    output = workdir / "explained"
    shutil.rmtree(output, ignore_errors=True)
    written, _ = files.explain(run.workdir, [folder], output)
    say(f"    {written[-1]}: look at this one first")
    say("5/6 export: a SavedModel for TF Serving, compared with the Keras model")
    say(f"    {export(run.workdir, name='demo')}")
    say("6/6 report: accuracy, calibration and the worst mistakes on one page")
    page = report.write_report(run.workdir, split="test", mistakes=MISTAKES)
    say(f"    {page}: open it in a browser")
    say("done. Next:")
    extra = "pip install 'keras-attn[{}]'".format
    for words, note in (
        (("predict", run.workdir, folder), "classes of six test images"),
        (("view", run.workdir), f"in the browser; {extra('view')}"),
        (("serve", "saved_models"), f"answers REST and gRPC; {extra('serving')}"),
        (("recipes",), "what else can be trained"),
    ):
        print(f"  {next_command(*words)}  # {note}")
    return run


def write_test_images(recipe, source, folder):
    """Writes the first test images of different classes as PNG files."""
    _, splits = load_data(recipe, source=source)
    images, labels = splits["test"]
    folder.mkdir(parents=True, exist_ok=True)
    _, first = np.unique(labels, return_index=True)
    for index in sorted(first)[:IMAGES]:
        name = source.class_names[labels[index]]
        with write_then_rename(folder / f"test_{index}_{name}.png") as file:
            Image.fromarray(images[index]).save(file, "PNG")
    return folder
