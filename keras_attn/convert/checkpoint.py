"""Number types of checkpoints, and the error of their readers."""

import dataclasses

import numpy as np


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit, with the reason."""


@dataclasses.dataclass(frozen=True)
class Dtype:
    """Type of stored numbers, and the type that they are read as."""

    name: str
    stored: str

    @property
    def size(self):
        """Bytes of one number."""
        return np.dtype(self.stored).itemsize

    def decode(self, raw, order="<"):
        """The numbers of these bytes, one-dimensional and not writeable."""
        values = np.frombuffer(raw, np.dtype(self.stored).newbyteorder(order))
        if self.name == "bfloat16":
            # A bfloat16 is the upper half of a float32.
            values = (values.astype("uint32") << 16).view("float32")
        elif self.name == "bool":
            values = values != 0
        else:
            values = values.astype(self.name, copy=False)
        values.flags.writeable = False
        return values


NAMES = (
    *("float64", "float32", "float16", "bfloat16", "bool"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
)
DTYPES = {
    name: Dtype(name, {"bfloat16": "uint16", "bool": "uint8"}.get(name, name))
    for name in NAMES
}
