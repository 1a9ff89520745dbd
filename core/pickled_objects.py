"""What a data file's pickle may name, and what is made of it: numpy's, scipy's and chumpy's arrays, containers.

Nothing of those packages is imported or called for a file; their objects' states (what `__reduce__` and
`__getstate__` of numpy, scipy.sparse and chumpy write) are checked and turned into arrays here.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

_MAX_KEY_TUPLE = 16
_MAX_DENSE_ELEMENTS = 1 << 24
_KEY_TYPES = {str, bytes, int, float, bool, type(None)}
_DTYPE_KINDS = frozenset("biufcSUO")

# Counts the bytes made beyond what the file spells out; raises ValueError when they are too many.
Spend = Callable[[int], None]


@dataclass(frozen=True)
class SparseMatrix:
    """A scipy csc or csr matrix as it lay in a file."""

    format: str
    shape: tuple[int, int]
    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray

    def toarray(self) -> np.ndarray:
        """The dense matrix.

        Raises:
            ValueError: the parts contradict one another, or the dense matrix would be enormous.
        """
        num_rows, num_columns = self.shape
        num_lines, line_length = self.shape if self.format == "csr" else self.shape[::-1]
        if num_rows * num_columns > _MAX_DENSE_ELEMENTS:
            raise ValueError(f"a sparse {num_rows} × {num_columns} matrix is too large to be made dense")
        indptr, indices = self.indptr.astype(np.int64), self.indices.astype(np.int64)
        line_lengths = np.diff(indptr)
        is_sound = (
            self.data.shape == indices.shape == (self.data.size,)
            and indptr.shape == (num_lines + 1,)
            and indptr[0] == 0
            and indptr[-1] == self.data.size
            and (line_lengths >= 0).all()
            and (self.data.size == 0 or 0 <= indices.min() <= indices.max() < line_length)
        )
        if not is_sound:
            raise ValueError(
                f"the parts of a sparse {num_rows} × {num_columns} matrix contradict one another"
            )
        dense = np.zeros((num_lines, line_length), dtype=self.data.dtype)
        np.add.at(dense, (np.repeat(np.arange(num_lines), line_lengths), indices), self.data)
        return dense if self.format == "csr" else np.ascontiguousarray(dense.T)


class Global:
    """An admitted name of a module; it stands for itself and can be called only by the machine."""

    def __init__(self, name: str, call: Callable[[Spend, tuple[Any, ...]], Any]) -> None:
        self.name = name
        self.call = call


class Pending:
    """An object whose state has not been given yet."""

    def __init__(self, build: Callable[[Spend, Any], Any]) -> None:
        self.build = build
        self.is_built = False
        self.value: Any = None


def built(pending: Pending) -> Any:
    if not pending.is_built:
        raise ValueError("an object is made of itself")
    return pending.value


def check_keys(keys: Iterable[Any]) -> None:
    """Keys are hashed: each must be small, so that no file can make that slow or endlessly deep."""
    keys = list(keys)
    kinds = set(map(type, keys))
    if kinds == {str}:
        return
    for key in keys:
        is_sound = type(key) in _KEY_TYPES or isinstance(key, (np.integer, np.str_))
        if type(key) is int:
            is_sound = key.bit_length() < 64
        elif type(key) is tuple:
            is_sound = len(key) <= _MAX_KEY_TUPLE and tuple not in map(type, key)
            if is_sound:
                check_keys(key)
        if not is_sound:
            raise ValueError(f"{type(key).__name__} of this kind is no key")


# What the admitted names stand for.


def _payload(value: Any) -> bytes | bytearray:
    """The bytes of an array; Python 2's are text by now."""
    if type(value) is str:
        return value.encode("latin-1")
    if type(value) not in (bytes, bytearray):
        raise ValueError(f"the content of an array is {type(value).__name__}")
    return value


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError("the shape of an array is no tuple of counts")
    return shape


def _checked_dtype(dtype: Any) -> np.dtype:
    if not isinstance(dtype, np.dtype):
        raise ValueError("the type of an array's numbers is missing")
    return dtype


