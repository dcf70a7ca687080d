"""Networks of `keras.applications` and the weights published for them."""

import keras


def published_network(name, builder, file, weights, /, **options):
    """A network of `keras.applications` without its classifier.

    Args:
        name: What errors call it.
        builder: Function of `keras.applications`.
        file: Name of its weights file, as it is published.
        weights: `None`; `"imagenet"`, which downloads that file; or the path of a
            local copy.
        **options: Further arguments of the builder.

    Raises:
        ValueError: If the weights do not fit.
        FileNotFoundError: If the download fails.
    """
    options["include_top"] = False
    if weights == "imagenet":
        try:
            return builder(weights="imagenet", **options)
        except Exception as error:  # Keras raises nothing more specific.
            raise FileNotFoundError(
                f"Expected to download the published weights of {name!r}, which "
                f"failed ({error}). Without a network, give the path of a local copy "
                f"of {file} in place of 'imagenet'"
            ) from error
    network = builder(weights=None, **options)
    if weights is not None:
        load_weights(network, weights, f"{file}, as published for {name!r}")
    return network


def load_weights(model, path, wanted):
    try:
        model.load_weights(path)
    except Exception as error:  # Of many kinds, and none says what was wanted.
        raise ValueError(
            f"Expected the weights of {wanted}. Received: {str(path)!r} ({error})"
        ) from error


def reverse_channels(convolution):
    """Makes a first convolution learned on BGR images one of RGB images."""
    kernel = convolution.kernel
    kernel.assign(keras.ops.flip(kernel, axis=2))


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
