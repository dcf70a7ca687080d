"""Writes the files beside it; to be run by the code of commit a8c9ace only."""

import contextlib
import importlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
import zipfile

import keras
import models
import networks
import numpy as np
from PIL import Image

from keras_attn import ImagePreprocessing, ImageSpec, fit_exit_policy
from keras_attn.models import vit

HERE = pathlib.Path(__file__).resolve().parent
SHARED = {
    "dataset": "generated",
    "image_size": 32,
    "examples": 130,
    "batch_size": 12,
    "epochs": 2,
    "deterministic": False,
}


def main():
    # Narrow, so that the file is small.
    resnet = importlib.import_module("keras_attn.models.masked_resnet")
    resnet._stages = lambda depth, block: [(1, 4, 1), (1, 4, 2), (1, 6, 2)]
    write_models()
    write_policy()
    write_runs()
    for path in HERE.rglob("*.keras"):
        _deflate(path)


def write_models():
    folder = HERE / "models"
    folder.mkdir(exist_ok=True)
    found = {}
    for name, model in models.make_models().items():
        model.save(folder / f"{name}.keras")
        outputs = model(models.inputs_of(model), training=False)
        if not isinstance(outputs, dict):
            outputs = {"output": outputs}
        for key, value in outputs.items():
            found[f"{name}/{key}"] = keras.ops.convert_to_numpy(value)
    np.savez_compressed(HERE / "models.npz", **found)


def write_policy():
    random = np.random.default_rng(5)
    ease = random.uniform(0, 1, (60, 1))
    confidence = np.clip(ease + random.normal(0, 0.2, (60, 3)), 0, 1)
    correct = random.uniform(0, 1, (60, 3)) < ease + [0, 0.1, 0.2]
    table = (confidence.astype("float32"), correct, np.array([1.0, 2.0, 3.5]))
    np.savez(HERE / "table.npz", confidence=table[0], correct=correct, cost=table[2])
    policy = fit_exit_policy(*table, points=8)
    policy.save(HERE / "policy.json")
    _write_json("policy_points.json", policy.evaluate(*table))


def write_runs():
    from training.dino_recipe import DinoRecipe
    from training.evaluate import evaluate
    from training.recipe import Recipe

    from keras_attn.models.vit import VIT_SIZES
    from training import dino, fit
    from training.methods import anchornet, class_embedding
    from training.methods import attention_masked_residual as masked

    VIT_SIZES["tiny"] = networks.VIT_SIZE
    class_embedding.build_model = networks.class_embedding
    anchornet.anchornet = networks.anchornet
    anchornet.build_downstream = networks.downstream
    masked.masked_resnet = networks.masked_resnet
    warped = importlib.import_module("keras_attn.models.warped_classifier")
    warped.feature_backbone = networks.feature_backbone
    warped.WARPS["volumetric_transformer"] = networks.volumetric_transformer
    adam = {"optimizer": "adam", "learning_rate": 1e-2}
    patches = {"max_patches": (3, 2), "coverage": (0.5, 1.0), "augmentation": "none"}
    recipes = {
        "class_embedding": Recipe(
            "generated_tiny", row="class_embedding", **adam, **SHARED
        ),
        "localizer": Recipe(
            "generated_localizer",
            method="anchornet",
            backbone="anchornet",
            **adam,
            **patches,
            **SHARED,
        ),
        "full": Recipe(
            "generated_full",
            method="anchornet",
            backbone="small_resnet",
            **adam,
            **patches,
            **SHARED,
        ),
        "patches": Recipe(
            "generated_patches",
            method="anchornet",
            backbone="small_resnet",
            initial="runs/full",
            localizer="runs/localizer",
            **adam,
            **patches,
            **SHARED,
        ),
        "volumetric_transformer": Recipe(
            "generated_vtn",
            method="volumetric_transformer",
            backbone="small_resnet",
            deformation="volumetric_transformer",
            groups=4,
            window=3,
            images_per_class=2,
            consistency_weight=0.1,
            consistency_margin=2.0,
            optimizer="sgd",
            learning_rate=1e-3,
            new_layers_rate=5.0,
            weight_decay=0.0,
            augmentation="rotate_crop_flip",
            **SHARED,
        ),
        "masked": Recipe(
            "generated_masked",
            method="attention_masked_residual",
            backbone="resnet8",
            mask_strength=0.5,
            map_model="map_model.keras",
            optimizer="sgd",
            **SHARED,
        ),
        "dino": DinoRecipe(
            "generated_dino",
            size="tiny",
            patch_size=4,
            units=12,
            hidden_units=8,
            bottleneck_units=6,
            global_size=16,
            local_size=8,
            local_views=0,
            warmup_epochs=1,
            learning_rate=1e-2,
            neighbours=5,
            **SHARED,
        ),
    }
    numbers = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _write_map_model("map_model.keras")
        for name, recipe in recipes.items():
            train = dino.train_dino if recipe.method == "dino" else fit.train
            _stop_after_one_epoch(lambda: train(recipe, f"runs/{name}"))  # noqa: B023
        shutil.copytree("runs", "stopped")
        for name, recipe in recipes.items():
            numbers[name] = {}
            if recipe.method != "dino":
                result = evaluate(f"runs/{name}", "test", checkpoint="last")
                numbers[name]["accuracy"] = result["accuracy"]
                numbers[name]["cross_entropy"] = result["cross_entropy"]
                (pathlib.Path("runs") / name / "evaluation.json").unlink()
        for name, recipe in recipes.items():
            train = dino.train_dino if recipe.method == "dino" else fit.train
            run = train(recipe, f"runs/{name}")
            history = _progress(run).history
            numbers[name]["second_epoch"] = history[1]
        _write_index()
        _write_json("runs.json", numbers)
        for part in ("map_model.keras", "maps", "index", "photos"):
            _replace(pathlib.Path(part), HERE / part)
        for events in pathlib.Path("stopped").glob("*/tensorboard"):
            shutil.rmtree(events)
        _replace(pathlib.Path("stopped"), HERE / "runs")


