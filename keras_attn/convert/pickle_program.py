"""Reading pickles without running any of them.

A pickle is a program that builds an object, and unpickling would run any code that
it names. Here the program is only read, instruction by instruction, by a machine with
the few instructions and names that plain data needs.
"""

import dataclasses
import io
import pickletools
import struct
from collections.abc import Callable

from keras_attn.convert.checkpoint import CheckpointError

DICTIONARY = "collections.OrderedDict"
# What reading a damaged program may fail with.
DAMAGES = (
    *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
    *(EOFError, struct.error),
)


@dataclasses.dataclass(frozen=True)
class Name:
    """A name in some module that the program mentions. It is never looked up."""

    text: str


class PickleProgram:
    """The pickle machine, cut down to containers, strings and numbers.

    A subclass adds the `names` that its programs may mention, what is made with them,
    and what instructions may put on the stack.
    """

    names = frozenset({DICTIONARY})
    literals: frozenset[str] = frozenset()
    # For messages: what the program should hold, and what to do about it.
    content = "containers, strings and numbers"
    advice = ""

    def __init__(self):
        self.stack = []
        self.marks = []
        self.memory = {}

    def run(self, program):
        """The object that a program describes.

        Args:
            program: Bytes.

        Raises:
            CheckpointError: If it holds anything that is not known here.
            *DAMAGES: If it is damaged.
        """
        for operation, argument, _ in pickletools.genops(io.BytesIO(program)):
            name = operation.name
            if name == "STOP":
                (result,) = self.stack
                return result
            if name in CONSTANTS:
                self.stack.append(CONSTANTS[name]())
            elif name in LITERALS or name in self.literals:
                self.stack.append(argument)
            elif name in OPERATIONS:
                OPERATIONS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                self.refuse(f"pickle instruction {name}")
        raise CheckpointError("is damaged: its description has no end")

    def refuse(self, found):
        reason = f"holds more than {self.content}: {found}. Nothing of it was run."
        raise CheckpointError(f"{reason} {self.advice}".rstrip())

    # ---- what a subclass may know more of -----------------------------------------

    def makers(self):
        """Functions that make the objects of names, from their arguments."""
        return {DICTIONARY: self.dictionary}

    def finished(self, target, state):
        """An object that was made, with its state."""
        # Attributes, such as the versions of a state dict's modules, are left out.
        if type(target) is not dict or type(state) is not dict:
            raise CheckpointError("is damaged: attributes of something not a dict")
        return target

    def persistent(self, description):
        """The object that is kept elsewhere, under this description."""
        self.refuse("a reference to something outside of it")

    # ---- stack and memory ---------------------------------------------------------

    def mark(self, _):
        self.marks.append(len(self.stack))

    def since_mark(self):
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def last(self, count):
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise CheckpointError("is damaged: its description lacks values")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def put(self, index):
        self.memory[index] = self.stack[-1]

    def memoize(self, _):
        self.put(len(self.memory))

    def get(self, index):
        self.stack.append(self.memory[index])

    # ---- containers ---------------------------------------------------------------

    def make_tuple(self, items):
        self.stack.append(tuple(items))

    def make_list(self, _):
        self.stack.append(self.since_mark())

    def make_dict(self, _):
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def append(self, items):
        if type(self.stack[-1]) is not list:
            raise CheckpointError("is damaged: it appends to something not a list")
        self.stack[-1].extend(items)

    def set_items(self, items):
        if type(self.stack[-1]) is not dict:
            raise CheckpointError("is damaged: it sets items of something not a dict")
        if any(type(key) not in (str, int) for key in items[::2]):
            raise CheckpointError("holds keys that are neither strings nor integers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def dictionary(self, pairs=()):
        self.stack.append({})
        self.set_items([item for key, value in pairs for item in (key, value)])
        return self.stack.pop()

    # ---- names, and what is made with them ----------------------------------------

    def name(self, module_and_name):
        text = module_and_name.replace(" ", ".", 1)
        if text not in self.names:
            self.refuse(f"it refers to {text!r}")
        self.stack.append(Name(text))

    def stack_name(self, _):
        module, name = self.last(2)
        self.name(f"{module} {name}")

    def refer(self, _):
        (description,) = self.last(1)
        self.stack.append(self.persistent(description))

    def reduce(self, _):
        name, arguments = self.last(2)
        makers = self.makers()
        if not isinstance(name, Name) or name.text not in makers:
            raise CheckpointError("is damaged: it calls something that is no function")
        self.stack.append(makers[name.text](*arguments))

    def build(self, _):
        target, state = self.last(2)
        self.stack.append(self.finished(target, state))


CONSTANTS: dict[str, Callable] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
OPERATIONS: dict[str, Callable] = {
    "MARK": PickleProgram.mark,
    "TUPLE": lambda machine, _: machine.make_tuple(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.make_tuple(machine.last(1)),
    "TUPLE2": lambda machine, _: machine.make_tuple(machine.last(2)),
    "TUPLE3": lambda machine, _: machine.make_tuple(machine.last(3)),
    "LIST": PickleProgram.make_list,
    "APPEND": lambda machine, _: machine.append(machine.last(1)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "DICT": PickleProgram.make_dict,
    "SETITEM": lambda machine, _: machine.set_items(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    # Through the instance, where a subclass may have its own.
    **dict.fromkeys(
        ("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, index: machine.put(index)
    ),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleProgram.get),
    "MEMOIZE": PickleProgram.memoize,
    **dict.fromkeys(("GLOBAL", "INST"), PickleProgram.name),
    "STACK_GLOBAL": PickleProgram.stack_name,
    "BINPERSID": PickleProgram.refer,
    "REDUCE": PickleProgram.reduce,
    "BUILD": PickleProgram.build,
}
