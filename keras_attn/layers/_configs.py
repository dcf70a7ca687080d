"""Configs of layers in `.keras` files that earlier versions wrote."""


def renamed(config, names):
    """A config with the present names of arguments.

    Args:
        config: Config of a layer.
        names: Dict from former names to present ones.
    """
    return {names.get(name, name): value for name, value in config.items()}
