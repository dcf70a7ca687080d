"""Accuracy of `keras-attn train --data` on few photographs, beside nearest neighbours.

    python -m benchmarks.own_photographs FLOWERS.tar

Draws 60 photographs of each class for each seed, trains on them as the README does, and
compares the accuracy on the validation images of the run with that of the nearest
neighbours of the same pixels among its training images, for the best number of them.
Writes `results/own_photographs.md`. Times nothing.
"""

import argparse
import pathlib
import tarfile
import tempfile

import numpy as np

from keras_attn.pipelines.files import write_text
from keras_attn.training import cli
from keras_attn.training.data.load import load_data
from keras_attn.training.runs.card import accuracies
from keras_attn.training.runs.environment import commit, hardware, versions
from keras_attn.training.runs.run import Run
from keras_attn.training.runs.state import load_progress

NEIGHBOURS = (1, 3, 5, 9, 15, 25)
HEAD = """\
# Own photographs

Made by `python -m benchmarks.own_photographs`: {each} photographs of each class of TF
Flowers, drawn for each seed, and `keras-attn train --data photos/`. Accuracy on the
validation images of the run, per cent; nearest neighbours are those of the same pixels
among the training images, for the best number of {neighbours}.

| seed | images | epochs | best epoch | last epoch | nearest neighbours |
|---|---|---|---|---|---|
"""


def draw(archive, folder, each, seed):
    """Unpacks photographs of every class, another choice for each seed."""
    with tarfile.open(archive) as tar:
        classes = {}
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            if member.isfile():
                name = pathlib.PurePosixPath(member.name).parent.name
                classes.setdefault(name, []).append(member)
        random = np.random.default_rng(seed)
        for name, members in classes.items():
            for place in random.permutation(len(members))[:each]:
                path = folder / name / pathlib.Path(members[place].name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(members[place]).read())


def neighbours_accuracy(train, validation):
    """The best accuracy of a vote of the nearest training images, per cent."""
    known, asked = (
        np.asarray(part.images, "float32").reshape(len(part.labels), -1)
        for part in (train, validation)
    )
    near = np.linalg.norm(asked[:, None] - known[None], axis=-1).argsort(axis=1)
    voted = train.labels[near]
    found = []
    for count in NEIGHBOURS:
        # Of equal votes the class of the nearest image wins.
        winners = [max(row, key=list(row).count) for row in voted[:, :count]]
        found.append(np.mean(winners == validation.labels))
    return 100 * max(found)


def judged(archive, each, seed, folder):
    """Cells of a row of the table."""
    photos = folder / "photos"
    draw(archive, photos, each, seed)
    words = ["train", "--data", photos, "--workdir", folder / "run", "--quiet"]
    code = cli.main([*map(str, words), "--set", f"seed={seed}"])
    assert code == 0
    run = Run.open(folder / "run")
    _, splits = load_data(run.recipe, photos)
    progress = load_progress(run.checkpoints / "last.npz")
    (_, _, _, best), (_, _, _, last) = accuracies(progress)
    nearest = neighbours_accuracy(splits["train"], splits["validation"])
    images = " + ".join(str(len(splits[part].labels)) for part in splits)
    numbers = (f"{each:.1f}" for each in (best, last, nearest))
    return [str(seed), images, str(run.recipe.epochs), *numbers]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", help="TF Flowers as CLASS/NAME.jpg")
    parser.add_argument("--each", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("results"))
    given = parser.parse_args()
    rows = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            cells = judged(given.archive, given.each, seed, pathlib.Path(folder))
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    write_text(given.results / "own_photographs.md", page(rows, given.each))


def page(rows, each):
    """The table with what it was made of."""
    head = HEAD.format(each=each, neighbours=", ".join(map(str, NEIGHBOURS)))
    facts = f"commit: {commit()}\n\nversions: {versions()}\n\nhardware: {hardware()}"
    return head + "\n".join(rows) + f"\n\n{facts}\n"


if __name__ == "__main__":
    main()
