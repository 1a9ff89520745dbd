"""Data sets, from their owners' files to folders that can be memory-mapped: the table of who prepares what."""

import hashlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from core.folders import only_writer

_BLOCK = 1 << 20
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class PreparationReport:
    """What a preparation left behind.

    Attributes:
        counts: What was counted (frames of a split, sequences, …), in the order of the table at the end.
        warnings: One sentence each, for what differs from the complete set but can be used.
        notes: One sentence each, for what was found out on the way.
    """

    counts: dict[str, int]
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# (root, out, *, on_progress, workers, **options) → report: reads the owners' files below `root` and writes the
# project's below `out`; what is finished is kept.
Preparer = Callable[..., PreparationReport]


def _in(module: str, function: str) -> Preparer:
    """A preparer that is imported when it is first called, so that the table costs nothing."""

    def prepare(
        root: Path, out: Path, *, on_progress: OnProgress, workers: int, **options: Any
    ) -> PreparationReport:
        preparer: Preparer = getattr(importlib.import_module(f"core.datasets.{module}"), function)
        known = inspect.signature(preparer).parameters
        unknown = [option for option in options if option not in known]
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            raise ValueError(f"This data set has no option {' or '.join(map(repr, unknown))}; leave it out.")
        return preparer(root, out, on_progress=on_progress, workers=workers, **options)

    return prepare


PREPARERS: dict[str, Preparer] = {
    "h36m": _in("human36m", "prepare_h36m"),
    "h36m_videopose3d": _in("human36m_videopose3d", "prepare_h36m_videopose3d"),
    "3dhp": _in("mpi_inf_3dhp", "prepare_3dhp"),
    "3dpw": _in("three_dpw", "prepare_three_dpw"),
    "h36m_mesh": _in("motionbert_mesh", "prepare_h36m_mesh"),
    "coco_mesh": _in("motionbert_mesh", "prepare_coco_mesh"),
    "amass": _in("amass", "prepare_amass"),
}


def prepare(
    dataset: str, root: Path, out: Path, *, on_progress: OnProgress, workers: int, **options: Any
) -> PreparationReport:
    """Prepares a data set of the table.

    Raises:
        ValueError: If there is no such data set, its files are not in `root` or not what they should be, `out`
            cannot be written, or another process prepares a set there; one sentence.
    """
    if dataset not in PREPARERS:
        raise ValueError(f"There is no data set {dataset!r}; these can be prepared: {', '.join(PREPARERS)}.")
    if not root.exists():
        raise ValueError(f"There is no folder root={root}; name the one with the files of {dataset}.")
    try:
        with only_writer(out):
            return PREPARERS[dataset](root, out, on_progress=on_progress, workers=workers, **options)
    except OSError as error:
        raise ValueError(
            f"Preparing {dataset} ended: {error}. What is finished is kept; start again once this is mended."
        ) from error


class Fingerprint(TypedDict):
    """What a source file is recognised by when a preparation goes on after an interruption."""

    name: str
    size: int
    mtime_ns: int
    digest: str


def fingerprint(path: Path) -> Fingerprint:
    """Size and time of a file, and digest of its first, middle and last mebibyte: quick however large it is.

    A change between these places shows in the time alone, so a copy that does not keep its time is another file.
    """
    status = path.stat()
    size = status.st_size
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for start in sorted({0, max(0, (size - _BLOCK) // 2), max(0, size - _BLOCK)}):
            file.seek(start)
            digest.update(file.read(_BLOCK))
    return {"name": path.name, "size": size, "mtime_ns": status.st_mtime_ns, "digest": digest.hexdigest()}


def find_source(root: Path, file_name: str, where_to_get: str) -> Path:
    """`root` itself if it is a file, else the file of that name in it.

    Raises:
        ValueError: If there is none; the sentence says where to get it.
    """
    path = root if root.is_file() else root / file_name
    if not path.is_file():
        for packed in (root / f"{file_name}.zip", root / f"{path.stem}.zip"):
            if packed.is_file():
                raise ValueError(f"{packed} is still packed; unzip it, so that {path} is there.")
        raise ValueError(f"There is no {file_name} in {root}. {where_to_get}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; fetch it again. {where_to_get}")
    return path
