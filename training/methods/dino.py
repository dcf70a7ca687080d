"""Self-supervised transformers, which `training.dino` trains."""


def serving_model(model, run):
    return model
