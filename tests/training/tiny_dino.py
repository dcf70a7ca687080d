"""A recipe of DINO that trains in a second, where "tiny" is `TINY_SIZE`."""

from keras_attn.training.recipes.schema import Recipe

TINY_SIZE = (8, 1, 2)


def tiny_recipe(**changes):
    values = {
        "name": "tiny",
        "method": "dino",
        "weight_decay": 0.04,
        "image_size": 32,
        "size": "tiny",
        "patch_size": 4,
        "units": 12,
        "hidden_units": 8,
        "bottleneck_units": 6,
        "global_size": 16,
        "local_size": 8,
        "local_views": 0,
        "batch_size": 15,
        "warmup_epochs": 1,
        "epochs": 2,
        "learning_rate": 1e-2,
        "examples": 130,
        "neighbours": 5,
        # Determinism cannot be switched off again, so it would stay for other tests.
        "deterministic": False,
    }
    return Recipe(**{**values, **changes})
