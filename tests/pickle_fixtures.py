"""Files as Python 2 wrote them: pickles with byte strings, numpy under its old names, chumpy, scipy's matrices."""

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csc_matrix

_OLD_MODULES = {
    "builtins": "__builtin__",
    "copyreg": "copy_reg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "scipy.sparse._csc": "scipy.sparse.csc",
    "scipy.sparse._csr": "scipy.sparse.csr",
}


class Ch:
    """Stands in for chumpy.ch.Ch: an array with a cache around it."""

    def __init__(self, x: Any) -> None:
        self.x = x
        self._dirty_vars = {"x"}
        self._itr = None


class Select:
    """Stands in for chumpy.reordering.Select: chosen elements of another chumpy object."""

    def __init__(self, a: Any, idxs: np.ndarray, preferred_shape: tuple[int, ...] | None) -> None:
        self.a = a
        self.idxs = idxs
        if preferred_shape is not None:
            self.preferred_shape = preferred_shape


Ch.__module__ = "chumpy.ch"
Select.__module__ = "chumpy.reordering"


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_python2_string(self, text: str | bytes) -> None:
        content = text.encode("latin-1") if isinstance(text, str) else text
        if self.proto == 0:
            self.write(b"S" + repr(content)[1:].encode("ascii") + b"\n")
        elif len(content) < 256:
            self.write(b"U" + bytes([len(content)]) + content)
        else:
            self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = _OLD_MODULES.get(obj.__module__, obj.__module__)
        self.write(f"c{module}\n{name or obj.__qualname__}\n".encode("ascii"))
        self.memoize(obj)

    def save_type(self, obj: type) -> None:
        self.save_global(obj)

    dispatch[str] = save_python2_string
    dispatch[bytes] = save_python2_string
    dispatch[type] = save_type
    dispatch[type(len)] = save_global
    dispatch[type(struct.iter_unpack)] = save_global
    dispatch[type(lambda: None)] = save_global


def dump_python2_pickle(obj: Any, protocol: int = 2) -> bytes:
    """`obj` as Python 2's cPickle writes it: text as byte strings, modules under the names of then.

    Args:
        obj: nested containers, numbers, text, numpy arrays, scipy matrices, `Ch` and `Select`.
        protocol: 0, 1 or 2.
    """
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol).dump(obj)
    return stream.getvalue()


def write_python2_pickle(path: Path, obj: Any, protocol: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump_python2_pickle(obj, protocol))
    return path


def smpl_pickle_content(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """SMPL's arrays (as `body_fixtures.random_body_arrays`) with the objects that its own pickles hold."""
    shapedirs = arrays["shapedirs"]
    select = Select(Ch(shapedirs.ravel()[::-1].copy()), np.arange(shapedirs.size)[::-1], shapedirs.shape)
    return {
        **arrays,
        "J_regressor_prior": csc_matrix(arrays["J_regressor"]),
        "J_regressor": csc_matrix(arrays["J_regressor"]),
        "J": arrays["J_regressor"] @ arrays["v_template"],
        "shapedirs": select,
        "posedirs": Ch(arrays["posedirs"]),
        "weights_prior": arrays["weights"],
        "vert_sym_idxs": np.arange(len(arrays["v_template"])),
        "pose_training_info": {"gender": "neutral", "name": "caf\xe9"},
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write_smpl_pickle(path: Path, arrays: dict[str, np.ndarray], protocol: int = 2) -> Path:
    """A small SMPL .pkl in the official layout: v1.0.0 is of protocol 2, v1.1.0 of protocol 0."""
    return write_python2_pickle(path, smpl_pickle_content(arrays), protocol)
