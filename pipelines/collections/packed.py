"""Texts in one block of bytes: a million of them are no million objects."""

import bisect
import os
from array import array

import numpy as np


class Packed:
    """Sequence of names, as text; undecodable bytes survive.

    Args:
        names: Iterable of bytes.
    """

    def __init__(self, names=()):
        self._block, self._ends = bytearray(), array("q", [0])
        for name in names:
            self.append(name)

    def append(self, name):
        self._block += name
        self._ends.append(len(self._block))

    @classmethod
    def of(cls, block, ends):
        """The names in a block of bytes, from each of the `ends` to the next."""
        if (
            len(ends) < 1
            or ends[0]
            or ends[-1] != len(block)
            or (np.diff(ends) < 0).any()
        ):
            raise ValueError("names that do not end where they should")
        packed = cls()
        packed._block, packed._ends = block, ends
        return packed

    def __len__(self):
        return len(self._ends) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return os.fsdecode(
            bytes(self._block[self._ends[index] : self._ends[index + 1]])
        )

    def described(self):
        """Contents for a digest."""
        return np.frombuffer(self._block, np.uint8), np.frombuffer(self._ends, np.int64)


class Composed:
    """Sequence of `GROUP SEPARATOR NAME`, of groups that follow one another.

    Args:
        groups: Texts.
        counts: Number of names in each group.
        names: Names of all groups; by default their numbers in the group.
        separator: Text between a group and a name.
    """

    def __init__(self, groups, counts, names=None, separator="/"):
        self.groups, self.names, self.separator = tuple(groups), names, separator
        self.ends = np.cumsum(np.asarray(counts, np.int64)).tolist()

    def __len__(self):
        return self.ends[-1] if self.ends else 0

    def place(self, index):
        """Number of the group of a name, and number of the name in the group."""
        group = bisect.bisect_right(self.ends, index)
        return group, index - (self.ends[group - 1] if group else 0)

    def member(self, index):
        """A name without its group."""
        return str(self.place(index)[1]) if self.names is None else self.names[index]

    def __getitem__(self, index):
        index = range(len(self))[index]
        group, _ = self.place(index)
        return f"{self.groups[group]}{self.separator}{self.member(index)}"

    def described(self):
        """Contents for a digest."""
        names = () if self.names is None else self.names.described()
        return ("\n".join(self.groups), np.array(self.ends, np.int64), *names)
