import keras
from keras import ops

from keras_attn.ops.patches import branch_decision


@keras.saving.register_keras_serializable(package="keras_attn")
class BranchDecision(keras.layers.Layer):
    """The logits of the branch that decides an image's class.

    AnchorNet paper, equations (6) to (8), see `keras_attn.ops.branch_decision`: the
    class that at least two branches predict, else that of the most confident branch;
    then the most confident branch among those that predict it. The largest of the
    returned logits is therefore the decided class.

    Call arguments:
        inputs: List of the branches' logits.

    Input shape: a list of logits `(batch, classes)`, one per branch, in increasing
        order of their patch sizes.

    Output shape: `(batch, classes)` in the layer's compute dtype.

    Example:

    >>> sure, unsure = np.array([[0.0, 4.0]]), np.array([[1.0, 0.0]])
    >>> BranchDecision()([unsure, sure])
    [[0., 4.]]

    Reference: [yang2020] arXiv:2002.03737, equations (6) to (8).
    """

    def call(self, inputs):
        logits = ops.stack(inputs, axis=1)
        _, branch = branch_decision(logits)
        chosen = ops.one_hot(branch, len(inputs), dtype=logits.dtype)
        return ops.sum(logits * chosen[:, :, None], axis=1)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])
