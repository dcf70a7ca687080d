"""Malformed images through `train`, `predict`, `explain`, `view` and `serve`.

`python -m tests.training.malformed_images --count 1000` sends that many through all
five and prints what became of them, beside the pixels that Pillow reads.
"""

import argparse
import base64
import collections
import contextlib
import io
import json
import pathlib
import re
import sys
import tempfile
import time
from unittest import mock

import numpy as np

from keras_attn.pipelines.sources.load import load_source
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training import cli, drawing
from keras_attn.training.methods import class_embedding
from keras_attn.training.runs.outputs import outputs_of, softmax
from keras_attn.training.serving.export import export
from keras_attn.training.trained import load_trained
from keras_attn.training.viewer import answers as viewer_answers
from keras_attn.training.viewer.library import Library
from keras_attn.training.viewer.mistakes import Searches
from tests.pipelines.images.malformed_images import by_pillow, made
from tests.training import tiny, tiny_models

# Probabilities, where decoders of lossy files differ by some 8-bit steps.
TOLERANCE = 0.06
# One picture and one page in this number is drawn with all its maps.
DRAWN = 20
TRAIN = (
    "train generated_rn26_class_embedding --epochs 1 --batch-size 2 --on-corrupt skip "
    "--set dataset=folder split=pooled_65_15_20 image_size=32 in_memory=0 "
    "deterministic=false"
)


