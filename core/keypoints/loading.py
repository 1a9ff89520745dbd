"""What keypoint files hold, whatever their format: JSON values, arrays, texts, within bounded memory."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.keypoints.detections import KeypointFileError
from core.keypoints.mediapipe import LandmarkTable, load_result, load_table
from core.keypoints.ultralytics import LabelFiles, load_labels
from core.refusing_unpickler import read_npz

# A parsed JSON file takes some ten times its size in memory. 256 MiB hold, of one person at 30 fps, an hour and a
# half by AlphaPose (Halpe-26, 1,700 bytes a frame) or four hours by GAST-Net (590).
_MAX_FILE_BYTES = 256 * 1024 * 1024


# What lies in a folder of labels without being one: the names of YOLO's classes.
_NO_LABELS = {"classes.txt"}
_OTHER_KINDS = (
    (b"\x1f\x8b", "compressed (gzip)", "unpack it first"),
    (
        b"\x93NUMPY",
        "a single array (.npy)",
        "write keypoints, confidences and frames as docs/keypoints.md says",
    ),
    (
        b"\x80",
        "a pickle, which is never read as it can run programs",
        "save the same as JSON (docs/keypoints.md)",
    ),
    (b"\x89PNG", "a picture", "run a 2D detector on it and give its keypoints"),
    (b"\xff\xd8\xff", "a picture", "run a 2D detector on it and give its keypoints"),
)


class JsonFolder(NamedTuple):
    """A folder of JSON files: their values by name, in the names' order."""

    files: dict[str, Any]


def load(path: Path) -> Any:
    """A JSON file's values, a folder's, an npz's arrays by name, or texts and labels, within bounded memory."""
    try:
        files = _files_of_folder(path) if path.is_dir() else [path]
        num_bytes = sum(file.stat().st_size for file in files)
    except OSError as error:
        raise KeypointFileError(f"it cannot be opened ({error.strerror})") from None
    if num_bytes > _MAX_FILE_BYTES:
        raise KeypointFileError(
            f"it has {num_bytes >> 20} MiB, and at most {_MAX_FILE_BYTES >> 20} are read; split it"
        )
    if path.is_dir():
        if not files:
            within = "; you may mean its folder labels" if (path / "labels").is_dir() else ""
            raise KeypointFileError(
                "it is a folder without JSON files, as OpenPose's has, and without Ultralytics' labels "
                f"(.txt){within}"
            )
        if files[0].suffix.lower() == ".txt":
            return load_labels(files)
        return JsonFolder({file.name: _load_json(file, f"its file {file.name}") for file in files})
    _refuse_other_kinds(path)
    loaders: dict[str, Callable[[Path], Any]] = {
        ".npz": _load_npz,
        ".csv": load_table,
        ".pbtxt": load_result,
        ".txt": lambda path: load_labels([path]),
    }
    loader = loaders.get(path.suffix.lower())
    return _load_json(path, "it") if loader is None else loader(path)


def _files_of_folder(path: Path) -> list[Path]:
    """JSON files or labels, of which there are more: one of the other kind may lie beside them."""
    # Archives of a Mac hold a "._name" beside every file.
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    of_json, of_text = ([file for file in files if file.suffix.lower() == kind] for kind in (".json", ".txt"))
    labels = [file for file in of_text if file.name not in _NO_LABELS]
    return labels if len(labels) > len(of_json) else of_json


def _refuse_other_kinds(path: Path) -> None:
    """KeypointFileError for what is recognised by its first bytes, and is nothing that is read."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as error:
        raise KeypointFileError(f"it cannot be opened ({error.strerror})") from None
    if start[4:8] == b"ftyp" or start.startswith((b"RIFF", b"\x1a\x45\xdf\xa3")):
        raise KeypointFileError(
            "it is a video; run a 2D detector on it, give its keypoints here and the video as video=FILE"
        )
    for signature, kind, cure in _OTHER_KINDS:
        if start.startswith(signature):
            raise KeypointFileError(f"it is {kind}; {cure}")


def _load_json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise KeypointFileError(f"{what} cannot be opened ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        # ValueError: broken JSON, text that is not UTF-8, integers of more than 4300 digits.
        raise KeypointFileError(f"{what} is not JSON ({error})") from None


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            num_bytes = sum(member.file_size for member in archive.infolist())
    # The last two: names that are no text, versions of the format that nobody knows.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise KeypointFileError(f"it is not a sound npz ({error})") from None
    if num_bytes > _MAX_FILE_BYTES:
        raise KeypointFileError(
            f"it unpacks to {num_bytes >> 20} MiB, and at most {_MAX_FILE_BYTES >> 20} are read"
        )
    try:
        return read_npz(path)
    except ValueError as error:
        problem = str(error).removeprefix(str(path)).rstrip(".")
        of_array = re.sub(r"^, (array '[^']*'),", r"its \1", problem)
        raise KeypointFileError(of_array if of_array != problem else f"it{problem}") from None


def describe(content: Any) -> str:
    """What was found, in a few words."""
    if isinstance(content, JsonFolder):
        first, value = next(iter(content.files.items()))
        alone = "; give the file itself if it is of a whole video" if len(content.files) == 1 else ""
        found = describe(value).removeprefix("it ")
        return (
            f"it is a folder of {len(content.files)} JSON files, of which the first, {first[:60]}, is no frame of "
            f"OpenPose's, picture of MMPose's or AlphaPose's (it {found}){alone}"
        )
    if isinstance(content, dict):
        keys = ", ".join(repr(str(key)[:40]) for key in list(content)[:8])
        return f"it holds the keys {keys or '(none)'}"
    if content == []:
        return "it is an empty list"
    if isinstance(content, list):
        if not isinstance(content[0], dict):
            return f"it is a list whose first entry is of type {type(content[0]).__name__}"
        keys = ", ".join(repr(str(key)[:40]) for key in list(content[0])[:8])
        return f"it is a list whose first entry has the keys {keys or '(none)'}"
    known = {LabelFiles: "Ultralytics' labels", LandmarkTable: "a table of landmarks"}
    return f"it holds {known.get(type(content), f'a single {type(content).__name__}')}"
