"""Attention to the generated set's objects of a transformer trained on other images.

The shares of `keras_attn.training.experiments.studies.attention_on_object`, for runs on
any data set, on `EXAMPLES` generated images at the run's size for each of
`DIFFICULTIES`.
Metrics: `attention_on_object_0.25`, `attention_in_box_0.25` and so on. `best_head` is
chosen for each difficulty.
"""

from keras_attn.pipelines.generated.dataset import generate
from keras_attn.training.data.load import image_spec
from keras_attn.training.experiments.protocol import RowValue
from keras_attn.training.experiments.studies.attention_on_object import compare
from keras_attn.training.fit.train import initial_model

EXAMPLES = 1000
DIFFICULTIES = (0.0, 0.25, 0.5)


def study(runs, sources):
    """The shares of every run's model of the last epoch; see `Study`."""
    for label, run in runs.items():
        trained = run.load_model("last")
        spec = image_spec(run.recipe, sources[label])
        initial = initial_model(run.recipe, spec)
        for difficulty in DIFFICULTIES:
            data = generate(
                EXAMPLES, image_size=run.recipe.image_size, difficulty=difficulty
            )
            shares = compare(
                label, trained, initial, data.images, data.masks, data.boxes
            )
            for row, metric, value, _ in shares:
                yield RowValue(row, f"{metric}_{difficulty}", value)
