"""Read pickles as data: a stack machine on which the name of a function is only a text.

A pickle is a program for a small stack machine (its opcodes are documented in the standard
library's `pickletools`), and unpickling runs it. This one runs the opcodes that build plain
values. A global name becomes a `Global`, never an import, and a call of it runs the function that
this package has for that name. Whatever it has none for is refused by name.

Python's own Unpickler and torch.load(weights_only=True) are not used: a file of 2 MB (a tuple
nested two million times, as a dictionary's key) ends the process in either, and a single opcode
makes the former reserve gigabytes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from hublatent.errors import HublatentError

# Three networks of NVIDIA's largest size (1024x1024, 376 MB) take 430,000 operations.
MAX_OPERATIONS = 3_000_000
MAX_INT_BITS = 128


class PickleError(HublatentError):
    """A pickle is damaged, or holds something else than data; the message continues "it ..."."""


@dataclass(frozen=True)
class Global:
    """A global that a pickle mentions.

    Attributes:
        name: such as "collections.OrderedDict"; only a text.
        function: what a call of it runs here; None for one that is mentioned but never called.
    """

    name: str
    function: Callable[..., Any] | None = None


Resolver = Callable[[str], Global | None]


class Buildable:
    """A value whose state follows it in the pickle (opcode BUILD)."""

    def build(self, state: Any) -> None:
        """Take the state; refuse one of another form."""
        raise NotImplementedError


class Budget:
    """How many operations one file may take, those of the pickles inside it included."""

    def __init__(self, operations: int = MAX_OPERATIONS) -> None:
        self.limit = operations
        self.left = operations

    def spend(self, operations: int = 1) -> None:
        """Count operations.

        Raises:
            PickleError: there were too many.
        """
        self.left -= operations
        if self.left < 0:
            raise PickleError(f"takes more than {self.limit:,} operations to read")


def run_pickle(
    stream: BinaryIO,
    resolve: Resolver,
    budget: Budget,
    load_storage: Callable[..., Any] | None = None,
) -> Any:
    """Run one pickle and leave the stream behind its STOP.

    Args:
        stream: what to read, such as io.BytesIO.
        resolve: gives the Global of a "module.name", or None to refuse it.
        budget: counts the operations.
        load_storage: turns torch's persistent identifiers into storages; None refuses them.

    Returns:
        Plain values, and what the functions of Globals returned.

    Raises:
        PickleError: the pickle is truncated or damaged, or holds something else than data.
    """
    machine = _Machine(resolve, load_storage)
    operations = pickletools.genops(stream)
    while True:
        try:
            opcode, argument, position = next(operations)
        except (ValueError, IndexError, OverflowError, MemoryError) as error:
            raise PickleError("is truncated or damaged, or no pickle at all") from error
        budget.spend()
        if opcode.name == "STOP":
            return machine.result()
        try:
            machine.step(opcode.name, argument)
        except (IndexError, KeyError) as error:
            where = "" if position is None else f" at byte {position:,}"
            raise PickleError(f"is damaged{where}: {opcode.name} lacks its operands") from error


class _Machine:
    """The stack, the marks and the memo; one method for each kind of opcode."""

    def __init__(self, resolve: Resolver, load_storage: Callable[..., Any] | None) -> None:
        self.resolve = resolve
        self.load_storage = load_storage
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}  # Python's Unpickler reserves memory up to the index

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(_checked_literal(argument))
        elif opcode in _FRESH:
            self.stack.append(_FRESH[opcode]())
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in _IGNORED:
            raise PickleError(f"uses the opcode {opcode}, which no known format needs")

    def result(self) -> Any:
        if len(self.stack) != 1 or self.marks:
            raise PickleError("is damaged: it stops in the middle of a value")
        return self.stack[0]

    def pop(self) -> Any:
        if self.marks and self.marks[-1] == len(self.stack):
            raise IndexError
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self, argument: Any) -> None:
        self.marks.append(len(self.stack))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, argument: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def tuple_from_mark(self, argument: Any) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def list_from_mark(self, argument: Any) -> None:
        self.stack.append(self.pop_to_mark())

    def dict_from_mark(self, argument: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append({})
        self._set_items(items)

    def short_tuple(self, length: int) -> None:
        items = [self.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def append(self, argument: Any) -> None:
        self._extend([self.pop()])

    def appends(self, argument: Any) -> None:
        self._extend(self.pop_to_mark())

    def set_item(self, argument: Any) -> None:
        value = self.pop()
        self._set_items([self.pop(), value])

    def set_items(self, argument: Any) -> None:
        self._set_items(self.pop_to_mark())

    def discard(self, argument: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def discard_to_mark(self, argument: Any) -> None:
        self.pop_to_mark()

    def duplicate(self, argument: Any) -> None:
        self.stack.append(self.stack[-1])

    def mention(self, argument: str) -> None:
        self._push_global(*argument.split(" ", 1))  # genops joins module and name with a space

    def mention_from_stack(self, argument: Any) -> None:
        name, module = self.pop(), self.pop()
        self._push_global(module, name)

    def call(self, argument: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise PickleError("is damaged: it calls something that is no function")
        if function.function is None:
            raise _refused(function.name)
        try:
            value = function.function(*arguments)
        except TypeError as error:
            raise PickleError(f"calls {function.name} with other arguments") from error
        self.stack.append(value)

    def build(self, argument: Any) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Buildable):
            target.build(state)
        elif not isinstance(target, dict):  # torch's state dicts carry _metadata, unused here
            raise PickleError("is damaged: it gives a state to a plain value")

    def persistent(self, argument: Any) -> None:
        if self.load_storage is None:
            raise PickleError("refers to a storage outside itself")
        identifier = self.pop()
        try:
            storage = self.load_storage(*identifier)
        except TypeError as error:
            raise PickleError("is damaged: it names a storage in another form") from error
        self.stack.append(storage)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise PickleError("is damaged: it appends to something that is no list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise PickleError("is damaged: it sets items of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a nested tuple is recursive; large integers can be made to collide.
            if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 2**31):
                raise PickleError("has a dictionary key that is neither a text nor an integer")
            target[key] = value

    def _push_global(self, module: Any, name: Any) -> None:
        text = f"{module}.{name}"
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("is damaged: it names a global by something that is no text")
        resolved = self.resolve(text)
        if resolved is None:
            raise _refused(text)
        self.stack.append(resolved)


def _refused(text: str) -> PickleError:
    shown = text if text.isprintable() and len(text) <= 100 else repr(text[:100])
    return PickleError(f"asks to run {shown}, which is code and not data; nothing of it was run")


def _checked_literal(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        raise PickleError(f"holds an integer of more than {MAX_INT_BITS} bits")
    return bytes(value) if isinstance(value, bytearray) else value


# fmt: off
_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))
# fmt: on
# A set is kept as the list of its elements: nothing here needs more, and nothing is hashed.
_FRESH: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_IGNORED = frozenset({"PROTO", "FRAME"})
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": _Machine.tuple_from_mark,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "LIST": _Machine.list_from_mark,
    "FROZENSET": _Machine.list_from_mark,
    "DICT": _Machine.dict_from_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "POP": _Machine.discard,
    "POP_MARK": _Machine.discard_to_mark,
    "DUP": _Machine.duplicate,
    "GLOBAL": _Machine.mention,
    "STACK_GLOBAL": _Machine.mention_from_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
