"""Prompt-CAM on the generated set: do prompts look at what sets classes apart?

Command: `keras-attn reproduce prompt_cam_parts_generated`
Cost: about three minutes per seed on two idle cores. A transformer learns from 4,000
images what so small a one can, on images of low difficulty; the prompts learn in it.
Expected: nothing is known before; the paper shows its maps in pictures. Attention on
the parts that set a class apart, above their area and above what the prompts of other
classes have there, is its claim.
"""

from keras_attn.training.recipes.experiment import Experiment, Row
from keras_attn.training.recipes.schema import Recipe

GENERATED = {
    "method": "prompt_cam",
    "dataset": "generated",
    "image_size": 48,
    "examples": 4800,
    "difficulty": 0.05,
    "size": "64,2,4",
    "label_smoothing": 0.0,
    "augmentation": "none",
    "patience": 0,
}
PROMPTS = {"epochs": 8, "learning_rate": 1e-2, "weight_decay": 0.0}

RECIPES = (
    Recipe(
        **GENERATED,
        name="generated_vit_class_token",
        epochs=16,
        learning_rate=2e-3,
        weight_decay=0.05,
    ),
    Recipe(**GENERATED, **PROMPTS, name="generated_vit_deep_prompts"),
    Recipe(
        **GENERATED, **PROMPTS, name="generated_vit_shallow_prompts", variant="shallow"
    ),
)
NEEDS = (("model", "class_token"),)

EXPERIMENTS = (
    Experiment(
        method="prompt_cam",
        table="parts",
        dataset="generated",
        title="Prompt-CAM: attention on the parts that set classes apart",
        rows=(
            Row("class_token", RECIPES[0]),
            Row("deep", RECIPES[1], needs=NEEDS),
            Row("shallow", RECIPES[2], needs=NEEDS),
        ),
        study="prompt_attention",
    ),
)
