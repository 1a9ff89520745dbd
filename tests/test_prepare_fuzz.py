"""Thousands of mutated files of every lifting layout: each is prepared, or refused with a sentence naming it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifting_archives import h36m_pickle, mpi_inf_3dhp, videopose3d, write_h36m

from core.datasets.preparation import prepare

# What may stand anywhere in a file of someone else's making.
ODD: list[Any] = [
    *(None, 0, -3, 2.5, float("nan"), 10**40, True, "", "x", b"y", [], (), {}, {"a": 1}, [1, [2, 3]]),
    *(np.zeros(()), np.zeros(3), np.array(["a", "b"]), np.array([None, 1], object), np.zeros((0, 17, 3))),
    *(np.full((5, 17, 2), 1e300), np.zeros((5, 17, 3), complex), np.zeros((5, 17, 3), "M8[s]")),
]


def _places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    items: Any = []
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list | tuple):
        items = list(enumerate(content))[:4]
    for key, value in items:
        yield from _places(value, (*place, key))


def _changed(content: Any, place: tuple[Any, ...], odd: Any, rng: np.random.Generator) -> Any:
    """A copy with something odd in one place: another value, another key, or nothing."""
    if not place:
        return odd
    key, *rest = place
    copy = dict(content) if isinstance(content, dict) else list(content)
    kind = rng.random()
    if isinstance(copy, dict) and kind < 0.15:
        copy[odd if isinstance(odd, int | str | bytes | tuple) else 3] = copy.pop(key)
    elif isinstance(copy, dict) and kind < 0.25:
        del copy[key]
    else:
        copy[key] = _changed(copy[key], tuple(rest), odd, rng)
    return copy


def _mutated_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        near = rng.random() < 0.5  # to the beginning, where the structure is
        place = int(rng.integers(min(len(changed), 600) if near else len(changed)))
        kind = rng.integers(4)
        if kind == 0:
            changed[place] = int(rng.integers(256))
        elif kind == 1:
            del changed[max(place, 1) :]
        elif kind == 2:
            changed[place:place] = rng.bytes(8)
        else:
            changed[place : place + 8] = b"\xff" * 8
    return bytes(changed)


def _write_npz(path: Path, key: str, content: Any) -> Path:
    array = np.empty((), object)
    array[()] = content
    np.savez(path, **{key: array})
    return path


def _originals(dataset: str) -> dict[str, tuple[str, Any]]:
    """File name → its key and content."""
    if dataset == "h36m":
        return {"h36m_sh_conf_cam_source_final.pkl": ("", h36m_pickle(5))}
    if dataset == "3dhp":
        train, test = mpi_inf_3dhp(5)
        return {"data_train_3dhp.npz": ("data", train), "data_test_3dhp.npz": ("data", test)}
    tables = videopose3d(("S1",), 8)
    return {
        "data_3d_h36m.npz": ("positions_3d", tables.positions_3d),
        "data_2d_h36m_gt.npz": ("positions_2d", tables.exact),
    }


@pytest.mark.parametrize("num_files", [30, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dataset", ["h36m", "h36m_videopose3d", "3dhp"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutated_files(tmp_path: Path, dataset: str, num_files: int) -> None:
    rng = np.random.default_rng(num_files)
    originals = _originals(dataset)
    sentences: list[str] = []
    files = list(originals)
    for number in range(num_files):
        chosen = files[number % len(files)]
        is_content = bool(rng.random() < 0.6)
        for name, (key, content) in originals.items():
            if name == chosen and is_content:
                places = list(_places(content))
                odd = ODD[rng.integers(len(ODD))]
                content = _changed(content, places[rng.integers(len(places))], odd, rng)
            path = write_h36m(tmp_path, content) if not key else _write_npz(tmp_path / name, key, content)
            if name == chosen and not is_content:
                path.write_bytes(_mutated_bytes(path.read_bytes(), rng))
        out = tmp_path / "out"
        try:
            prepare(dataset, tmp_path, out, on_progress=lambda done, total: None, workers=1)
        except ValueError as error:
            sentences.append(str(error))
            assert not (out / "manifest.json").exists()
            assert not [path for path in out.rglob("*") if "unfinished" in path.name]
        shutil.rmtree(out, ignore_errors=True)
    assert len(sentences) > num_files // 2
    assert [sentence for sentence in sentences if str(tmp_path) not in sentence] == []
