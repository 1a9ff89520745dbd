"""Pickles read as data: everything a data set holds comes out, everything else is refused and nothing runs."""

import pickle
import re
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pickle_fixtures import Ch, Select, dump_python2_pickle
from scipy.sparse import csc_array, csc_matrix, csr_matrix

from core.refusing_unpickler import SparseMatrix, read_npz, read_pickle, unpickle

PLAIN: dict[str, Any] = {
    "numbers": [1, -7, 300, 70000, 2**40, -(2**70), 2.5, float("inf"), True, False, None, 1 + 2j],
    "text": ["", "ü", "x" * 300, "surrogate \ud800", "quote ' and \n newline"],
    "bytes": [b"", b"\x00\xff", b"y" * 70000, bytearray(b"abc")],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "sets": [{1, "a"}, frozenset([(1, 2)]), set()],
    "nested": OrderedDict(a={"b": [{"c": ()}]}, d=None),
    "keys": {1: "a", (1, "b"): "c", None: "d", 2.5: "e", b"f": "g"},
}
ARRAYS = {
    "matrix": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "big_endian": np.arange(5, dtype=">i2"),
    "booleans": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "text": np.array(["ab", "ü"]),
    "bytes": np.array([b"ab", b"c"]),
    "empty": np.zeros((0, 5), dtype=np.float32),
    "no_dimension": np.array(3),
    "large": np.arange(5000.0),
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(protocol: int) -> None:
    read = unpickle(pickle.dumps(PLAIN, protocol), "file")
    assert read == PLAIN
    assert isinstance(read["nested"], OrderedDict)
    assert [type(item) for item in read["bytes"]] == [bytes, bytes, bytes, bytearray]
    shared = [1]
    first, second = unpickle(pickle.dumps([shared, shared], protocol), "file")
    assert first is second


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_protocol(name: str, protocol: int) -> None:
    read = unpickle(pickle.dumps(ARRAYS[name], protocol), "file")
    np.testing.assert_array_equal(read, ARRAYS[name])
    assert read.dtype.newbyteorder("=") == ARRAYS[name].dtype.newbyteorder("=")
    read[...] = read[::-1] if read.ndim else read  # arrays can be written to


@pytest.mark.parametrize("protocol", range(6))
def test_scalars_dtypes_object_arrays_and_sparse_matrices(protocol: int) -> None:
    objects = np.empty((2, 2), dtype=object)
    objects[0, 0], objects[0, 1], objects[1, 0] = {"a": np.ones(3)}, "text", [1, None]
    scalars = [np.float32(3.5), np.int64(-1), np.bool_(True), np.str_("ü"), np.bytes_(b"x"), np.dtype("<f4")]
    sparse = [csc_matrix(np.eye(3)[:2]), csr_matrix(np.eye(3)[:2]), csc_array(np.eye(3)[:2])]
    content = pickle.dumps((objects, scalars, sparse, np.array(PLAIN, dtype=object)), protocol)
    read_objects, read_scalars, read_sparse, read_plain = unpickle(content, "file")
    assert read_objects.shape == (2, 2)
    assert read_objects[0, 1:].tolist() == ["text"]
    np.testing.assert_array_equal(read_objects[0, 0]["a"], np.ones(3))
    assert read_scalars == scalars
    assert [type(scalar) for scalar in read_scalars] == [type(scalar) for scalar in scalars]
    for matrix in read_sparse:
        np.testing.assert_array_equal(matrix.toarray(), np.eye(3)[:2])
    assert read_plain.item() == PLAIN


@pytest.mark.parametrize("protocol", range(3))
def test_python_2_with_chumpy_and_scipy(protocol: int) -> None:
    values = np.arange(2000.0).reshape(500, 4)
    matrix = csc_matrix(np.round(np.random.default_rng(0).random((5, 7))))
    content = {
        "sequence": "caf\xe9",
        "poses": [values, values[:3]],
        "betas": Ch(values),
        "shapedirs": Select(Ch(values[::-1].copy()), np.array([3, 0, 1, 2]), (2, 2)),
        "row": Select(Ch(values), np.array([1, 0]), None),
        "J_regressor": matrix,
        "ids": {3, 4},
        "big": 2**70,
    }
    data = dump_python2_pickle(content, protocol)
    assert b"chumpy.ch\nCh" in data
    assert b"scipy.sparse.csc\ncsc_matrix" in data
    assert b"numpy.core.multiarray\n_reconstruct" in data
    read = unpickle(data, "file")
    assert (read["sequence"], read["ids"], read["big"]) == ("caf\xe9", {3, 4}, 2**70)
    np.testing.assert_array_equal(read["poses"][1], values[:3])
    np.testing.assert_array_equal(read["betas"], values)
    np.testing.assert_array_equal(read["shapedirs"], values[::-1].ravel()[[3, 0, 1, 2]].reshape(2, 2))
    np.testing.assert_array_equal(read["row"], [1, 0])
    np.testing.assert_array_equal(read["J_regressor"].toarray(), matrix.toarray())


def test_npz_with_objects(tmp_path: Path) -> None:
    path = tmp_path / "data_3d.npz"
    positions = {"S1": {"Walking": np.ones((4, 32, 3), dtype=np.float32)}}
    np.savez_compressed(
        path,
        positions_3d=np.array(positions, dtype=object),
        rate=50.0,
        names=np.array([["a"], "b"], dtype=object),
    )
    read = read_npz(path)
    np.testing.assert_array_equal(read["positions_3d"].item()["S1"]["Walking"], positions["S1"]["Walking"])
    assert read["rate"] == 50
    assert read["names"].tolist() == [["a"], "b"]


# What a hostile file may ask for, as protocol 0 spells it; every one would leave the marker if it ran.


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    return b"c" + f"{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR."


def _text(text: str) -> bytes:
    return b"V" + text.encode("raw-unicode-escape") + b"\n"


def _hostile(marker: Path) -> dict[str, bytes]:
    make = f"open({str(marker)!r}, 'w').close()"
    shell = f"touch {marker}"
    attribute = b"c__builtin__\ngetattr\n(cos\npath\n" + _text("os") + b"tR"
    return {
        "os.system": _call("os", "system", _text(shell)),
        "posix.system": _call("posix", "system", _text(shell)),
        "subprocess.check_output": _call("subprocess", "check_output", _text(shell)),
        "builtins.eval": _call("builtins", "eval", _text(make)),
        "__builtin__.eval": _call("__builtin__", "eval", _text(make)),
        "builtins.exec": _call("builtins", "exec", _text(make)),
        "builtins.getattr": pickle.dumps(getattr, 4),
        "__builtin__.getattr": attribute + b".",
        "builtins.__import__": _call("builtins", "__import__", _text("this")),
        "operator.attrgetter": _call("operator", "attrgetter", _text("system")),
        "functools.partial": _call("functools", "partial", b"cos\nsystem\n"),
        "numpy.testing._private.utils.runstring": _call(
            "numpy.testing._private.utils", "runstring", _text(make), b"(d"
        ),
        "numpy.load": _call("numpy", "load", _text(str(marker))),
        "numpy.f2py.crackfortran.myeval": _call("numpy.f2py.crackfortran", "myeval", _text(make)),
        "numpy.core.multiarray.fromfile": _call("numpy.core.multiarray", "fromfile", _text(str(marker))),
        "scipy.io.loadmat": _call("scipy.io", "loadmat", _text(str(marker))),
        "chumpy.ch.os.system": _call("chumpy.ch", "os.system", _text(shell)),
        "chumpy.reordering.Ravel": b"cchumpy.reordering\nRavel\n)\x81.",
        "numpy.ndarray.tofile": _call("numpy", "ndarray.tofile", _text(str(marker))),
        "_codecs.lookup": _call("_codecs", "lookup", _text("utf-8")),
        "copyreg.__newobj__": _call("copyreg", "__newobj__", b"cos\nsystem\n"),
        "os.popen": b"(" + _text(shell) + b"ios\npopen\n.",
        "types.CodeType": b"(ctypes\nCodeType\no.",
    }


HOSTILE_NAMES = list(_hostile(Path("marker")))


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_code_is_refused_by_name_and_does_not_run(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    content = _hostile(marker)[name]
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(content)
    refused = f"{re.escape(name)}, which is not data .* refused and nothing was executed"
    with pytest.raises(ValueError, match=rf"SMPL_NEUTRAL\.pkl asks for {refused}"):
        read_pickle(path)

    # Inside an array of objects inside an npz.
    plain = np.empty(1, dtype=object)
    np.savez(tmp_path / "plain.npz", data=plain)
    with zipfile.ZipFile(tmp_path / "plain.npz") as archive:
        header = archive.read("data.npy")[:128]
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("data.npy", header + content)
    with pytest.raises(ValueError, match=rf"data\.npz, array 'data', asks for {refused}"):
        read_npz(tmp_path / "data.npz")
    assert not marker.exists()


class _Tricks:
    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def test_admitted_names_do_nothing_but_make_data(tmp_path: Path) -> None:
    """States and calls that would turn an admitted class into a tool."""
    marker = tmp_path / "ran"
    named = {
        "called_class": b"cnumpy\nndarray\n(I9\ntR.",
        "state_of_a_class": b"cnumpy\nndarray\n(dV__setstate__\nI1\nsb.",
        "state_of_a_function": b"c_codecs\nencode\n(dV__code__\nI1\nsb.",
        "state_of_a_list": b"(l(dVappend\nI1\nsb.",
        "class_as_data": b"cnumpy\ndtype\n.",
        "class_in_a_list": b"(lcnumpy\ndtype\na.",
        "bytearray_of_a_size": b"c__builtin__\nbytearray\n(I9999999999\ntR.",
        "set_of_text": b"c__builtin__\nset\n(Vabc\ntR.",
        "object": b"c__builtin__\nobject\n(tR.",
        "encode_with_a_codec": b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        "reconstructor_of_set": b"ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtR.",
        "array_of_a_list": b"cnumpy.core.multiarray\n_reconstruct\n((l(I0\ntVb\ntR.",
        "never_given": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR.",
        "fields": b"cnumpy\ndtype\n(Vf8,f8\nI0\nI1\ntR.",
        "persistent": b"Pid\n.",
        "extension": b"\x82\x01.",
        "sparse_without_state": b"cscipy.sparse.csc\ncsc_matrix\n)\x81.",
    }
    for name, content in named.items():
        with pytest.raises(ValueError, match=r"^the file (is not a pickle|refers to objects)"):
            pytest.fail(f"{name} gave {unpickle(content, 'the file')!r}")
    for reduced in ((marker.touch, ()), (print, ("ran",)), (Path.touch, (marker,))):
        with pytest.raises(ValueError, match="which is not data"):
            unpickle(pickle.dumps({"a": _Tricks(*reduced)}), "the file")
    assert not marker.exists()


def _array_state(shape: bytes, content: bytes, dtype: bytes = b"f8") -> bytes:
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n"
        + shape
        + b"cnumpy\ndtype\n(V"
        + dtype
        + b"\nI0\nI1\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntbI00\n"
        + content
        + b"tb."
    )


DAMAGED = {
    "empty": b"",
    "text": b"<!DOCTYPE html><html>",
    "cut_off": pickle.dumps(ARRAYS)[:-300],
    "no_stop": b"\x80\x02N",
    "unknown_protocol": b"\x80\x63N.",
    "stack_underflow": b"\x80\x02a.",
    "no_mark": b"\x80\x02t.",
    "no_memo": b"\x80\x02h\x07.",
    "huge_text": b"X\xff\xff\xff\xff.",
    "huge_bytes": b"\x8e" + struct.pack("<Q", 1 << 60) + b".",
    "huge_bytearray": b"\x96" + struct.pack("<Q", 1 << 62) + b".",
    "negative_long": b"\x8b\xff\xff\xff\xff.",
    "huge_integer": b"I" + b"9" * 100_000 + b"\n.",
    "huge_array": _array_state(b"(I99999999999\nI99999999999\nt", b"Vx\n"),
    "negative_array": _array_state(b"(I-1\nt", b"Vx\n"),
    "huge_object_array": _array_state(b"(I99999999999\nt", b"(l", b"O8"),
    "huge_string_type": _array_state(b"(I1\nt", b"Vx\n", b"S2000000000"),
    "unknown_type": _array_state(b"(I1\nt", b"Vx\n", b"f7"),
    "odd_dict": b"(I1\nd.",
    "list_as_key": b"(]I1\nd.",
    "not_hashable": b"}(]Nu.",
    "own_item": b"]q\x00h\x00a.",
    "nested": b"]" * 3_000 + b"a" * 2_999 + b".",
    "nested_tuples": b"N" + b"\x85" * 3_000 + b".",
    "nested_key": b"}(N" + b"\x85" * 3_000 + b"Nu.",
    "billion_laughs": b"N" + b"".join(b"q\x00h\x00\x86" for _ in range(60)) + b".",
    "laughing_key": b"}(N" + b"".join(b"q\x00h\x00\x86" for _ in range(60)) + b"Nu.",
    "laughing_sets": b"("
    + b"N" * 5000
    + b"lq\x00"
    + b"0c__builtin__\nfrozenset\nq\x01"
    + b"h\x01(h\x00tR" * 2000
    + b".",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_one_sentence_within_bounded_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.pkl"
    path.write_bytes(DAMAGED[name])
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"broken\.pkl ") as caught:
        read_pickle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert peak < 200 * len(DAMAGED[name]) + (4 << 20)


def test_a_huge_memo_index_costs_nothing() -> None:
    tracemalloc.start()
    assert unpickle(b"Nr\xff\xff\xff\xff.", "file") is None
    assert unpickle(b"Np999999999999\n.", "file") is None
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_large_arrays_are_held_at_most_twice(tmp_path: Path) -> None:
    path = tmp_path / "large.pkl"
    path.write_bytes(pickle.dumps({"a": np.zeros(2_000_000), "b": np.ones(2_000_000)}, 4))
    tracemalloc.start()
    read = read_pickle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read["b"][-1] == 1
    assert peak < 2.1 * path.stat().st_size


def test_damaged_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.npz"
    with pytest.raises(FileNotFoundError, match=r"data\.npz"):
        read_npz(path)
    with pytest.raises(FileNotFoundError, match=r"data\.npz"):
        read_pickle(path)
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"data\.npz is not an npz archive"):
        read_npz(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", bytes(4 << 20))
    monkeypatch.setattr("core.refusing_unpickler._FREE_UNPACKED_BYTES", 1 << 20)
    with pytest.raises(ValueError, match=r"data\.npz is damaged \(it would unpack to 4 MiB"):
        read_npz(path)
    np.savez(path, a=np.zeros(3))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("a.npy").replace(b"(3,), }", b"(3000000000000,), }".ljust(7))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ValueError, match=r"data\.npz, array 'a', is damaged"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(ValueError, match=r"data\.npz, array 'readme\.txt', is damaged"):
        read_npz(path)


def test_contradicting_sparse_matrices() -> None:
    good = SparseMatrix("csc", (2, 3), np.ones(2), np.array([0, 1]), np.array([0, 1, 2, 2]))
    np.testing.assert_array_equal(good.toarray(), [[1, 0, 0], [0, 1, 0]])
    for changes in (
        {"shape": (2, 4)},
        {"shape": (1, 3)},
        {"shape": (100_000, 100_000)},
        {"indices": np.array([0, 5])},
        {"indptr": np.array([0, 3, 1, 2], dtype=np.uint32)},
        {"data": np.ones(3)},
    ):
        with pytest.raises(ValueError, match="sparse"):
            SparseMatrix(**{**good.__dict__, **changes}).toarray()


def test_a_zip_archive_by_a_pickles_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pkl", "w") as archive:
        archive.writestr("a.pkl", pickle.dumps([1]))
    with pytest.raises(ValueError, match=r"a\.pkl is a zip archive; unpack it"):
        read_pickle(tmp_path / "a.pkl")
