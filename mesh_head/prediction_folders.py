"""Where a prediction goes: folders and names of its files, and how it takes an earlier one's place as a whole."""

import json
import os
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from body_models.export.film import refuse_to_replace
from core.keypoints.track import Track
from core.run_folder import write_json

FACTS, FILM = "prediction.json", "film.mp4"
MESH_FILES = ("motion.npz", "motion.glb", "mesh.obj", "contact_sheet.png", FACTS)
POSE_FILES = ("pose.npz", "contact_sheet.png", FACTS)
# Of every prediction, those of before included.
_KEYS_OF_FACTS = {"source", "person", "skeleton", "frames", "fps"}
# File systems take 255 bytes, and files are written under a longer name first.
_LONGEST_ID_BYTES = 200


def person_folders(out: Path, tracks: Sequence[Track], *, source: str | Path) -> list[Path]:
    """Where each person's prediction goes: into `out` if there is one, else into a sub-folder with their id.

    Raises:
        ValueError: an id, which comes from the file `source`, is no name for a folder.
    """
    if len(tracks) == 1:
        return [out]
    for track in tracks:
        if not _is_folder_name(track.person_id):
            raise ValueError(
                f"{source} has a person {track.person_id[:60]!r}, and no folder can safely have that name; rename "
                "the person there, or choose one with person=ID."
            )
    return [out / f"person_{track.person_id}" for track in tracks]


def film_path(out: Path, video: str | Path | None, *, of_stills: bool = False) -> Path | None:
    """Where `write_overlay` is to draw over a video, if there is one.

    Raises:
        ValueError: it is the video itself, or a folder; or the keypoints are of single pictures (`of_stills`).
    """
    if video is None:
        return None
    if of_stills:
        raise ValueError(f"The keypoints are of single pictures, and {video} is a video; leave video out.")
    _require_no_folder(out / FILM)
    refuse_to_replace(out / FILM, video)
    return out / FILM


def require_free_places(folders: Sequence[Path]) -> None:
    """ValueError where a prediction's folder is a file, or one of its files a folder."""
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise ValueError(
                f"{folder} is a file, and a folder is to be there; move it away or give another out=FOLDER."
            )
        for name in dict.fromkeys((*MESH_FILES, *POSE_FILES)):
            _require_no_folder(folder / name)


def _require_no_folder(path: Path) -> None:
    """Else what is written before it would have taken its place, and this not."""
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder, and a file is to be written there; move it away or give another out=FOLDER."
        )


@contextmanager
def in_place_of_earlier_prediction(out: Path, folders: Sequence[Path]) -> Iterator[list[Path]]:
    """Around the writing of a prediction into `folders`, which are `out` or below it; lists them, if several.

    At the end everything takes its place together, and what an earlier prediction has left in `out` and this one
    has not replaced goes: a reader would take it for a part of this one. If the writing fails, all stays as it was.

    Yields:
        For each of the folders one to write into.

    Raises:
        ValueError: A folder lies where a file is to be.
    """
    require_free_places(folders)
    earlier = _left_by_earlier_prediction(out)
    missing = [folder for folder in (*folders, out) if not folder.exists()]
    places = [*folders, out] if len(folders) > 1 else [*folders]
    # Beside their places, as another folder may be on another disk.
    unfinished = [place / f".{os.getpid()}.unfinished" for place in places]
    written: list[Path] = []
    try:
        for folder in unfinished:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        yield unfinished[: len(folders)]
        if len(folders) > 1:
            write_json(unfinished[-1] / FACTS, {"people": [folder.name for folder in folders]})
        for folder, place in zip(unfinished, places, strict=True):
            written += [path.replace(place / path.name) for path in sorted(folder.iterdir())]
    finally:
        for folder in unfinished:
            shutil.rmtree(folder, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):  # what is not empty stays
                folder.rmdir()
    left = [path for path in earlier if path not in written]
    for path in left:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in left}:
        if not any(folder.iterdir()):
            folder.rmdir()


def read_facts(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); run predict_mesh.py again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no file of a prediction; run predict_mesh.py again.")
    return content


def _left_by_earlier_prediction(out: Path) -> list[Path]:
    """Files that a prediction of ours is known to write; none where prediction.json is not of one."""
    told = _facts_of_ours(out)
    if told is None:
        return []
    # A link's target is somebody else's.
    people = [out / name for name in told.get("people", []) if not (out / name).is_symlink()]
    found, of_people = [out / FACTS], [_facts_of_ours(folder) for folder in people]
    for folder, facts in [(out, told), *zip(people, of_people, strict=True)]:
        if facts is not None and "people" not in facts:
            found += [folder / name for name in (MESH_FILES if "body_model" in facts else POSE_FILES)]
    # Predictions of before do not say whether they drew over a video.
    if any(
        facts is not None and "body_model" in facts and facts.get("video", "") is not None
        for facts in (told, *of_people)
    ):
        found.append(out / FILM)
    return [path for path in found if path.is_file() or path.is_symlink()]


def _facts_of_ours(folder: Path) -> dict[str, Any] | None:
    """What the prediction.json of a folder tells, if there is one that a prediction has written."""
    try:
        told = read_facts(folder / FACTS)
    except (ValueError, OSError):
        return None
    if told.keys() == {"people"}:
        names = told["people"]
        is_ours = isinstance(names, list) and all(
            isinstance(name, str)
            and name.startswith("person_")
            and _is_folder_name(name.removeprefix("person_"))
            for name in names
        )
        return told if is_ours else None
    return told if told.keys() >= _KEYS_OF_FACTS else None


def _is_folder_name(name: str) -> bool:
    """Whether it names a folder here and nowhere else."""
    return (
        0 < len(name.encode("utf-8", "replace")) <= _LONGEST_ID_BYTES
        and not name.startswith(".")
        and not set(name) & set("/\\")
        # Control characters, halves of characters, separators of lines and paragraphs.
        and not {unicodedata.category(character) for character in name} & {"Cc", "Cs", "Zl", "Zp"}
    )
