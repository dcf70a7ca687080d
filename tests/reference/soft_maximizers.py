"""Soft maximisers of the class embedding paper, in plain NumPy and float64."""

import numpy as np


def margin_softmax(activations, margin, epsilon, axis=-1):
    """Softmax over the activations and one constant entry, which is dropped."""
    logits = np.moveaxis(np.asarray(activations, "float64"), axis, -1)
    constant = np.full((*logits.shape[:-1], 1), margin)
    logits = epsilon * np.concatenate([logits, constant], axis=-1)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return np.moveaxis(p[..., :-1], -1, axis)


def margin_softmax_jacobian(p, epsilon):
    """`epsilon (diag(p) - p p^T)` for one vector of probabilities."""
    return epsilon * (np.diag(p) - np.outer(p, p))


def one_hot_argmaxes(a, margin, epsilon, z, margin_z):
    """Argmaxes of `[a + z / epsilon ; margin + z' / epsilon]` without the last entry.

    `a` is (..., K), `z` is (N, ..., K) and `margin_z` is (N, ..., 1).
    """
    noisy = np.concatenate([a + z / epsilon, margin + margin_z / epsilon], axis=-1)
    return np.eye(a.shape[-1] + 1)[noisy.argmax(axis=-1)][..., :-1]


def perturbed_argmax(a, margin, epsilon, z, margin_z):
    return one_hot_argmaxes(a, margin, epsilon, z, margin_z).mean(axis=0)


def perturbed_argmax_vjp(
    a, margin, epsilon, z, margin_z, cotangent, control_variate=False
):
    """`(epsilon / N) sum_n z_n <p_n, g>`, with `p_n - p_0` under a control variate."""
    p = one_hot_argmaxes(a, margin, epsilon, z, margin_z)
    if control_variate:
        zero = np.zeros_like
        p = p - one_hot_argmaxes(a, margin, epsilon, zero(z[:1]), zero(margin_z[:1]))
    values = (p * cotangent).sum(axis=-1, keepdims=True)
    return epsilon * (z * values).mean(axis=0)