def _deflate(path):
    """The same archive, compressed, which Keras reads but does not write."""
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _replace(source, target):
    if target.is_dir():
        shutil.rmtree(target)
    shutil.move(source, target)


def _progress(run):
    from training.resume import load_progress

    return load_progress(run.checkpoints / "last.npz")


class _Stop(Exception):
    pass


def _stop_after_one_epoch(train):
    from training.callbacks import Checkpoint

    original = Checkpoint.on_epoch_begin

    def stop(self, epoch, logs=None):
        if epoch == 1:
            raise _Stop
        original(self, epoch, logs)

    Checkpoint.on_epoch_begin = stop
    with contextlib.suppress(_Stop):
        train()
    Checkpoint.on_epoch_begin = original


def _write_map_model(path):
    spec = ImageSpec(32, 32, mean=(0.5, 0.5, 0.5))
    images = keras.Input((32, 32, 3), name="images")
    model = vit((8, 1, 2), 8, input_tensor=ImagePreprocessing(spec)(images))
    models.draw_weights(model).save(path)


def _write_index():
    from training.index import index_folder
    from training.search import Searcher

    random = np.random.default_rng(2)
    pathlib.Path("photos").mkdir()
    for number in range(6):
        colours = np.kron(random.uniform(0, 255, (4, 4, 3)), np.ones((8, 8, 1)))
        Image.fromarray(colours.astype("uint8")).save(f"photos/{number}.png")
    model = "models/class_embedding.keras"
    shutil.copytree(HERE / "models", "models")
    index_folder(model, "photos", "index")
    queries = random.integers(0, 256, (3, models.SPEC.height, models.SPEC.width, 3))
    hits = Searcher.open("index", model).search(queries.astype("uint8"), 4)
    _write_json("hits.json", {"queries": queries.tolist(), "hits": hits})
    here = os.getcwd()
    for path in pathlib.Path("index").glob("*.json"):
        # Where it was made tells others nothing.
        path.write_text(path.read_text().replace(here, "/home/user"))


def _write_json(name, value):
    (HERE / name).write_text(json.dumps(value) + "\n")


if __name__ == "__main__":
    sys.exit(main())
