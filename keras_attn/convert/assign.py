"""Moving named weights of PyTorch into the variables of a Keras model."""

import dataclasses

import keras
import numpy as np

from keras_attn.convert.checkpoint import CheckpointError

# Axes of the PyTorch tensor in the order in which Keras holds them.
CONVOLUTION = (2, 3, 1, 0)
DEPTHWISE = (2, 3, 0, 1)
LINEAR = (1, 0)
VECTOR = (0,)


@dataclasses.dataclass(frozen=True)
class Target:
    """A variable, and how the axes of its tensor are ordered.

    A 1x1 convolution may go into a dense kernel: missing leading axes have size one.
    """

    variable: keras.Variable
    axes: tuple

    @property
    def tensor_shape(self):
        """The shape that the PyTorch tensor must have."""
        shape = tuple(self.variable.shape)
        shape = (1,) * (len(self.axes) - len(shape)) + shape
        return tuple(shape[self.axes.index(axis)] for axis in range(len(shape)))

    def assign(self, tensor):
        value = np.transpose(tensor, self.axes)
        self.variable.assign(value.reshape(self.variable.shape))


def batch_normalization_targets(name, layer):
    """Targets of a BatchNormalization layer, by the names of PyTorch."""
    return {
        f"{name}.weight": Target(layer.gamma, VECTOR),
        f"{name}.bias": Target(layer.beta, VECTOR),
        f"{name}.running_mean": Target(layer.moving_mean, VECTOR),
        f"{name}.running_var": Target(layer.moving_variance, VECTOR),
    }


def check_weights(state_dict, shapes, unused=(), network="the network"):
    """Every expected tensor is there, has its shape, and none is left over.

    Args:
        state_dict: Dict from names to arrays.
        shapes: Dict from the expected names to shapes.
        unused: Names of tensors that may be there and have no use.
        network: Whose weights they are, for the message.

    Raises:
        CheckpointError: If not; it lists every tensor that does not fit.
    """
    missing = [name for name in shapes if name not in state_dict]
    unknown = sorted(set(state_dict) - set(shapes) - set(unused))
    misshapen = [
        f"{name} {tuple(state_dict[name].shape)} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in state_dict and tuple(state_dict[name].shape) != tuple(shape)
    ]
    problems = {"missing": missing, "unknown": unknown, "of another shape": misshapen}
    if any(problems.values()):
        found = "; ".join(
            f"{problem}: {', '.join(names)}"
            for problem, names in problems.items()
            if names
        )
        raise CheckpointError(f"Expected the weights of {network}. Received: {found}")
