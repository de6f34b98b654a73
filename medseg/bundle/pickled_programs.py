"""The pickled program of a checkpoint: followed instruction by instruction, and nothing run.

What is allowed is what ``torch.save`` writes for tensors and plain values. Even harmless functions
take for ever, or all memory, when they are called on a long value again and again, so arguments are
looked at, too.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from typing import Any

NUMPY_NAMES = (
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray._reconstruct",
    "numpy.dtype",
    "numpy.ndarray",
)
"""What a program may name and does not get."""

_TORCH_NAMES = frozenset(
    (
        "collections OrderedDict",
        "_codecs encode",
        "torch device",
        "torch Size",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
    )
)
_STORAGE = re.compile(
    r"torch (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)
_MOST_AXES = 64

_PLAIN = frozenset(
    (
        *("NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT"),
        *("BININT", "BININT1", "BININT2", "LONG1"),
        *("EMPTY_DICT", "EMPTY_LIST"),
    )
)
"""Instructions that put a value of which nothing needs to be known."""
_TAKES = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}
"""Instruction → how many values it puts into the one before."""
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class ProgramError(Exception):
    """A program does more than write tensors and plain values."""


_MARK = object()
"""Stands where the values of a list begin."""


@dataclass(frozen=True, slots=True)
class _Global:
    """A function or class, by its name."""

    name: str


def check_program(program: bytes) -> None:
    """Refuse a program that does more than ``torch.save`` lets it do for tensors and plain values.

    Raises:
        ProgramError: If it does more.
        ValueError: If it makes no sense; a ``LookupError``, ``EOFError`` or ``OverflowError``, too.
    """
    # Each text that is encoded stands in the program.
    follower = _Follower(len(program))
    for instruction, argument, _ in pickletools.genops(program):
        follower.follow(instruction.name, argument)


@dataclass(slots=True)
class _Follower:
    """The stack and the memo of a program: its texts, names and tuples; ``None`` for the rest.

    Attributes:
        left: How many letters may still be encoded.
        stack: The values that the next instruction takes, the last ones first.
        memo: Values that are taken again.
    """

    left: int
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def follow(self, name: str, argument: Any) -> None:
        """Do to the stack what an instruction does."""
        if name in _PLAIN:
            self.stack.append(None)
        elif name in _TUPLES:
            parts = [self.stack.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(parts)))
        elif name in _TAKES:
            del self.stack[len(self.stack) - _TAKES[name] :]
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            values = self._pop_to_mark()
            if name == "TUPLE":
                self.stack.append(values)
        else:
            self._follow_rest(name, argument)

    def _follow_rest(self, name: str, argument: Any) -> None:
        match name:
            case "PROTO" | "STOP":
                pass
            case "MARK":
                self.stack.append(_MARK)
            case "BINUNICODE":
                self.stack.append(argument)
            case "GLOBAL":
                self.stack.append(_Global(_check_name(argument)))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "BINPERSID":
                self.stack[-1] = None
            case "REDUCE":
                values = self.stack.pop()
                self._check_call(self.stack.pop(), values)
                self.stack.append(None)
            case _:
                raise ProgramError(name)

    def _pop_to_mark(self) -> tuple[Any, ...]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return tuple(reversed(values))

    def _check_call(self, function: Any, values: Any) -> None:
        """Refuse a call that ``torch.save`` does not write."""
        if not isinstance(function, _Global) or not isinstance(values, tuple):
            raise ProgramError("a call of what is no function")
        is_right = True
        match function.name:
            case "_codecs.encode":
                is_right = self._may_encode(values)
            case "collections.OrderedDict":
                is_right = not values
            case "torch.Size":
                is_right = _is_short(values)
        if not is_right:
            raise ProgramError(f"an unusual call of {function.name}")

    def _may_encode(self, values: tuple[Any, ...]) -> bool:
        if values[1:] != ("latin1",) or not isinstance(values[0], str):
            return False
        self.left -= len(values[0])
        return self.left >= 0


def _check_name(name: str) -> str:
    plain = name.replace(" ", ".")
    is_known = name in _TORCH_NAMES or plain in NUMPY_NAMES
    if not is_known and not _STORAGE.fullmatch(name):
        raise ProgramError(plain)
    return plain


def _is_short(values: tuple[Any, ...]) -> bool:
    """Tell whether a function gets one tuple alone, of as few numbers as there are axes."""
    if len(values) != 1 or not isinstance(values[0], tuple):
        return False
    return len(values[0]) <= _MOST_AXES
