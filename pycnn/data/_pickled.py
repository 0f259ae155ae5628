"""A reader of the one kind of pickle that data sets come in: a dict of texts, numbers, lists and byte arrays.

Unpickling in general runs whatever functions a file names. This reader runs none: it knows some thirty of the
pickle machine's instructions (Python's `pickletools` lists them all), and of the objects that a file may build
only NumPy's uint8 arrays, which it assembles from their bytes itself. Everything else is refused.
"""

from __future__ import annotations

import math
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn.errors import FormatError

# What NumPy's pickles name, by Python 2 and by each line of NumPy releases.
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    # How Python 3 writes bytes in the old protocols, and no bytes.
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "bytes"): "bytes",
}
_BYTE_TYPES = ("u1", "|u1", "uint8")
_MAX_STEPS = 1_000_000
_MAX_ARRAY_RANK = 8


class _Mark:
    """Where the elements of the next list, tuple or dict begin."""


_MARK = _Mark()


@dataclass(frozen=True)
class _Global:
    kind: str


class _DType:
    """NumPy's element type; only bytes pass."""

    def build(self, _state: Any) -> None:
        """Byte order and the like mean nothing for bytes."""


class _Array:
    """An array whose shape and bytes are still to come."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """Take (version, shape, element type, whether columns come first, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("an array of another form")
        _version, shape, dtype, columns_first, data = state
        if not isinstance(dtype, _DType):
            raise _RefusedError("an array whose elements are not uint8")
        if not isinstance(data, bytes):
            raise _RefusedError("an array that is not made of bytes")
        good = isinstance(shape, tuple) and len(shape) <= _MAX_ARRAY_RANK
        if not good or not all(type(side) is int and side >= 0 for side in shape):
            raise _RefusedError(f"an array of shape {_kinds(shape)}")
        if math.prod(shape) != len(data):
            raise _RefusedError(f"an array of shape {str(shape)[:80]} with {len(data)} bytes")
        flat = np.frombuffer(data, np.uint8)
        self.value = flat.reshape(shape, order="F" if columns_first else "C")


class _RefusedError(Exception):
    pass


def read_pickled(data: bytes, *, where: str) -> dict[str, Any]:
    """Read a dict.

    Args:
        data: The whole file, of protocol 0 to 5.
        where: Named in errors.

    Returns:
        Its content, with text as `str`: None, bool, int, float, str, list, tuple, dict, uint8 arrays.

    Raises:
        FormatError: Damaged, cut off, or anything beyond that; the text gives the byte.
    """
    machine = _Machine(len(data))
    position = 0
    try:
        # pickletools warns of odd escapes in texts.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            for count, (opcode, argument, offset) in enumerate(pickletools.genops(data)):
                position = offset or 0
                if count >= _MAX_STEPS:
                    raise _RefusedError(f"more than {_MAX_STEPS} instructions")
                machine.step(opcode.name, argument)
    except _RefusedError as error:
        raise FormatError(
            f"{where}: at byte {position}: {error}\n  hint: only dicts of texts, numbers and uint8 arrays are read"
        ) from None
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, UnicodeError, RecursionError) as error:
        raise FormatError(f"{where}: damaged pickle at or after byte {position}: {str(error)[:200]}") from None
    result = machine.result
    if not isinstance(result, dict):
        raise FormatError(f"{where}: holds {type(result).__name__}, expected a dict")
    texts: dict[int, str] = {}
    return {_text(key): _finished(value, texts) for key, value in result.items()}


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _is_text(value: Any, *choices: str) -> bool:
    return isinstance(value, str | bytes) and _text(value) in choices


def _kinds(value: Any) -> str:
    """A value as an error shows it: types and lengths, since the memo makes small files hold endless content."""
    if not isinstance(value, tuple):
        return type(value).__name__
    more = f", ... {len(value)} in all" if len(value) > _MAX_ARRAY_RANK else ""
    return f"({', '.join(type(item).__name__ for item in value[:_MAX_ARRAY_RANK])}{more})"


def _finished(value: Any, texts: dict[int, str]) -> Any:
    """The value with arrays in place of their stand-ins; one level of lists, which is all there is."""
    if isinstance(value, list):
        return [_plain(item, texts) for item in value]
    return _plain(value, texts)


def _plain(value: Any, texts: dict[int, str]) -> Any:
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, bytes):
        return value
    # Bytes that stand in many places become one text.
    text = texts.get(id(value))
    if text is None:
        text = texts[id(value)] = value.decode("latin-1")
    return text


