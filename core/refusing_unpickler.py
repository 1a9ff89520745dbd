"""Data sets that are distributed as pickles, read without executing anything.

A pickle is a program: opening one with `pickle.load`, or with `np.load(allow_pickle=True)`, runs whatever its
author put in. Here its instructions are interpreted by a machine that knows data alone (containers, numbers,
text, numpy arrays, scipy's sparse matrices, the arrays inside chumpy's objects) and never calls, imports or
looks up what a file names: anything else is refused by its name. Text of Python 2 is decoded as latin-1.

Memory stays within a small multiple of the file's size, and no result is nested so deeply, or shares its
parts so often, that walking through it would not end.

The instructions are those of Python's `pickletools`; numpy's, scipy's and chumpy's states those of their
`__reduce__` and `__getstate__`.
"""

import codecs
import math
import mmap
import struct
import tokenize
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from core.pickled_objects import GLOBALS, Global, Pending, SparseMatrix, built, check_keys

_STOP, _MEMOIZE, _SHORT_BINUNICODE, _BINUNICODE, _LONG_BINGET, _LONG_BINPUT = b".\x94\x8cXjr"
_MAX_PROTOCOL = 5
_MAX_DEPTH = 100
_MAX_INTEGER_BYTES = 1024
# What may be made of a file: copies and shared parts count, so that naming one part often costs.
_MAX_GROWTH = 16
_FREE_BYTES = 1 << 20
# A zip may unpack to a thousand times its size; honest archives of numbers stay far below this.
_MAX_UNPACKING = 32
_FREE_UNPACKED_BYTES = 1 << 28

_ZIP = b"PK\x03\x04"
_PLAIN_TYPES = {str, bytes, bytearray, int, float, complex, bool, type(None)}
_CONTAINER_TYPES = {list, tuple, dict, OrderedDict, set, frozenset}


def read_pickle(path: str | Path) -> Any:
    """What a pickle file of protocol 0 to 5 holds, as plain data.

    Containers, numbers and text; numpy arrays, scalars and dtypes; `SparseMatrix` for scipy's csc and csr
    matrices; for chumpy's `Ch` and `Select` the arrays they stand for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no pickle, is damaged, or asks for anything but data; names the file and what
            was refused.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; fetch it again.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] == _ZIP:
            raise ValueError(f"{path} is a zip archive; unpack it, and name the pickle in it.")
        return unpickle(data, str(path))


def read_npz(path: str | Path) -> dict[str, Any]:
    """The arrays of an npz archive by name; arrays of objects hold plain data, as `read_pickle` gives it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no npz archive, is damaged, or asks for anything but data; names the file, the
            array and what was refused.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an npz archive, or its end is cut off; fetch it again.")
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            num_bytes = sum(member.file_size for member in members)
            packed_bytes = path.stat().st_size
            if any(member.compress_size > packed_bytes for member in members):
                raise ValueError("an array in it is said to be longer than the file")
            if num_bytes > _MAX_UNPACKING * packed_bytes + _FREE_UNPACKED_BYTES:
                raise ValueError(f"it would unpack to {num_bytes >> 20} MiB, which no honest archive does")
            arrays = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                where = f"{path}, array '{_shown(name)}',"
                arrays[name] = _read_npy(archive, member, where)
            return arrays
    except _RefusedError as refused:
        raise ValueError(str(refused)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, LookupError) as error:
        raise ValueError(f"{where} is damaged ({_shown(error)}); fetch the file again.") from None
    except (TypeError, ArithmeticError, MemoryError, RuntimeError, SyntaxError, tokenize.TokenError) as error:
        # An encrypted member, an unknown compression, a header that is no header.
        raise ValueError(f"{where} cannot be read ({_shown(error)}); fetch the file again.") from None


