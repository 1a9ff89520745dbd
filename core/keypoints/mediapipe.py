"""MediaPipe Pose's landmarks, BlazePose's 33.

MediaPipe itself writes no file of a video. What is read is what its users write: a JSON list with an entry per
frame, of people as lists of landmarks {x, y, visibility}; the text of one result (LandmarksDetectionResult as
.pbtxt); and the table with which its pose classifiers are trained (.csv: a still per row, its class, and x, y, z in
pixels).

Source: mediapipe/tasks/cc/components/containers/proto/landmarks_detection_result.proto, and MediaPipe's guide to
pose classification.
"""

import csv
import re
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from core.keypoints.detections import (
    Detection,
    Detections,
    KeypointFileError,
    checked_frame_id,
    checked_numbers,
    first_filled,
    length_of,
)
from core.skeleton import BLAZEPOSE_33

_NUM_LANDMARKS = BLAZEPOSE_33.num_joints
_TABLE_COLUMNS = 2 + 3 * _NUM_LANDMARKS
_RESULT_LINE = re.compile(
    r"\s*(?:(?P<open>\w+)\s*\{|(?P<close>\})|(?P<key>\w+)\s*:\s*(?P<value>\S+))\s*(?:#.*)?"
)


class LandmarkTable(NamedTuple):
    """Rows of a .csv: the picture's name, its class, and x, y, z of every landmark in pixels."""

    rows: list[tuple[str, str, list[float]]]


def load_table(path: Path) -> LandmarkTable:
    """A .csv file; KeypointFileError says which of its rows is wrong."""
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not row:
                    continue
                if len(row) != _TABLE_COLUMNS:
                    raise KeypointFileError(
                        f"its row {number} has {len(row)} columns, and tables of landmarks have {_TABLE_COLUMNS}: "
                        "an image, a class, and x, y, z of 33 landmarks"
                    )
                rows.append((row[0], row[1], [float(value) for value in row[2:]]))
    except (ValueError, csv.Error) as error:
        raise KeypointFileError(f"it is not a table of landmarks ({error})") from None
    return LandmarkTable(rows)


def load_result(path: Path) -> list[list[dict[str, float]]]:
    """A .pbtxt file as one frame of one person; KeypointFileError says which of its lines is wrong."""
    landmarks: list[dict[str, float]] = []
    inside: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        raise KeypointFileError("it is no text") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _RESULT_LINE.fullmatch(line)
        try:
            if found is None:
                raise ValueError
            if found["open"]:
                inside.append(found["open"])
                if inside == ["landmarks", "landmark"]:
                    landmarks.append({})
            elif found["close"]:
                inside.pop()
            elif inside == ["landmarks", "landmark"]:
                landmarks[-1][found["key"]] = float(found["value"])
        except (ValueError, IndexError):
            raise KeypointFileError(f"its line {number} is not of a result of landmarks") from None
    return [landmarks]


def is_mediapipe(content: Any) -> bool:
    """Whether it looks like one of the three; frames in which nobody was seen may come first."""
    if isinstance(content, LandmarkTable):
        return True
    first = first_filled(content)
    while isinstance(first, list) and first:
        first = first[0]
    return isinstance(first, dict) and {"x", "y", "visibility"} <= first.keys()


def read_mediapipe(content: Any) -> Detections:
    """Landmarks of a video, of one result, or of stills; in a table, which says nothing of it, all are seen."""
    if isinstance(content, LandmarkTable):
        names = _names_of_stills(content)
        return Detections(
            BLAZEPOSE_33,
            [_of_still(name, values) for name, (*_, values) in zip(names, content.rows, strict=True)],
            are_stills=True,
        )
    if not is_mediapipe(content):
        raise KeypointFileError(
            "MediaPipe's users write a list with an entry per frame: the 33 landmarks {x, y, visibility} of a "
            "person, or a list of people's"
        )
    detections = []
    for number, frame in enumerate(content):
        if frame is None or frame == []:
            continue
        if not isinstance(frame, list):
            raise KeypointFileError(f"frame {number} is a {type(frame).__name__}, not a list of landmarks")
        people = frame if isinstance(frame[0], list) else [frame]
        detections += [_of_person(person, number) for person in people]
    return Detections(BLAZEPOSE_33, detections, in_image_shares=True)


def _of_person(landmarks: Any, frame: int) -> Detection:
    where = f"frame {frame}"
    if length_of(landmarks) != _NUM_LANDMARKS:
        raise KeypointFileError(f"{where} has a person of {max(length_of(landmarks), 0)} landmarks, not 33")
    keypoints = np.stack([_of_landmark(landmark, where) for landmark in landmarks])
    return Detection(
        frame_id=checked_frame_id(frame, where),
        person_id="0",
        score=float(keypoints[:, 2].mean()),
        keypoints=keypoints,
    )


def _of_landmark(landmark: Any, where: str) -> np.ndarray:
    if not (isinstance(landmark, dict) and {"x", "y", "visibility"} <= landmark.keys()):
        raise KeypointFileError(f"{where} has a landmark without x, y or visibility")
    return checked_numbers([landmark[key] for key in ("x", "y", "visibility")], 3, f"a landmark in {where}")


def _names_of_stills(table: LandmarkTable) -> list[str]:
    """Each still's own: the picture's name, where several share it with the class, and else with the row."""
    # Windows's paths have either separator.
    stems = [PureWindowsPath(name).stem or "0" for name, _, _ in table.rows]
    with_class = [f"{stem}_{of_class}" for stem, (_, of_class, _) in zip(stems, table.rows, strict=True)]
    times, times_with_class = Counter(stems), Counter(with_class)
    names = []
    for row, (stem, longer) in enumerate(zip(stems, with_class, strict=True), start=1):
        if times[stem] == 1:
            names.append(stem)
        else:
            names.append(longer if times_with_class[longer] == 1 else f"{longer}_{row}")
    return names


def _of_still(name: str, values: list[float]) -> Detection:
    """Every still is a person's only frame."""
    places = checked_numbers(values, 3 * _NUM_LANDMARKS, f"the landmarks of {name[:60]!r}").reshape(-1, 3)[
        :, :2
    ]
    keypoints = np.concatenate([places, np.ones((_NUM_LANDMARKS, 1))], axis=1)
    return Detection(frame_id=0, person_id=name, score=1.0, keypoints=keypoints)
