"""Parts of a prepared data set on disk: a folder of .npy arrays and what lies where in them.

A part is written beside its place and renamed when it is complete, with the fingerprints of the files that it was
made from; so an interrupted preparation finds again what it had finished.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.atomic_write import folder_written_whole, remove_abandoned, written_whole
from core.datasets.preparation import Fingerprint, PreparationReport

_LAYOUT = "lifting sequences 1"
# What a part has at least, of `core.datasets.lifting_sequences.LiftingSequence`.
_ARRAYS = ("keypoints_px", "confidence", "joints", "valid")
_ENTRIES = (
    *("name", "subject", "action", "camera", "start", "stop"),
    *("joint_space", "image_size", "K", "fps"),
)
_MANIFEST = "manifest.json"
_INDEX = "sequences.json"
# Arrays are cast and written this many frames at a time, so that no second copy of a data set is held.
_CHUNK = 65_536


@dataclass(frozen=True)
class Part:
    """Arrays over the frames of one part, memory-mapped, and its sequences' entries (start, stop, name, …).

    `notes` and `warnings` are what its preparation found out, to be told again when it is kept.
    """

    arrays: dict[str, np.ndarray]
    sequences: list[dict[str, Any]]
    notes: list[str]
    warnings: list[str]


def write_part(
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    sequences: Sequence[Mapping[str, Any]],
    sources: Sequence[Fingerprint],
    *,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> None:
    """Writes a part: numbers as float32, truth values as bool; an older part in its place is replaced."""
    with folder_written_whole(folder) as unfinished:
        for name, array in arrays.items():
            dtype = np.bool_ if array.dtype == np.bool_ else np.float32
            written = np.lib.format.open_memmap(
                unfinished / f"{name}.npy", mode="w+", dtype=dtype, shape=array.shape
            )
            for start in range(0, len(array), _CHUNK):
                written[start : start + _CHUNK] = array[start : start + _CHUNK]
            del written  # closes the file, which some systems want before it is renamed
        index = {
            "sources": list(sources),
            "bytes": {path.name: path.stat().st_size for path in sorted(unfinished.glob("*.npy"))},
            "sequences": list(sequences),
            "notes": list(notes),
            "warnings": list(warnings),
        }
        (unfinished / _INDEX).write_text(json.dumps(index), encoding="utf-8")


def is_finished(folder: Path, sources: Sequence[Fingerprint] | None = None) -> bool:
    """Whether the part is there, whole, and was made from just these files (None: from any)."""
    try:
        index = _read_index(folder)
        return (sources is None or index["sources"] == list(sources)) and all(
            (folder / name).stat().st_size == size for name, size in index["bytes"].items()
        )
    except (OSError, ValueError):
        return False  # then it is made again


def _read_index(folder: Path) -> dict[str, Any]:
    """The index of a part; OSError or ValueError if there is none that could be one."""
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    parts = {"bytes": dict, "sequences": list, "sources": list}
    if not isinstance(index, dict) or not all(isinstance(index.get(key), of) for key, of in parts.items()):
        raise ValueError(f"its index lacks {' or '.join(parts)}")
    index = {"notes": [], "warnings": [], **index}  # which earlier versions did not keep
    entries = index["sequences"]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("its index names no sequences")
    lacking = [f"{name}.npy" for name in _ARRAYS if f"{name}.npy" not in index["bytes"]]
    lacking += [f"'{key}' of a sequence" for key in _ENTRIES if any(key not in entry for entry in entries)]
    if lacking:
        raise ValueError(f"its index lacks {lacking[0]}")
    return index


def read_part(folder: Path) -> Part:
    """Opens a part; its arrays are memory-mapped.

    Raises:
        ValueError: If a file is missing or damaged.
    """
    try:
        index = _read_index(folder)
        arrays = {
            Path(name).stem: np.load(folder / name, mmap_mode="r", allow_pickle=False)
            for name in index["bytes"]
        }
        num_frames = index["sequences"][-1]["stop"]
        if any(len(array) != num_frames for array in arrays.values()):
            raise ValueError(f"the arrays do not all have the {num_frames} frames of the index")
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(
            f"{folder} is damaged ({error}); delete it and prepare the data set again."
        ) from error
    return Part(arrays, index["sequences"], index["notes"], index["warnings"])


def begin_store(out: Path, dataset: str, sources: Sequence[Fingerprint]) -> dict[str, list[str]] | None:
    """Makes sure that `out` may take this data set.

    Returns:
        The parts of each split, if all of them had been prepared from just these files before; else None, and the
        store is marked as unfinished.

    Raises:
        ValueError: If `out` is a file, or holds another data set or another program's manifest.
    """
    if out.is_file():
        raise ValueError(f"out={out} is a file; name a folder for the prepared data set.")
    remove_abandoned(out)
    if not (out / _MANIFEST).is_file():
        return None
    if _is_of_another(out / _MANIFEST):
        raise ValueError(
            f"{out / _MANIFEST} is another program's; name another folder for the prepared data set."
        )
    try:
        manifest = read_manifest(out)
    except ValueError:
        return None  # damaged or of an earlier layout: as if unfinished, and replaced at the end
    if manifest["dataset"] != dataset:
        raise ValueError(
            f"{out} already holds the data set {manifest['dataset']!r}; name another folder for {dataset!r}."
        )
    parts: dict[str, list[str]] = manifest["parts"]
    if manifest["sources"] == list(sources) and all(
        is_finished(out / split / name) for split, names in parts.items() for name in names
    ):
        return parts
    (out / _MANIFEST).unlink()
    return None


def finish_store(
    out: Path, dataset: str, parts: Mapping[str, Sequence[str]], sources: Sequence[Fingerprint]
) -> None:
    """Writes the manifest, with which the data set counts as prepared; removes parts that are not in it."""
    for split in (folder for folder in out.iterdir() if folder.is_dir()):
        for folder in split.iterdir():
            if folder.name not in parts.get(split.name, ()) and (folder / _INDEX).is_file():
                shutil.rmtree(folder)
    manifest = {"layout": _LAYOUT, "dataset": dataset, "parts": dict(parts), "sources": list(sources)}
    with written_whole(out / _MANIFEST) as file:
        file.write(json.dumps(manifest, indent=2).encode())


def add_contents(out: Path, report: PreparationReport) -> None:
    """Adds what a prepared data set holds to the report: counts of each split, and what was said of its parts.

    Counted are sequences, frames, and frames that count in an evaluation.
    """
    for split, names in read_manifest(out)["parts"].items():
        parts = [read_part(out / split / name) for name in names]
        report.counts[f"{split}: sequences"] = sum(len(part.sequences) for part in parts)
        report.counts[f"{split}: frames"] = sum(len(part.arrays["valid"]) for part in parts)
        report.counts[f"{split}: frames evaluated"] = sum(int(part.arrays["valid"].sum()) for part in parts)
        for part in parts:
            report.notes.extend(part.notes)
            report.warnings.extend(part.warnings)


def _is_of_another(path: Path) -> bool:
    """Whether the manifest is sound and of something else, as other programs, too, call theirs so."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return not isinstance(manifest, dict) or "layout" not in manifest


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a prepared data set.

    Raises:
        ValueError: If there is none, or it is damaged.
    """
    path = root / _MANIFEST
    if not path.is_file() or _is_of_another(path):
        raise ValueError(
            f"{root} holds no prepared data set; run `python tools/prepare_data.py dataset=… root=… "
            f"out={root}` to its end first."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["layout"] != _LAYOUT:
            raise ValueError(f"its layout is {manifest['layout']!r}, not {_LAYOUT!r}")
        parts, sources = manifest.get("parts"), manifest.get("sources")
        if (
            not isinstance(manifest.get("dataset"), str)
            or not isinstance(sources, list)
            or not _are_parts(parts)
        ):
            raise ValueError("it does not say which set of which parts and sources it is")
        return {"dataset": manifest["dataset"], "parts": parts, "sources": sources}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); prepare the data set again.") from error


def _are_parts(parts: Any) -> bool:
    """Whether it is {split: [part, …], …}, none of them empty."""
    return (
        isinstance(parts, dict)
        and bool(parts)
        and all(
            isinstance(names, list) and names and all(isinstance(name, str) for name in names)
            for names in parts.values()
        )
    )
