"""The explainer of a model, by its method or by its outputs."""

from keras_attn.training.explain import class_maps, evidence, masks, prompts, warps
from keras_attn.training.methods import method_of

# Beginning of an output's name -> explainer of it; of several, the first counts.
BY_OUTPUT = {
    "evidence_": evidence,
    "mask_1": masks,
    "fields": warps,
    "patch_logits": class_maps,
    "prompt_attention": prompts,
}


def explainer_of(subject):
    """The `Explainer` of the maps that a model itself returns.

    That of its run's method, or else the one for its outputs; `None` for a model
    without any maps.
    """
    method = method_of(subject.run.recipe) if subject.run else None
    if method is not None and method.explainer is not None:
        return method.explainer
    outputs = subject.model.output
    names = outputs if isinstance(outputs, dict) else ()
    for beginning, explainer in BY_OUTPUT.items():
        if any(name.startswith(beginning) for name in names):
            return explainer
    return None
