"""What Ultralytics' YOLO pose models leave: label files, and the summaries of their results as JSON. COCO's 17.

Label files are what `yolo pose predict save_txt=True` writes, a text for each frame in which anybody was seen: a
person per line, class, box and keypoints as shares of the picture, then, where asked for, the box's confidence, and
the person's number where they were tracked. No file of a whole video is written by itself, so users write one: a
JSON list with `result.summary()` of every frame.

Source: `Results.save_txt`, `Results.summary` of ultralytics/engine/results.py, version 8.4.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.keypoints.detections import (
    Detection,
    Detections,
    KeypointFileError,
    checked_frame_id,
    checked_numbers,
    first_filled,
    frame_id_of,
    length_of,
    person_id_of,
)
from core.skeleton import COCO_17

_NUM_JOINTS = COCO_17.num_joints
_BEFORE_KEYPOINTS = 5  # class, and the box's x, y, width, height
_LABEL_COLUMNS = _BEFORE_KEYPOINTS + 3 * _NUM_JOINTS


class LabelFiles(NamedTuple):
    """Label files by name: each its people's numbers, all finite."""

    files: dict[str, list[np.ndarray]]


def load_labels(paths: list[Path]) -> LabelFiles:
    """Label files; KeypointFileError says which line of which is wrong."""
    return LabelFiles({path.name: _people_of_label(path) for path in paths})


def _people_of_label(path: Path) -> list[np.ndarray]:
    people = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        raise KeypointFileError(f"{path.name} is no text") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"line {number} of {path.name}"
        try:
            values = [float(value) for value in line.split()]
        except ValueError:
            raise KeypointFileError(
                f"{where} does not hold numbers alone, as Ultralytics' labels do"
            ) from None
        if not 0 <= len(values) - _LABEL_COLUMNS <= 2:
            raise KeypointFileError(
                f"{where} has {len(values)} numbers, and of a person in COCO-17 Ultralytics' pose models write "
                f"{_LABEL_COLUMNS}, with confidence and track up to {_LABEL_COLUMNS + 2}"
            )
        people.append(checked_numbers(values, len(values), f"the numbers in {where}"))
    return people


def is_ultralytics(content: Any) -> bool:
    """Whether it looks like labels or summaries; frames in which nobody was seen may come first."""
    if isinstance(content, LabelFiles):
        return True
    first = first_filled(content)
    person = first[0] if isinstance(first, list) else first
    return _is_person(person)


def _is_person(person: Any) -> bool:
    keypoints = person.get("keypoints") if isinstance(person, dict) else None
    return isinstance(keypoints, dict) and {"x", "y"} <= keypoints.keys()


def read_ultralytics(content: Any) -> Detections:
    """Labels of a video or of pictures, summaries of a video's frames, or the summary of one picture."""
    if isinstance(content, LabelFiles):
        return _of_labels(content.files)
    if not is_ultralytics(content):
        raise KeypointFileError(
            "Ultralytics' users write a list with the summary of every frame, people with keypoints {x, y, visible}"
        )
    frames = content if isinstance(content[0], list) else [content]
    detections = []
    for number, frame in enumerate(frames):
        if not isinstance(frame, list):
            raise KeypointFileError(f"frame {number} is a {type(frame).__name__}, not a list of people")
        detections += [_of_summary(person, number) for person in frame]
    return Detections(COCO_17, detections, is_one_picture=frames[0] is content)


def _of_summary(person: Any, frame: int) -> Detection:
    where = f"frame {frame}"
    if not _is_person(person):
        raise KeypointFileError(f"{where} has a person without keypoints x and y")
    count = length_of(person["keypoints"]["x"])
    if count != _NUM_JOINTS:
        raise KeypointFileError(
            f"{where} has a person of {max(count, 0)} keypoints, and those of COCO-17 are read"
        )
    columns = [
        checked_numbers(
            person["keypoints"].get(key, [1.0] * count), count, f"the keypoints' {key} in {where}"
        )
        for key in ("x", "y", "visible")
    ]
    return _detection(
        np.stack(columns, axis=1),
        frame_id=checked_frame_id(frame, where),
        person_id=person_id_of(person.get("track_id"), where),
        box_confidence=None
        if person.get("confidence") is None
        else checked_numbers([person["confidence"]], 1, f"the confidence in {where}")[0],
    )


def _of_labels(files: dict[str, list[np.ndarray]]) -> Detections:
    stems = [Path(name).stem for name in files]
    of_videos = sorted({re.sub(r"[0-9]+$", "", stem) for stem in stems})
    if len(of_videos) > 1:
        raise KeypointFileError(
            f"its labels are of several videos or pictures, {of_videos[0][:40]!r} and {of_videos[1][:40]!r}; give "
            "each a folder of its own"
        )
    tails = [row[_LABEL_COLUMNS:].tolist() for people in files.values() for row in people]
    # A single number at the end is a confidence or a track's number, which counts from 1.
    has_confidence = any(len(tail) == 2 or (len(tail) == 1 and not _is_track(tail[0])) for tail in tails)
    is_numbered = len(files) > 1 or stems[0][-1:].isdigit()  # a single picture need not be
    detections = []
    for name, people in files.items():
        for number, row in enumerate(people, start=1):
            where = f"line {number} of {name}"
            tail = row[_LABEL_COLUMNS:].tolist()
            track = tail[-1] if len(tail) == 1 + has_confidence else None
            detections.append(
                _detection(
                    row[_BEFORE_KEYPOINTS:_LABEL_COLUMNS].reshape(-1, 3),
                    frame_id=frame_id_of(name, where) if is_numbered else 0,
                    picture=name,
                    person_id=person_id_of(track, where),
                    box_confidence=tail[0] if has_confidence and tail else None,
                )
            )
    # Of a video, frames are numbered from 1 without zeros before; pictures as whoever wrote them did.
    from_1 = is_numbered and not any(re.search(r"(?<![0-9])0[0-9]*$", stem) for stem in stems)
    return Detections(
        COCO_17,
        detections,
        in_image_shares=True,
        counts_from=int(from_1),
        video_name=of_videos[0].rstrip("_-. ") or None,
    )


def _is_track(value: float) -> bool:
    return value >= 1 and value == int(value)


def _detection(
    keypoints: np.ndarray,
    *,
    frame_id: int,
    person_id: str,
    box_confidence: float | None,
    picture: str | None = None,
) -> Detection:
    # Version 8.3.150 and before move a keypoint of less than half a confidence to the corner; it keeps the number.
    keypoints[(keypoints[:, :2] == 0).all(axis=1), 2] = 0.0
    score = keypoints[:, 2].mean() if box_confidence is None else box_confidence
    return Detection(frame_id, person_id, float(score), keypoints, picture)
