import keras
from keras import ops

from keras_attn._checks import number_in, one_of
from keras_attn.layers._maps import MapLayer

TARGETS = ("shortcut", "branch", "literal")


@keras.saving.register_keras_serializable(package="keras_attn")
class AttentionMaskedResidual(MapLayer):
    """Adds a residual branch and its shortcut, one of them masked with attention.

    Wang, "Refining Residual Mappings Using Regions of High Attention", equations (3)
    and (4), with the branch `f = f_i(x)`, the shortcut `P = P_i(x)`, the mask `m` and
    the strength `a`, elementwise:

    - `"shortcut"`: `relu(f + P (1 - a + a m))`, as the text describes: an ordinary
      residual block at `a = 0` and at `m = 1`, and no shortcut at `a = 1, m = 0`;
    - `"branch"`: `relu(f (1 - a + a m) + P)`, the mask on the residual mapping, as the
      title says;
    - `"literal"`: `relu(f + a P m + a f)`, as printed, which at `a = 0` is a plain
      convolutional block *without* shortcut.

    At `a = 0` the mask is not read: values are bitwise those without a mask, and no
    gradient flows into it.

    Args:
        strength: The paper's `a`, from 0 to 1.
        target: The masked term, `"shortcut"`, `"branch"` or `"literal"`.

    Call arguments:
        inputs: List `[branch, shortcut, mask]`.

    Input shape: branch and shortcut of the same shape `(batch, height, width,
        channels)`; the mask has that shape too, or a single channel for all. It lies
        in [0, 1], which is not checked.

    Output shape: that of the branch, in the layer's compute dtype, not negative.

    Raises:
        ValueError: If `strength` is not in [0, 1], `target` is unknown, or the shapes
            do not fit.

    Example:

    >>> features = keras.random.normal((2, 7, 5, 16))
    >>> mask = keras.random.uniform((2, 7, 5, 16))
    >>> AttentionMaskedResidual(0.5)([features, features, mask]).shape
    (2, 7, 5, 16)

    Reference: [wang], equations (3) and (4).
    """

    def __init__(self, strength=1.0, target="shortcut", **kwargs):
        number_in("strength", strength, "[0, 1]")
        one_of("target", target, TARGETS)
        super().__init__(**kwargs)
        self.strength = float(strength)
        self.target = target

    def build(self, input_shape):
        self._check_shapes(input_shape)

    def call(self, inputs):
        branch, shortcut, mask = inputs
        a = self.strength
        if self.target == "literal":
            added = a * (shortcut * mask + branch) if a else 0.0
            return ops.relu(branch + added)
        if a:
            # As 1 - a + a m, but exactly 1 at m = 1 and exactly m at a = 1.
            gate = mask + (1 - a) * (1 - mask)
            if self.target == "branch":
                branch = branch * gate
            else:
                shortcut = shortcut * gate
        return ops.relu(branch + shortcut)

    def multiply_adds(self, input_shape):
        # Only convolutions and dense layers are counted.
        return 0

    def compute_output_shape(self, input_shape):
        self._check_shapes(input_shape)
        return tuple(input_shape[0])

    def _check_shapes(self, input_shape):
        shapes = [tuple(shape) for shape in input_shape]
        if len(shapes) == 3:
            branch, shortcut, mask = (shape[1:] for shape in shapes)
            if branch == shortcut and mask in (branch, (*branch[:-1], 1)):
                return
        raise ValueError(
            "Expected a branch and a shortcut of the same shape, and a mask of that "
            f"shape or with a single channel. Received: shapes {shapes}"
        )

    def get_config(self):
        return {
            **super().get_config(),
            "strength": self.strength,
            "target": self.target,
        }