class _Machine:
    """Stack and memo of the pickle machine."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        # Every text of the file is made bytes once at most.
        self.left_to_encode = size
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in _VALUES:
            self.stack.append(_VALUES[name](argument))
            return
        action = _ACTIONS.get(name)
        if action is None:
            raise _RefusedError(f"instruction {name}")
        action(self, argument)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise _RefusedError("a mark out of place")
        return value

    def top(self, kind: type) -> Any:
        """What lies on top, which must be of this type."""
        value = self.stack[-1]
        if type(value) is not kind:
            raise _RefusedError(f"{type(value).__name__} where a {kind.__name__} is needed")
        return value

    def pop_to_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise _RefusedError("no mark")

    # ---- Instructions

    def proto(self, argument: int) -> None:
        if not 0 <= argument <= 5:
            raise _RefusedError(f"protocol {argument}")

    def nothing(self, _argument: Any) -> None:
        pass

    def stop(self, _argument: Any) -> None:
        self.result = self.pop()
        if self.stack:
            raise _RefusedError("values are left over")

    def put(self, argument: Any) -> None:
        # A dict: a large number costs no memory, unlike in Python's own reader.
        self.memo[int(argument)] = self.stack[-1]

    def memoize(self, _argument: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, argument: Any) -> None:
        self.stack.append(self.memo[int(argument)])

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)][::-1]
        self.stack.append(tuple(items))

    def make_tuple(self, _argument: Any) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def make_list(self, _argument: Any) -> None:
        self.stack.append(self.pop_to_mark())

    def append(self, _argument: Any) -> None:
        item = self.pop()
        self.top(list).append(item)

    def appends(self, _argument: Any) -> None:
        items = self.pop_to_mark()
        self.top(list).extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise _RefusedError("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, bytes)):
                raise _RefusedError(f"a key that is a {type(key).__name__}")
            target[key] = value

    def setitem(self, _argument: Any) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def setitems(self, _argument: Any) -> None:
        self._set(self.pop_to_mark())

    def make_dict(self, _argument: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append({})
        self._set(items)

    def named(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_global(module, name)

    def named_by_stack(self, _argument: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(module, str | bytes) or not isinstance(name, str | bytes):
            raise _RefusedError(f"it names {_kinds((module, name))}")
        self._push_global(_text(module), _text(name))

    def _push_global(self, module: str, name: str) -> None:
        kind = _GLOBALS.get((module, name))
        if kind is None:
            raise _RefusedError(f"it names '{module[:80]}.{name[:80]}'")
        self.stack.append(_Global(kind))

    def reduce(self, _argument: Any) -> None:
        """Where a general reader would call a function."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise _RefusedError("a call of something that is no function")
        if function.kind == "reconstruct" and len(arguments) == 3 and arguments[0] == _Global("ndarray"):
            self.stack.append(_Array())
        elif function.kind == "dtype" and arguments and _is_text(arguments[0], *_BYTE_TYPES):
            self.stack.append(_DType())
        elif function.kind == "frombuffer" and len(arguments) == 4 and arguments[3] in ("C", "F"):
            data, dtype, shape, order = arguments
            array = _Array()
            array.build((1, shape, dtype, order == "F", data))
            self.stack.append(array)
        elif function.kind == "bytes" and not arguments:
            self.stack.append(b"")
        elif function.kind == "encode" and len(arguments) == 2 and _is_text(arguments[1], "latin1", "latin-1"):
            text = arguments[0]
            if not isinstance(text, str):
                raise _RefusedError("bytes made from no text")
            self.left_to_encode -= len(text)
            if self.left_to_encode < 0:
                raise _RefusedError("more bytes than the file has")
            self.stack.append(text.encode("latin-1"))
        else:
            raise _RefusedError(f"a call of {function.kind} with {_kinds(arguments)}")

    def build(self, _argument: Any) -> None:
        state = self.pop()
        target = self.stack[-1]
        if not isinstance(target, (_Array, _DType)):
            raise _RefusedError(f"a {type(target).__name__} with a state")
        target.build(state)


def _same(value: Any) -> Any:
    return value


def _bytes(value: Any) -> bytes:
    """Python 2 wrote texts and bytes alike; genops gives them as text of one byte a character."""
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)


_VALUES: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"), _same),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _same),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _bytes),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _bytes),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
    "MARK": lambda _: _MARK,
}

_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.proto,
    "FRAME": _Machine.nothing,
    "STOP": _Machine.stop,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MEMOIZE": _Machine.memoize,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Machine.make_list,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "DICT": _Machine.make_dict,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.named_by_stack,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
