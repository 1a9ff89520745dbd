"""Damaged files: whatever bytes a file holds, reading it gives data or one clear ValueError, soon and in bounds."""

import faulthandler
import pickle
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from body_fixtures import random_body_arrays
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pickle_fixtures import dump_python2_pickle, smpl_pickle_content

from body_models.model_files import read_model_arrays
from core.refusing_unpickler import read_npz, read_pickle, unpickle

ARRAYS = random_body_arrays(num_vertices=12)
ARRAYS["v_template"] *= 1.7 / np.ptp(ARRAYS["v_template"][:, 1])
NESTED: dict[str, Any] = {
    "positions": {
        "S1": {"Walking": np.ones((4, 3), dtype=np.float32), "Eating": [np.zeros(2), "text", 2**70]}
    },
    "sets": [{1, 2}, frozenset("ab"), (1, (2.5, None)), b"bytes", bytearray(b"more"), True],
    "objects": np.array([{"a": np.arange(300.0)}, None, "b"], dtype=object),
}


def _archive(folder: Path, arrays: dict[str, Any]) -> bytes:
    np.savez(folder / "original.npz", **arrays)
    return (folder / "original.npz").read_bytes()


def _originals(folder: Path) -> dict[str, tuple[bytes, Callable[[Path], Any]]]:
    return {
        **{
            f"smpl_{protocol}": (
                dump_python2_pickle(smpl_pickle_content(ARRAYS), protocol),
                read_model_arrays,
            )
            for protocol in (0, 2)
        },
        **{f"nested_{protocol}": (pickle.dumps(NESTED, protocol), read_pickle) for protocol in range(6)},
        "smpl_npz": (_archive(folder, ARRAYS), read_model_arrays),
        "nested_npz": (
            _archive(folder, {key: np.array(value, object) for key, value in NESTED.items()}),
            read_npz,
        ),
    }


NAMES = ["smpl_0", "smpl_2", *(f"nested_{protocol}" for protocol in range(6)), "smpl_npz", "nested_npz"]
# Single bytes that mean something to a pickle are as likely as any others.
_MEANINGFUL = st.sampled_from(
    b"()].}{tabesurRcoi0123456789qphgjJKMIXTUBCNSVFG\x80\x81\x85\x8c\x93\x94\x96\xff\n"
)
_BYTES = st.lists(st.one_of(_MEANINGFUL, st.integers(0, 255)), max_size=8).map(bytes)
_EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["replace", "insert", "delete", "cut", "repeat"]), _BYTES),
    min_size=1,
    max_size=4,
)


def _mutated(content: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    for place, kind, new in edits:
        # Half of the places lie in the first and last 300 bytes, where most of the structure is.
        start = int(place * 4 * len(content)) if place < 0.25 else int((place - 0.25) * 400)
        start = start if place < 0.625 else len(content) - int((place - 0.625) * 800)
        start = min(max(start, 0), len(content))
        if kind == "cut":
            content = content[:start]
        elif kind == "insert":
            content = content[:start] + new + content[start:]
        elif kind == "repeat":
            content = content[:start] + content[start : start + 40] * (1 + len(new)) + content[start + 40 :]
        else:
            content = content[:start] + (new if kind == "replace" else b"") + content[start + len(new) :]
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def _error_type_and_sentence(read: Callable[[], Any]) -> tuple[type, str]:
    faulthandler.dump_traceback_later(20, exit=True)  # a hang ends the tests with a traceback
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # overflow in numbers that are refused a moment later
            read()
    except ValueError as error:
        return type(error), str(error)
    finally:
        faulthandler.cancel_dump_traceback_later()
    return ValueError, ""


def _check(folder: Path, name: str, edits: list[tuple[float, str, bytes]]) -> None:
    original, read = _originals_of(folder)[name]
    path = folder / f"{name}.file"
    path.write_bytes(_mutated(original, edits))
    error_type, sentence = _error_type_and_sentence(lambda: read(path))
    assert error_type is ValueError
    assert not sentence or path.name in sentence
    assert len(sentence) < 1000
    assert "\n" not in sentence


_cache: dict[Path, dict[str, tuple[bytes, Callable[[Path], Any]]]] = {}


def _originals_of(folder: Path) -> dict[str, tuple[bytes, Callable[[Path], Any]]]:
    if folder not in _cache:
        _cache[folder] = _originals(folder)
    return _cache[folder]


def test_the_originals_are_sound(folder: Path) -> None:
    for name, (content, read) in _originals(folder).items():
        path = folder / f"{name}.file"
        path.write_bytes(content)
        assert len(read(path)) >= 3


_DIRECTORY_LIES_OF_642_MIB = [(0.83984375, "replace", b"(((((")]  # of the length of one array
_UNHURRIED = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=250, derandomize=True, **_UNHURRIED)
@given(name=st.sampled_from(NAMES), edits=_EDITS)
def test_mutated_files(folder: Path, name: str, edits: list[tuple[float, str, bytes]]) -> None:
    _check(folder, name, edits)


@pytest.mark.slow
@settings(max_examples=2500, **_UNHURRIED)
@given(name=st.sampled_from(NAMES), edits=_EDITS)
@example(name="nested_npz", edits=_DIRECTORY_LIES_OF_642_MIB)
def test_thousands_of_mutated_files(folder: Path, name: str, edits: list[tuple[float, str, bytes]]) -> None:
    tracemalloc.start()
    _check(folder, name, edits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20


@pytest.mark.slow
@settings(max_examples=4000, **_UNHURRIED)
@given(content=st.lists(st.one_of(_MEANINGFUL, _MEANINGFUL, st.integers(0, 255)), max_size=60).map(bytes))
def test_thousands_of_random_instructions(content: bytes) -> None:
    error_type, sentence = _error_type_and_sentence(lambda: unpickle(content + b".", "the file"))
    assert error_type is ValueError
    assert not sentence or sentence.startswith("the file ")
