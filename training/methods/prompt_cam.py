"""Prompt-CAM: a prompt per class in a frozen transformer, which `explain` draws."""

import contextlib

import keras

from keras_attn.losses.patch_crossentropy import PatchCrossentropy
from keras_attn.models.prompt_cam import prompt_cam
from keras_attn.models.vit import vit
from keras_attn.preprocessing import ImagePreprocessing
from keras_attn.training.methods.finetune import (
    WARM_UP,
    Finetune,
    adamw,
    named_origin,
    trained_model,
)


class PromptCam(Finetune):
    """Trains the prompts, or, without a trained one, a whole new transformer."""

    first_epoch = None

    def check(self, recipe):
        # Refused before images are read; a run that comes before may not be there yet.
        with contextlib.suppress(FileNotFoundError):
            _prompted(recipe, 2)

    def make_model(self, recipe, spec):
        spec = self.network_spec(recipe, spec)
        model = _prompted(recipe, len(spec.class_names))
        if model is None:
            return _transformer(recipe, spec)

        def clone(layer):
            if not isinstance(layer, ImagePreprocessing):
                return layer
            config = {**layer.get_config(), "spec": spec.to_dict()}
            return type(layer).from_config(config)

        return keras.models.clone_model(model, clone_function=clone)

    def start(self, recipe, model):
        origin = recipe.options.model
        return f"{named_origin(origin)}, with new prompts" if origin else "random"

    def network_spec(self, recipe, spec):
        if not recipe.options.model:
            return spec
        return super().network_spec(recipe, spec)

    def losses(self, recipe, model):
        loss = PatchCrossentropy(recipe.options.label_smoothing, name="crossentropy")
        return {"loss": {"logits": loss}}

    def make_optimizer(self, recipe, steps):
        return adamw(recipe, recipe.learning_rate, steps, WARM_UP)


def _prompted(recipe, num_classes):
    """The trained transformer with prompts; `None` without any."""
    options = recipe.options
    if not options.model:
        return None
    return prompt_cam(
        trained_model(options), num_classes, options.variant, options.prompted or None
    )


def _transformer(recipe, spec):
    size = recipe.options.size
    images = keras.Input((spec.height, spec.width, 3), name="images")
    network = vit(
        tuple(map(int, size.split(","))) if "," in size else size,
        recipe.options.patch_size,
        num_classes=len(spec.class_names),
        input_tensor=ImagePreprocessing(spec, name="preprocessing")(images),
    )
    return keras.Model(images, {"logits": network.output["logits"]}, name="vit")


METHOD = PromptCam()
