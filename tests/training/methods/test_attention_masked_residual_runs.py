"""From a transformer trained without labels to networks masked with its maps."""

import keras
import matplotlib.image
import pytest

from keras_attn.models.vit import VIT_SIZES
from keras_attn.training.data import attention_maps
from keras_attn.training.experiments import reproduce, results
from keras_attn.training.fit.train import train
from keras_attn.training.trained import load_trained
from tests.training import tiny_dino

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training is on TensorFlow"
)
NAME = "attention_masked_residual_{}_generated"
SMALL = (
    "image_size=32",
    "examples=130",
    "batch_size=20",
    "epochs=1",
    "deterministic=false",
)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    """Folder of a run of DINO."""
    folder = tmp_path_factory.mktemp("dino") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VIT_SIZES, "tiny", (12, 2, 3))
        train(tiny_dino.tiny_recipe(epochs=1, warmup_epochs=0.5), folder, verbose=0)
    return folder


def test_masks_of_a_run_serve_the_rows_of_an_experiment(transformer, tmp_path):
    summary, _ = attention_maps.masks(
        transformer,
        "generated",
        tmp_path / "maps",
        assignments=("examples=130", "image_size=32"),
    )
    assert summary["map_shape"] == [8, 8, 1] and summary["images"] == 130
    overrides = [*SMALL, f"map_model={transformer}", f"map_cache={tmp_path / 'maps'}"]
    folders = {"workdir": tmp_path / "runs", "results_folder": tmp_path / "results"}
    path = reproduce.reproduce(
        NAME.format("table3"), **folders, rows=["shuffled"], overrides=overrides
    )
    (line,) = results.read_rows(path)
    assert (line["row"], line["metric"]) == ("shuffled", "test_accuracy")
    # Nothing but the given cache was needed.
    assert not (transformer / "maps").exists()
    trained = tmp_path / "runs" / NAME.format("table3")
    own = load_trained(trained / "shuffled" / "seed-0", "last")
    assert (own.run.checkpoints / "map_model.keras").is_file()
    assert len(own.model.inputs) == 1 and len(own.judged.inputs) == 2

    path = reproduce.reproduce(NAME.format("figure4"), **folders, overrides=overrides)
    assert (trained / "a1" / "seed-0" / "recipe.json").is_file()
    height, width, _ = matplotlib.image.imread(path.with_suffix(".png")).shape
    # Six classes; the image, three heads, their mean and three masks.
    assert 0.7 * 8 / 6 < width / height < 1.3 * 8 / 6
    assert ", mask 3 0." in path.with_suffix(".md").read_text()
    assert [line["row"] for line in results.read_rows(path)] == ["a1"]


def test_nothing_is_trained_without_a_map_model(tmp_path):
    folders = {"workdir": tmp_path / "runs", "results_folder": tmp_path / "results"}
    with pytest.raises(ValueError, match="--set map_model=RUN"):
        reproduce.reproduce(NAME.format("table3"), **folders, overrides=SMALL)
    overrides = [*SMALL, "map_model=/nowhere"]
    with pytest.raises(FileNotFoundError, match="/nowhere, which does not exist"):
        reproduce.reproduce(NAME.format("table3"), **folders, overrides=overrides)
    assert not list(tmp_path.iterdir())