def run(*words):
    """Output and lines of errors of a command that succeeds."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = cli.main([str(word) for word in words])
    assert code == 0, errors.getvalue()[-2000:]
    return out.getvalue(), errors.getvalue().splitlines()


def skipped(lines):
    """Dict from files that lines name to the reasons."""
    found = (re.fullmatch(r"skipped: (.+?\.\w+): (.+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def probabilities(trained, images):
    return softmax(outputs_of(trained.model, images)["logits"])


def through_train(paths, root, trained, folder):
    """Decodes in memory; a run on a tiny network, on a stream, counts the same ones."""
    source = load_source("folder", root, on_corrupt="skip").decoded(trained.spec)
    answers = dict(source.skipped)
    names = map(source.where, range(len(source)))
    answers.update(zip(names, probabilities(trained, source.images), strict=True))
    with mock.patch.object(class_embedding, "build_model", tiny.tiny_model):
        _, errors = run(*TRAIN.split(), "--data", root, "--workdir", folder / "run")
    (line,) = (line for line in errors if line.startswith("Left out: "))
    count = int(re.match(r"Left out: (\d+) images that cannot be read", line)[1])
    assert count == len(source.skipped), (count, len(source.skipped))
    return answers


def through_predict(paths, root, trained, folder):
    words = ("predict", trained.path, root, "--on-corrupt", "skip", "--json")
    out, errors = run(*words, "--top", len(trained.class_names))
    answers = skipped(errors)
    for entry in json.loads(out):
        found = {each["class"]: each["probability"] for each in entry["predictions"]}
        answers[entry["image"]] = [found[name] for name in trained.class_names]
    return answers


def through_explain(paths, root, trained, folder):
    """Reads the probabilities in the titles of the pictures; draws some of them."""
    titles = {}

    def save(figure, path):
        # A sheet of all pictures takes longer than they do.
        if len(titles) % DRAWN == 0 and not path.stem.startswith("overview"):
            draw(figure, path)
        titles[path.stem] = " ".join(axis.get_title() for axis in figure.axes)

    draw = drawing.save
    words = ("explain", trained.path, root, "--on-corrupt", "skip")
    with mock.patch.object(drawing, "save", save):
        _, errors = run(*words, "--output", folder / "e")
    answers = skipped(errors)
    for path in paths:
        if path.stem in titles:
            found = dict(re.findall(r"(\w+)\n([\d.]+) %", titles[path.stem]))
            answers[str(path)] = [
                float(found[name]) / 100 for name in trained.class_names
            ]
    return answers


def through_view(paths, root, trained, folder):
    from keras_attn.training.viewer.page import Viewer, make_app

    models = Library([trained.path])
    (name,) = models.names
    viewer = Viewer(models, Searches(models))
    client = make_app(viewer).test_client()
    answers = {}
    sections = viewer_answers.SECTIONS
    for number, path in enumerate(paths):
        viewer_answers.SECTIONS = () if number % DRAWN else sections
        form = {"file": (io.BytesIO(path.read_bytes()), path.name), "model": name}
        reply = client.post("/", data=form)
        if reply.status_code == 303:
            address = reply.location
            reply = client.get(address)
        page = reply.text
        alert = re.search(r'role="alert">(.*?)</p>', page)
        if alert:
            answers[str(path)] = alert[1]
            continue
        assert reply.status_code == 200, (path, page)
        token = re.search(r"image=(\w+)", address)[1]
        shown = dict(viewer.answer(token, name).classes)
        assert f"{100 * max(shown.values()):.1f}" in page
        answers[str(path)] = [shown[each] for each in trained.class_names]
    viewer_answers.SECTIONS = sections
    return answers


def through_serve(paths, root, trained, folder):
    from tests.training.serving.server.tiny import running

    with contextlib.redirect_stdout(io.StringIO()):
        export(trained.path, name="m", output=folder / "served")
    answers = {}
    with running(folder / "served") as server:
        for path in paths:
            data = base64.b64encode(path.read_bytes()).decode()
            reply = server.post("m:predict", json={"instances": [{"b64": data}]})
            body = reply.json()
            if reply.status_code == 400:
                answers[str(path)] = body["error"]
                continue
            assert reply.status_code == 200, (path, reply.text)
            answers[str(path)] = body["predictions"][0]["probabilities"]
    return answers


THROUGH = {
    "train": through_train,
    "predict": through_predict,
    "explain": through_explain,
    "view": through_view,
    "serve": through_serve,
}


def judged(answer, expected):
    """A word on an answer beside the expected one; capitals for what may not be."""
    if answer is None:
        return "LEFT OUT SILENTLY"
    if isinstance(answer, str):
        if not 0 < len(answer) < 400 or "Traceback" in answer or "\n" in answer:
            return f"UNCLEAR: {answer[:500]}"
        return "refused" if expected is None else "refused, read by Pillow"
    if expected is None:
        return "read, refused by Pillow"
    difference = np.abs(np.subtract(answer, expected)).max()
    return "answered" if difference <= TOLERANCE else f"WRONG by {difference:.2f}"


def outcomes(count, seed, folder):
    """Sends images through all commands.

    Yields:
        For each command `(name, counts, seconds)`: a `Counter` of kinds of images and
        outcomes, see `judged`.
    """
    root, kinds, expected = folder / "images", {}, {}
    trained = load_trained(tiny_models.save_colour_model(folder))
    fit = ImagePreprocessing(trained.spec).fit_size
    for number, (kind, suffix, data) in enumerate(made(count, seed)):
        path = root / tiny_models.COLOURS[number % 3] / f"{number}_{kind}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        kinds[path], pixels = kind, by_pillow(data)
        if pixels is not None:
            pixels = np.asarray(fit(pixels[None])).astype("uint8")
            pixels = probabilities(trained, pixels)[0]
        expected[path] = pixels
    for name, through in THROUGH.items():
        started = time.perf_counter()
        answers = through(list(kinds), root, trained, folder)
        unknown = set(answers) - set(map(str, kinds))
        assert not unknown, unknown
        yield (
            name,
            collections.Counter(
                (kind, judged(answers.get(str(path)), expected[path]))
                for path, kind in kinds.items()
            ),
            time.perf_counter() - started,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, counts, seconds in outcomes(
            options.count, options.seed, pathlib.Path(folder)
        ):
            print(f"{name}: {seconds:.0f} s", flush=True)
            total = collections.Counter()
            for (kind, outcome), number in sorted(counts.items()):
                total[outcome] += number
                if outcome.split()[0] not in ("answered", "refused") or "," in outcome:
                    print(f"  {number:4} {kind}: {outcome}", flush=True)
            print(f"  {dict(total)}", flush=True)
            wrong += sum(n for outcome, n in total.items() if outcome[:4].isupper())
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