def _check_characters(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.frombuffer(array.tobytes(), dtype=np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.max() > 0x10FFFF:
            raise ValueError("text has characters that do not exist")
    return array


def _dtype(spend: Spend, arguments: tuple[Any, ...]) -> Pending:
    specification = arguments[0]
    # The letter and a size; what numpy would also take (fields, sub-arrays, class names) is in no data file.
    is_known = (
        type(specification) is str
        and specification.lstrip("<>=|")[:1] in _DTYPE_KINDS
        and (specification.lstrip("<>=|")[1:] or "0").isdecimal()
    )
    if not is_known:
        raise ValueError("an array is not one of numbers, text or objects")

    def build(spend: Spend, state: Any) -> np.dtype:
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "=", "|"):
            raise ValueError("the type of an array's numbers is not described")
        if any(part is not None for part in state[2:5]):
            raise ValueError("an array has fields")
        return np.dtype(specification).newbyteorder(state[1])

    return Pending(build)


def _ndarray(spend: Spend, arguments: tuple[Any, ...]) -> Pending:
    cls = arguments[0]
    if type(cls) is not Global or cls.name != "numpy.ndarray":
        raise ValueError("an array is of no known class")

    def build(spend: Spend, state: Any) -> np.ndarray:
        _, shape, dtype, is_fortran, content = state
        shape, dtype = _checked_shape(shape), _checked_dtype(dtype)
        if dtype.hasobject:
            if type(content) is not list or len(content) != math.prod(shape):
                raise ValueError("an array of objects does not hold as many as its shape says")
        else:
            content = bytes(_payload(content))
            if len(content) != math.prod(shape) * dtype.itemsize:
                raise ValueError("an array does not hold as many numbers as its shape says")
        spend(math.prod(shape) * max(dtype.itemsize, 1))
        array = np.empty(0)
        # numpy's own: it takes over the memory of large contents instead of copying them.
        array.__setstate__((1, shape, dtype, bool(is_fortran), content))  # type: ignore[arg-type]
        return _check_characters(array)

    return Pending(build)


def _array_from_buffer(spend: Spend, arguments: tuple[Any, ...]) -> np.ndarray:
    """Protocol 5: the numbers first."""
    content, dtype, shape, order = arguments
    dtype, shape, content = _checked_dtype(dtype), _checked_shape(shape), _payload(content)
    if dtype.hasobject or len(content) != math.prod(shape) * dtype.itemsize or order not in ("C", "F"):
        raise ValueError("an array does not hold as many numbers as its shape says")
    if not content:
        return np.empty(shape, dtype)
    spend(len(content))
    # A bytearray is writable, and its memory is taken over; bytes are those of a read-only array.
    return _check_characters(np.frombuffer(content, dtype).reshape(shape, order=order))


def _scalar(spend: Spend, arguments: tuple[Any, ...]) -> np.generic:
    dtype, content = _checked_dtype(arguments[0]), _payload(arguments[1])
    if dtype.hasobject or len(content) != dtype.itemsize:
        raise ValueError("a number has not the size of its type")
    spend(len(content))
    return _check_characters(np.frombuffer(content, dtype))[0]


def _sparse(matrix_format: str) -> Callable[[Spend, tuple[Any, ...]], Pending]:
    def build(spend: Spend, state: Any) -> SparseMatrix:
        shape = _checked_shape(tuple(_field(state, "_shape", "shape")))
        parts = {name: _field(state, name) for name in ("data", "indices", "indptr")}
        if len(shape) != 2 or not all(isinstance(part, np.ndarray) for part in parts.values()):
            raise ValueError("a sparse matrix is not described by arrays")
        if parts["data"].dtype.kind not in "biuf" or {
            parts["indices"].dtype.kind,
            parts["indptr"].dtype.kind,
        } - {
            "i",
            "u",
        }:
            raise ValueError("a sparse matrix does not hold numbers at integer places")
        return SparseMatrix(matrix_format, (shape[0], shape[1]), **parts)

    return lambda spend, arguments: Pending(build)


def _chumpy_ch(spend: Spend, arguments: tuple[Any, ...]) -> Pending:
    def build(spend: Spend, state: Any) -> np.ndarray:
        value = _field(state, "x")
        if not isinstance(value, (np.ndarray, np.generic, int, float)):
            raise ValueError("a chumpy object holds no array")
        return np.asarray(value)

    return Pending(build)


def _chumpy_select(spend: Spend, arguments: tuple[Any, ...]) -> Pending:
    def build(spend: Spend, state: Any) -> np.ndarray:
        values, ids = _field(state, "a"), _field(state, "idxs")
        are_arrays = isinstance(values, np.ndarray) and isinstance(ids, np.ndarray)
        if not are_arrays or ids.dtype.kind not in "iu":
            raise ValueError("a chumpy selection holds no array")
        shape = state.get("preferred_shape", ids.shape)
        spend(ids.size * values.dtype.itemsize)
        return values.ravel()[ids].reshape(_checked_shape(tuple(int(size) for size in shape)))

    return Pending(build)


def _field(state: Any, *names: str) -> Any:
    if type(state) is not dict:
        raise ValueError("an object has no named parts")
    for name in names:
        if name in state:
            return state[name]
    raise ValueError(f"an object lacks its part '{names[-1]}'")


def _reconstructed(spend: Spend, arguments: tuple[Any, ...]) -> Pending:
    """copy_reg._reconstructor(class, object, None): how protocols 0 and 1 make an object."""
    cls, base, state = arguments
    if type(cls) is not Global or type(base) is not Global or base.name[-6:] != "object" or state is not None:
        raise ValueError("an object is made in an unknown way")
    pending = cls.call(spend, ())
    if type(pending) is not Pending:
        raise ValueError(f"{cls.name} is made in an unknown way")
    return pending


def _encoded(spend: Spend, arguments: tuple[Any, ...]) -> bytes:
    """_codecs.encode(text, 'latin1'): bytes of Python 3 in protocols before 3."""
    text, *encoding = arguments
    if type(text) is not str or encoding not in (["latin1"], ["latin-1"]):
        raise ValueError("bytes are encoded in an unknown way")
    spend(len(text))
    return text.encode("latin-1")


def _bytes(spend: Spend, arguments: tuple[Any, ...]) -> bytes:
    if arguments:
        raise ValueError("bytes are made in an unknown way")
    return b""


def _bytearray(spend: Spend, arguments: tuple[Any, ...]) -> bytearray:
    content = b"" if not arguments else _payload(arguments[0])
    if arguments[1:] not in ((), ("latin-1",)):
        raise ValueError("bytes are encoded in an unknown way")
    spend(len(content))
    return bytearray(content)


def _complex(spend: Spend, arguments: tuple[Any, ...]) -> complex:
    if len(arguments) != 2 or not all(type(part) in (int, float) for part in arguments):
        raise ValueError("a complex number has no real and imaginary part")
    return complex(*arguments)


def _set(make: Callable[[Any], Any]) -> Callable[[Spend, tuple[Any, ...]], Any]:
    def call(spend: Spend, arguments: tuple[Any, ...]) -> Any:
        items = arguments[0] if arguments else []
        if type(items) not in (list, tuple, set, frozenset) or len(arguments) > 1:
            raise ValueError("a set is made of no list")
        spend(64 * len(items))
        check_keys(items)
        return make(items)

    return call


def _ordered_dict(spend: Spend, arguments: tuple[Any, ...]) -> OrderedDict[Any, Any]:
    pairs = arguments[0] if arguments else []
    if type(pairs) is not list or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
        raise ValueError("an ordered dictionary is made of no pairs")
    spend(64 * len(pairs))
    check_keys(pair[0] for pair in pairs)
    return OrderedDict(pairs)


def _uncallable(spend: Spend, arguments: tuple[Any, ...]) -> NoReturn:
    raise ValueError("a class is called that only names another's kind")


GLOBALS: dict[tuple[str, str], Callable[[Spend, tuple[Any, ...]], Any]] = {
    ("numpy", "ndarray"): _uncallable,
    ("numpy", "dtype"): _dtype,
    **{
        (f"numpy.{core}.{module}", name): call
        for core in ("core", "_core")
        for module, name, call in (
            ("multiarray", "_reconstruct", _ndarray),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _array_from_buffer),
        )
    },
    **{
        (f"scipy.sparse.{module}", f"{matrix_format}_{kind}"): _sparse(matrix_format)
        for matrix_format in ("csc", "csr")
        for module in (matrix_format, f"_{matrix_format}")
        for kind in ("matrix", "array")
    },
    ("chumpy.ch", "Ch"): _chumpy_ch,
    ("chumpy", "Ch"): _chumpy_ch,
    ("chumpy.reordering", "Select"): _chumpy_select,
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): _ordered_dict,
    **{(module, "_reconstructor"): _reconstructed for module in ("copy_reg", "copyreg")},
    **{
        (module, name): call
        for module in ("__builtin__", "builtins")
        for name, call in (
            ("object", _uncallable),
            ("set", _set(set)),
            ("frozenset", _set(frozenset)),
            ("bytes", _bytes),
            ("bytearray", _bytearray),
            ("complex", _complex),
        )
    },
}
