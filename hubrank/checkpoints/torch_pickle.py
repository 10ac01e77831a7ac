"""Read the pickle inside a torch checkpoint without running it.

A pickle is a program for a small stack machine. This machine knows the instructions that state dicts are written with,
and a fixed list of names. Nothing it names is ever imported or called: a tensor becomes a description of where its
numbers lie, and what holds no weights becomes a placeholder. Any other name or instruction is refused, as
``torch.load(weights_only=True)`` refuses it (``torch/_weights_only_unpickler.py``), but without importing torch.

Time and memory are bounded by :data:`MAX_INSTRUCTIONS`. Only strings are used as keys: numbers can be chosen to collide,
and nested tuples take time exponential in their depth to hash.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

from hubrank.checkpoints.dtypes import BYTES
from hubrank.errors import AdapterError

__all__ = ["MAX_INSTRUCTIONS", "Pickled", "Storage", "View", "run_pickle"]

MAX_INSTRUCTIONS = 500_000
"""A tensor takes about 35."""

_MAX_DIMS = 8


@dataclass(frozen=True, slots=True)
class Storage:
    """``count`` numbers of ``item`` bytes each; ``dtype`` None: bytes whose meaning each view states."""

    key: str
    dtype: str | None
    item: int
    count: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: numbers of a storage from ``offset`` on, ``strides`` apart; all counted in numbers, none of it checked."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pickled:
    """What a pickle holds, where it ends, and the storages it names, by key."""

    value: Any
    end: int
    storages: dict[str, Storage]


@dataclass(frozen=True, slots=True)
class _Named:
    """A name of the list: what it stands for, and a dtype where it is about one."""

    kind: str
    dtype: str | None = None


class _Placeholder:
    """Something that holds no weights."""


_NOTHING = _Placeholder()
_DTYPES = {
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32", "Short": "I16",
    "Char": "I8", "Byte": "U8", "Bool": "BOOL", "ComplexFloat": "C64", "ComplexDouble": "C128", "QInt8": "QI8", "QUInt8": "QU8",
    "QInt32": "QI32",
}  # fmt: skip
_SCALARS = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "bool": "BOOL", "complex64": "C64", "complex128": "C128",
}  # fmt: skip
_BYTES = {**BYTES, "C64": 8, "C128": 16, "QI8": 1, "QU8": 1, "QI32": 4}
_IGNORED = (
    "torch.Size", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter", "torch.serialization._get_layout",
    "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_qtensor", "torch._utils._rebuild_meta_tensor_no_storage",
    "torch.per_tensor_affine", "torch.per_channel_affine", "collections.Counter", "collections.defaultdict",
    "builtins.set", "__builtin__.set", "builtins.bytearray", "__builtin__.bytearray", "builtins.dict", "__builtin__.dict",
    "builtins.complex", "__builtin__.complex", "_codecs.encode",
    "torch.float8_e4m3fnuz", "torch.float8_e5m2fnuz",
)  # fmt: skip
_NAMES = MappingProxyType(
    {
        **{name: _Named("nothing") for name in _IGNORED},
        **{f"torch.{name}Storage": _Named("storage", dtype) for name, dtype in _DTYPES.items()},
        **{f"torch.{name}": _Named("dtype", dtype) for name, dtype in _SCALARS.items()},
        "torch.storage.UntypedStorage": _Named("storage"),
        "collections.OrderedDict": _Named("mapping"),
        "torch._utils._rebuild_tensor": _Named("tensor"),
        "torch._utils._rebuild_tensor_v2": _Named("tensor"),
        "torch._utils._rebuild_tensor_v3": _Named("tensor"),
        "torch._utils._rebuild_parameter": _Named("parameter"),
        "torch._utils._rebuild_parameter_with_state": _Named("parameter"),
        "torch._tensor._rebuild_from_type_v2": _Named("typed"),
    }
)


def run_pickle(data: bytes | memoryview, start: int = 0) -> Pickled:
    """Read the pickle that starts at ``start``.

    Values are str, int, float, bool, None, bytes, lists, tuples, dicts with string keys, :class:`View`, and placeholders.

    Raises:
        AdapterError: ``unsafe file`` for a name or an instruction that state dicts have no use for; ``damaged file``;
            ``file too large``.
    """
    machine = _Machine(memoryview(data), start)
    try:
        return Pickled(machine.run(), machine.at, machine.storages)
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        raise AdapterError("damaged file", f"the pickle breaks off or contradicts itself ({type(error).__name__})") from None


class _Machine:
    """State of one run: ``at`` in the data, the stack, the stacks put aside by marks, the memo, the storages named."""

    def __init__(self, data: memoryview, start: int) -> None:
        self.data, self.at = data, start
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        data, instructions = self.data, _TABLE
        for _ in range(MAX_INSTRUCTIONS):
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stack.pop()
            instruction = instructions[code]
            if instruction is None:
                _refuse(code)
            instruction(self)
        raise AdapterError("file too large", f"the pickle has more than {MAX_INSTRUCTIONS:,} instructions")

    def take(self, count: int) -> memoryview:
        piece = self.data[self.at : self.at + count]
        if count < 0 or len(piece) != count:
            raise ValueError
        self.at += count
        return piece

    def byte(self) -> int:
        value: int = self.data[self.at]
        self.at += 1
        return value

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self) -> str:
        # A module or class name; the longest that torch writes has under 100 characters.
        piece = bytes(self.data[self.at : self.at + 256])
        end = piece.index(b"\n")
        self.at += end + 1
        return piece[:end].decode()

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.aside.pop()
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_text(self, size: int) -> None:
        self.stack.append(str(self.take(self.number(size)), "utf-8", "surrogatepass"))

    def push_bytes(self, size: int) -> None:
        self.take(self.number(size))
        self.stack.append(_NOTHING)

    def push_tuple(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) != count:
            raise IndexError
        self.stack[-count:] = [items]

    def mark(self) -> None:
        self.aside.append(self.stack)
        self.stack = []

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def append(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(values[::2], values[1::2], strict=True):
                if isinstance(key, str):
                    target[key] = value

    def name(self, module: Any, attribute: Any) -> None:
        name = f"{module}.{attribute}" if isinstance(module, str) and isinstance(attribute, str) else ""
        if name not in _NAMES:
            raise AdapterError("unsafe file", f"the pickle names {name[:80]!r}, which no state dict needs; it was not run")
        self.stack.append(_NAMES[name])

    def persistent(self) -> None:
        match self.stack.pop():
            case ("storage", _Named(kind="storage", dtype=dtype), str(key), _, int(count), *views) if views in ([], [None]):
                storage = Storage(key, dtype, _BYTES[dtype] if dtype else 1, count)
                if count < 0 or self.storages.setdefault(key, storage) != storage:
                    raise ValueError
                self.push(storage)
            case _:
                raise ValueError

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_call(function, arguments))

    def build(self) -> None:
        del self.stack[-1]  # attributes of what lies below: no weights


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Named) or not isinstance(arguments, tuple):
        raise AdapterError("unsafe file", "the pickle calls something that state dicts never call; it was not run")
    match function.kind, arguments:
        case "typed", (_Named(kind=kind) as inner, _, tuple(inner_arguments), *_) if kind != "typed":
            return _call(inner, inner_arguments)
        case "tensor", (Storage() as storage, int(offset), tuple(shape), tuple(strides), *rest):
            stated = rest[2].dtype if len(rest) > 2 and isinstance(rest[2], _Named) else None
            dtype = storage.dtype or stated
            whole = all(type(n) is int for n in (*shape, *strides)) and type(offset) is int
            if not whole or len(shape) > _MAX_DIMS or len(shape) != len(strides):
                raise AdapterError("unsafe file", "a tensor has an impossible shape")
            return View(storage, dtype, offset, shape, strides) if dtype else _NOTHING
        case "parameter", (value, *_):
            return value
        case "mapping", ():
            return {}
        case "mapping", (list(pairs),):
            return {
                pair[0]: pair[1] for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2 and type(pair[0]) is str
            }
        case _:
            return _NOTHING


def _refuse(code: int) -> NoReturn:
    known = next((op.name for op in pickletools.opcodes if op.code.encode("latin-1")[0] == code), None)
    if known is None:
        raise AdapterError("damaged file", f"byte {code:#04x} is no pickle instruction")
    raise AdapterError("unsafe file", f"the pickle uses {known}, which no state dict needs; it was not run")


def _proto(machine: _Machine) -> None:
    if machine.number(1) > 5:
        raise ValueError


def _long(machine: _Machine) -> None:
    size = machine.number(1)
    if size > 16:  # the file's magic number has ten bytes
        raise ValueError
    machine.push(machine.number(size, signed=True))


def _pop(machine: _Machine) -> None:
    machine.stack.pop()


def _stack_name(machine: _Machine) -> None:
    attribute, module = machine.stack.pop(), machine.stack.pop()
    machine.name(module, attribute)


_INSTRUCTIONS: MappingProxyType[int, Callable[[_Machine], object]] = MappingProxyType(
    {
        0x80: _proto,
        0x95: lambda m: m.take(8),  # FRAME
        ord("("): _Machine.mark,
        ord("0"): _pop,
        ord("N"): lambda m: m.stack.append(None),
        0x88: lambda m: m.stack.append(True),
        0x89: lambda m: m.stack.append(False),
        ord("K"): lambda m: m.stack.append(m.byte()),
        ord("M"): lambda m: m.stack.append(m.number(2)),
        ord("J"): lambda m: m.stack.append(m.number(4, signed=True)),
        0x8A: _long,
        ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        ord("X"): lambda m: m.push_text(4),
        0x8C: lambda m: m.push_text(1),
        ord("U"): lambda m: m.push_text(1),
        ord("C"): lambda m: m.push_bytes(1),
        ord("B"): lambda m: m.push_bytes(4),
        ord("]"): lambda m: m.push([]),
        ord("}"): lambda m: m.push({}),
        0x8F: lambda m: m.push(_NOTHING),  # EMPTY_SET
        0x90: lambda m: m.since_mark(),  # ADDITEMS
        ord(")"): lambda m: m.stack.append(()),
        ord("t"): lambda m: m.push(tuple(m.since_mark())),
        0x85: lambda m: m.push_tuple(1),
        0x86: lambda m: m.push_tuple(2),
        0x87: lambda m: m.push_tuple(3),
        ord("a"): lambda m: m.append([m.stack.pop()]),
        ord("e"): lambda m: m.append(m.since_mark()),
        ord("s"): lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
        ord("u"): lambda m: m.set_items(m.since_mark()),
        ord("q"): lambda m: m.remember(m.byte()),
        ord("r"): lambda m: m.remember(m.number(4)),
        0x94: lambda m: m.remember(len(m.memo)),
        ord("h"): lambda m: m.stack.append(m.memo[m.byte()]),
        ord("j"): lambda m: m.stack.append(m.memo[m.number(4)]),
        ord("c"): lambda m: m.name(m.line(), m.line()),
        0x93: _stack_name,
        ord("R"): _Machine.reduce,
        ord("b"): _Machine.build,
        ord("Q"): _Machine.persistent,
    }
)
_TABLE = tuple(_INSTRUCTIONS.get(code) for code in range(256))
