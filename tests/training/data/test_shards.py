"""Training on packed shards is training on the folder that they are made of."""

import numpy as np
import pytest

from keras_attn.pipelines.sources import load_source
from keras_attn.pipelines.sources.pack import pack
from keras_attn.training.fit import callbacks
from keras_attn.training.fit.train import train
from keras_attn.training.methods import class_embedding
from keras_attn.training.runs.state import load_progress
from tests.pipelines.sources.test_shards import write_folder
from tests.training.tiny import tiny_model, tiny_recipe


def test_a_run_on_a_folder_resumes_on_its_shards_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(class_embedding, "build_model", tiny_model)
    folder = write_folder(tmp_path / "photos", each=10)
    pack(load_source("folder", folder), tmp_path / "shards", shard_size=7)
    recipe = tiny_recipe(
        dataset="folder",
        split="pooled_65_15_20",
        image_size=16,
        batch_size=4,
        epochs=2,
        in_memory=0,
    )
    whole = train(recipe, tmp_path / "whole", folder, verbose=0)

    begin = callbacks.Checkpoint.on_epoch_begin

    def stop(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Checkpoint, "on_epoch_begin", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run", folder, verbose=0)
    url = f"file://{tmp_path}/shards"
    run = train(recipe, tmp_path / "run", url, verbose=0)
    assert run.data() == url
    histories = [
        load_progress(each.checkpoints / "last.npz").history for each in (whole, run)
    ]
    assert [epoch["loss"] for epoch in histories[0]] == pytest.approx(
        [epoch["loss"] for epoch in histories[1]], rel=1e-6
    )
    for expected, weights in zip(
        whole.load_model("last").get_weights(),
        run.load_model("last").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(expected, weights)
