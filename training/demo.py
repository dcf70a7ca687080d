"""The demo: a trained network on photographs, then a training on generated images."""

import pathlib
import shutil
import time

import numpy as np
from PIL import Image

from keras_attn.pipelines.files import write_then_rename
from keras_attn.training.data import describe
from keras_attn.training.data.load import load_data, load_source_of
from keras_attn.training.evaluation import evaluate, report
from keras_attn.training.evaluation.predict import predict
from keras_attn.training.explain import files
from keras_attn.training.fit.train import train
from keras_attn.training.recipes.registry import DEFAULT, get_recipe
from keras_attn.training.recipes.schema import apply_overrides
from keras_attn.training.runs.environment import next_command
from keras_attn.training.serving.export import export
from keras_attn.training.trained import load_trained

# Photographs of a checkout, the preset that looks at them, and the one that is served:
# the smallest, whose export lies in `saved_models` of a checkout.
PHOTOS = pathlib.Path(__file__).parent.parent / "docs" / "images" / "photos"
PRESET = "tf_flowers_lite0_squeeze_excitation"
SERVED = "generated_vit_mini_8_dino"
# What the default recipe changes to so that it learns within a minute, and its maps
# have cells that a part fills.
SHORT = (
    "backbone=resnet20",
    "image_size=64",
    "difficulty=0.1",
    "examples=3000",
    "epochs=8",
)
IMAGES = 6
MISTAKES = 6


def demo(workdir="runs/demo"):
    """Shows a preset on photographs, then trains a short recipe and shows its run.

    Writes, below `workdir`: `photos`, maps over photographs; a contact sheet of the
    generated data, the run folder `model`, six test images as PNG files, their class
    maps, and a report. The exports go to `saved_models/`. A second call resumes where
    the first one stopped.

    Returns:
        The run.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    recipe = apply_overrides(get_recipe(DEFAULT), SHORT)
    started = time.perf_counter()

    def say(text):
        print(f"[{time.perf_counter() - started:4.0f} s] {text}", flush=True)

    show_preset(workdir, say)
    say(f"2/7 data: drawing {recipe.examples} images of the generated data set")
    source = load_source_of(recipe)
    sheet = workdir / "data.png"
    describe.write_sheet(source, sheet)
    say(f"    {sheet}: a contact sheet")
    say(f"3/7 train: {recipe.backbone} with class embedding, {recipe.epochs} epochs")
    run = train(recipe, workdir / "model", source=source)
    say("4/7 evaluate: on the test images")
    print(evaluate.format_evaluation(evaluate.evaluate(run.workdir, "test")))
    say("5/7 explain: class maps over test images")
    folder = write_test_images(recipe, source, workdir / "images")
    written = _explained(run.workdir, [folder], workdir / "explained")
    say(f"    {written}: look at this one first")
    say("6/7 export: a SavedModel for TF Serving, compared with the Keras model")
    say(f"    {export(run.workdir, name='demo')}")
    say("7/7 report: accuracy, calibration and the worst mistakes on one page")
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


def show_preset(workdir, say):
    """Classifies and explains photographs with a preset, and asks a server for one."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    if not photos:
        say("1/7 photographs: none outside a checkout; left out")
        return
    trained = load_trained(PRESET)
    names = trained.class_names
    say(f"1/7 photographs: {PRESET}, which knows {', '.join(names)} alone")
    for answer in predict(PRESET, photos, top=1).predictions:
        (best,) = answer["predictions"]
        shown = pathlib.Path(answer["image"]).stem
        known = "" if shown in names else ", the nearest of its classes"
        print(f"  {shown}: {best['class']}, {100 * best['probability']:.0f} %{known}")
    sheet = _explained(PRESET, photos, workdir / "photos")
    say(f"    {sheet}: what it took for each of them")
    if not pathlib.Path("saved_models", SERVED).exists():
        export(SERVED)
    try:
        answer = served("saved_models", SERVED, photos[0])
    except ImportError:
        say("    not served: pip install 'keras-attn[serving]'")
        return
    found = answer.get("class") or ", ".join(sorted(set(answer) - {"image"}))
    say(f"    served {SERVED}: {photos[0].name} sent over HTTP, answered with {found}")


def served(folder, name, photo, signature="explain"):
    """The answer of a local server, started for it, to a photograph."""
    from keras_attn.training.serving.client import Client
    from keras_attn.training.serving.server.server import running
    from keras_attn.training.serving.server.settings import Settings

    settings = Settings(folder, port=0, rest_port=0)
    with running(settings, lambda line: None) as server:
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/{name}"
        with Client(url, signature=signature) as client:
            ((answer,),) = client.classify([photo])
    return answer


def _explained(model, images, output):
    """Path of the sheet of the explanations of images, written anew."""
    shutil.rmtree(output, ignore_errors=True)
    written, _ = files.explain(model, images, output, say=lambda text: None)
    return written[-1]


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