def unpickle(data: bytes | mmap.mmap, name: str) -> Any:
    """As `read_pickle`, from memory; `name` is what errors call it."""
    machine = _Machine(data)
    try:
        return machine.run()
    except _RefusedError as refused:
        raise ValueError(f"{name} {refused}") from None
    except (
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        AttributeError,
        MemoryError,
        struct.error,
    ) as error:
        reason = f" ({_shown(error)})" if str(error) else ""
        raise ValueError(
            f"{name} is not a pickle, or it is damaged at or after byte {machine.position} of {len(data)}{reason}; "
            "fetch it again."
        ) from None


def _shown(said: object) -> str:
    """What an error or a file says, fit for a sentence: on one line, not too long."""
    return str(said).encode("unicode_escape").decode("ascii")[:200]


class _RefusedError(Exception):
    """What a user is told; the file's name is put before it."""


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
        if not dtype.hasobject:
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError("it announces more numbers than it holds")
        else:
            try:
                array = unpickle(file.read(), where)
            except ValueError as error:
                raise _RefusedError(str(error)) from None
            if not isinstance(array, np.ndarray):
                raise ValueError("it announces an array and holds none")
            return array.reshape(shape)
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


class _Machine:
    """Interprets the instructions of one pickle."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.num_pending = 0
        self.budget_bytes = _MAX_GROWTH * len(data) + _FREE_BYTES

    def run(self) -> Any:
        data, stack, memo = self.data, self.stack, self.memo
        position = 0
        # Lists of text, millions of entries long, consist of the instructions that are written out here; all
        # others have a function. What is cut off ends as an IndexError at the next instruction.
        while (opcode := data[position]) != _STOP:
            if opcode == _LONG_BINGET:
                value = memo[int.from_bytes(data[position + 1 : position + 5], "little")]
                stack.append(value if type(value) is not Pending else built(value))
                position += 5
            elif opcode == _MEMOIZE:
                memo[len(memo)] = stack[-1]
                position += 1
            elif opcode in (_BINUNICODE, _SHORT_BINUNICODE):
                start = position + (5 if opcode == _BINUNICODE else 2)
                position = start + int.from_bytes(data[position + 1 : start], "little")
                stack.append(str(data[start:position], "utf-8", "surrogatepass"))
            elif opcode == _LONG_BINPUT:
                memo[int.from_bytes(data[position + 1 : position + 5], "little")] = stack[-1]
                position += 5
            else:
                instruction = _INSTRUCTIONS.get(opcode)
                if instruction is None:
                    raise ValueError(f"there is no instruction {opcode:#x}")
                self.position = position + 1
                instruction(self)
                position = self.position
        result = self.pop()
        if self.num_pending:
            raise ValueError("an object was announced and never given")
        _check_extent(result, max_items=_MAX_GROWTH * len(data) + _FREE_BYTES)
        return result

    # Reading.

    def take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise ValueError("it is cut off")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def take_counted(self, count_bytes: int) -> bytes:
        return self.take(int.from_bytes(self.take(count_bytes), "little"))

    def take_line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise ValueError("it is cut off")
        line = self.data[self.position : end]
        self.position = end + 1
        return line

    # The stack.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise ValueError("more is taken from the stack than lies on it")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def top(self, *types: type) -> Any:
        value = self.stack[-1]
        if type(value) not in types:
            raise ValueError(f"{type(value).__name__} lies where {types[0].__name__} is needed")
        return value

    def get(self, index: int) -> None:
        value = self.memo[index]
        self.push(value if type(value) is not Pending else built(value))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def spend(self, num_bytes: int) -> None:
        """Counts what is made beyond what the file spells out."""
        self.budget_bytes -= num_bytes
        if self.budget_bytes < 0:
            raise ValueError("it grows to many times its size")

    # Objects.

    def find_global(self, module: str, name: str) -> None:
        call = GLOBALS.get((module, name))
        if call is None:
            raise _RefusedError(
                f"asks for {_shown(f'{module}.{name}')}, which is not data and could run code, so it was refused "
                "and nothing was executed; fetch the file from its owner, and do not open this one with pickle."
            )
        self.push(Global(f"{module}.{name}", call))

    def call_global(self, function: Any, arguments: Any) -> None:
        if type(function) is not Global or type(arguments) is not tuple:
            raise ValueError("something is called that is no function, or without arguments")
        result = function.call(self.spend, arguments)
        self.num_pending += type(result) is Pending
        self.push(result)

    def build(self) -> None:
        state = self.pop()
        pending = self.top(Pending)
        pending.value = pending.build(self.spend, state)
        pending.is_built = True
        self.num_pending -= 1
        self.stack[-1] = pending.value

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict, OrderedDict)
        if len(items) % 2:
            raise ValueError("a key has no value")
        keys = items[::2]
        check_keys(keys)
        target.update(zip(keys, items[1::2], strict=True))

    def add_items(self, items: list[Any]) -> None:
        target = self.top(set)
        check_keys(items)
        target.update(items)

    def make_dict(self) -> None:
        items = self.pop_to_mark()
        self.push({})
        self.set_items(items)

    def make_frozenset(self) -> None:
        items = self.pop_to_mark()
        check_keys(items)
        self.push(frozenset(items))

    def make_tuple(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def make_instance(self) -> None:
        """INST: the class is named on two lines, the arguments lie on the stack."""
        module, name = _ascii(self.take_line()), _ascii(self.take_line())
        arguments = tuple(self.pop_to_mark())
        self.find_global(module, name)
        self.call_global(self.pop(), arguments)

    def make_object(self) -> None:
        """OBJ: class and arguments lie on the stack."""
        cls, *arguments = self.pop_to_mark()
        self.call_global(cls, tuple(arguments))

    def call_top(self) -> None:
        arguments = self.pop()
        self.call_global(self.pop(), arguments)

    def find_global_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("the name of a class is no text")
        self.find_global(module, name)

    # Numbers and text.

    def push_integer_line(self) -> None:
        line = self.take_line()
        # Booleans of protocol 0 are told from integers by their leading zero alone.
        self.push(line == b"01" if line in (b"00", b"01") else int(line))

    def push_long(self, count_bytes: int) -> None:
        count = int.from_bytes(self.take(count_bytes), "little")
        if count > _MAX_INTEGER_BYTES:
            raise ValueError(f"an integer has {count} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def push_string_line(self) -> None:
        quoted = self.take_line().strip()
        if len(quoted) < 2 or quoted[:1] != quoted[-1:] or quoted[:1] not in (b"'", b'"'):
            raise ValueError("text is not quoted")
        self.push(codecs.escape_decode(quoted[1:-1])[0].decode("latin-1"))

    def check_protocol(self) -> None:
        protocol = self.take(1)[0]
        if protocol > _MAX_PROTOCOL:
            raise ValueError(f"its protocol is {protocol}, and those up to {_MAX_PROTOCOL} are known")

    def refuse_outside(self) -> NoReturn:
        raise _RefusedError(
            "refers to objects that are kept outside of it (persistent ids, extension codes or buffers), which "
            "no data file does; fetch it again."
        )


def _ascii(name: bytes) -> str:
    return name.decode("ascii", errors="backslashreplace")


def _check_extent(result: Any, max_items: int) -> None:
    """Goes through the containers level by level, each as often as it is referred to from the level above."""
    level: dict[int, tuple[Any, int]] = {0: ([result], 1)}
    num_items = 0
    for _ in range(_MAX_DEPTH):
        counts: Counter[int] = Counter()
        containers: dict[int, Any] = {}
        for container, count in level.values():
            children = _children(container)
            num_items += count * len(children)
            for kind in set(map(type, children)) - _PLAIN_TYPES:
                if kind in _CONTAINER_TYPES or kind is np.ndarray:
                    for child in children:
                        if type(child) is kind and (kind is not np.ndarray or child.dtype.hasobject):
                            counts[id(child)] += count
                            containers[id(child)] = child
                elif not issubclass(kind, (np.generic, np.dtype, SparseMatrix)):
                    raise ValueError("it holds a class instead of data")
        if num_items > max_items:
            raise ValueError("its parts refer to one another too often")
        if not containers:
            return
        level = {key: (container, counts[key]) for key, container in containers.items()}
    raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")


def _children(container: Any) -> Any:
    if isinstance(container, dict):
        return list(container.values())  # keys are atoms, or short tuples of them
    return container.ravel().tolist() if isinstance(container, np.ndarray) else container


def _little(count: int, *, signed: bool = False) -> Callable[[_Machine], None]:
    return lambda m: m.push(int.from_bytes(m.take(count), "little", signed=signed))


def _counted_text(count_bytes: int, encoding: str, errors: str = "strict") -> Callable[[_Machine], None]:
    return lambda m: m.push(m.take_counted(count_bytes).decode(encoding, errors))


def _counted_bytes(count_bytes: int) -> Callable[[_Machine], None]:
    return lambda m: m.push(m.take_counted(count_bytes))


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda m: m.push(value)


_INSTRUCTIONS: dict[int, Callable[[_Machine], Any]] = {
    ord(code): instruction
    for code, instruction in {
        "\x80": _Machine.check_protocol,
        "\x95": lambda m: m.take(8),  # FRAME: how much to buffer, which is of no use here
        # Numbers.
        "N": _constant(None),
        "\x88": _constant(True),
        "\x89": _constant(False),
        "I": _Machine.push_integer_line,
        "L": lambda m: m.push(int(m.take_line().rstrip(b"L"))),
        "F": lambda m: m.push(float(m.take_line())),
        "G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        "J": _little(4, signed=True),
        "K": _little(1),
        "M": _little(2),
        "\x8a": lambda m: m.push_long(1),
        "\x8b": lambda m: m.push_long(4),
        # Text and bytes.
        "S": _Machine.push_string_line,
        "T": _counted_text(4, "latin-1"),
        "U": _counted_text(1, "latin-1"),
        "V": lambda m: m.push(m.take_line().decode("raw-unicode-escape")),
        "\x8d": _counted_text(8, "utf-8", "surrogatepass"),
        "B": _counted_bytes(4),
        "C": _counted_bytes(1),
        "\x8e": _counted_bytes(8),
        "\x96": lambda m: m.push(bytearray(m.take_counted(8))),
        "\x98": lambda m: m.top(bytes, bytearray),  # READONLY_BUFFER
        # Containers.
        "(": lambda m: m.marks.append(len(m.stack)),
        "]": lambda m: m.push([]),
        "}": lambda m: m.push({}),
        ")": _constant(()),
        "\x8f": lambda m: m.push(set()),
        "l": lambda m: m.push(m.pop_to_mark()),
        "t": lambda m: m.push(tuple(m.pop_to_mark())),
        "d": _Machine.make_dict,
        "\x91": _Machine.make_frozenset,
        "\x85": lambda m: m.make_tuple(1),
        "\x86": lambda m: m.make_tuple(2),
        "\x87": lambda m: m.make_tuple(3),
        "a": lambda m: _append(m, [m.pop()]),
        "e": lambda m: _append(m, m.pop_to_mark()),
        "s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
        "u": lambda m: m.set_items(m.pop_to_mark()),
        "\x90": lambda m: m.add_items(m.pop_to_mark()),
        # The stack and what is remembered.
        "0": _Machine.pop,
        "1": _Machine.pop_to_mark,
        "p": lambda m: m.put(int(m.take_line())),
        "q": lambda m: m.put(m.take(1)[0]),
        "g": lambda m: m.get(int(m.take_line())),
        "h": lambda m: m.get(m.take(1)[0]),
        # Objects.
        "c": lambda m: m.find_global(_ascii(m.take_line()), _ascii(m.take_line())),
        "\x93": _Machine.find_global_on_stack,
        "R": _Machine.call_top,
        "\x81": _Machine.call_top,  # NEWOBJ
        "i": _Machine.make_instance,
        "o": _Machine.make_object,
        "b": _Machine.build,
        **dict.fromkeys("PQ\x82\x83\x84\x97", _Machine.refuse_outside),
    }.items()
}


def _append(machine: _Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)
