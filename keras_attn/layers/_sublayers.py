"""Layers inside layers."""

import keras


def regularized_dense(layer, units, activation, name, **options):
    """A dense layer with the kernel regularizer and the dtypes of the layer around."""
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_regularizer=layer.kernel_regularizer,
        dtype=layer.dtype_policy,
        name=name,
        **options,
    )
