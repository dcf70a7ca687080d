"""Networks of `keras.applications` and the weights published for them."""

import os

import keras

from keras_attn.models.catalogue import NETWORKS, network


def check_weights(name, role, weights, own_suffix=None):
    """Checks `weights` before anything is built.

    Args:
        name: Name of a network of the catalogue.
        role: Its role there.
        weights: `None`, `"imagenet"` or a path.
        own_suffix: Ending of files that hold weights of the network as it is built
            here; `None` where such files are not read.

    Raises:
        ValueError: If the network has no such weights.
        FileNotFoundError: If there is no such file.
    """
    if weights is None:
        return
    published = bool(network(name, role).weights)
    if not published and (weights == "imagenet" or own_suffix is None):
        names = [
            other
            for other, entry in NETWORKS.items()
            if role in entry.roles and entry.weights
        ]
        path = " or the path of a local file" if own_suffix else ""
        raise ValueError(
            f"Expected `weights` of {name!r} to be None{path}, since only "
            f"{tuple(names)} have published weights. "
            f"Received: weights={str(weights)!r}"
        )
    if weights != "imagenet" and not os.path.isfile(weights):
        raise FileNotFoundError(
            "Expected `weights` to be None, 'imagenet' or the path of a local file. "
            f"Received: weights={str(weights)!r}, which is not there"
        )
    if not published and not str(weights).endswith(own_suffix):
        raise ValueError(
            f"Expected `weights` of {name!r} to be a {own_suffix} file, written by "
            f"`save_weights`. Received: weights={str(weights)!r}"
        )


def published_network(name, role, weights, /, **options):
    """A network of `keras.applications` without its classifier.

    Args:
        name: Name of a network of the catalogue.
        role: Its role there.
        weights: `None`; `"imagenet"`, which downloads the published file; or the path
            of a local copy.
        **options: Further arguments of the builder.

    Returns:
        The network. It takes images in RGB order.

    Raises:
        ValueError: If the weights do not fit.
        FileNotFoundError: If the download fails.
    """
    entry = network(name, role)
    options["include_top"] = False
    if weights == "imagenet":
        try:
            model = entry.builder(weights="imagenet", **options)
        except Exception as error:  # Keras raises nothing more specific.
            raise FileNotFoundError(
                f"Expected to download the published weights of {name!r}, which "
                f"failed ({error}). Without a network, give the path of a local copy "
                f"of {entry.weights} in place of 'imagenet'"
            ) from error
    else:
        model = entry.builder(weights=None, **options)
    if weights not in (None, "imagenet"):
        load_weights(model, weights, f"{entry.weights}, as published for {name!r}")
    if weights is not None and entry.blue_first:
        kernel = model.get_layer(entry.blue_first).kernel
        kernel.assign(keras.ops.flip(kernel, axis=2))
    return model


def load_weights(model, path, wanted):
    try:
        model.load_weights(path)
    except Exception as error:  # Keras's many kinds do not name the weights wanted.
        raise ValueError(
            f"Expected the weights of {wanted}. Received: {str(path)!r} ({error})"
        ) from error


def penalize_kernels(layers, weight_decay):
    """L2 penalty on every convolution's kernel, where no argument asks for it.

    The variable's regularizer counts in this model; the layer's goes into the config
    and so into the variable of a loaded model.
    """
    if not weight_decay:
        return
    regularizer = keras.regularizers.L2(weight_decay)
    for layer in layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.regularizer = regularizer
            layer.kernel_regularizer = regularizer
