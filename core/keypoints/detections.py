"""What a file reports of people, before they are told apart, and checks of its values one by one: files come from
anywhere."""

import re
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from core.skeleton import Skeleton

_MAX_FRAME_ID = 10**9
# Pixels beyond this come from a broken file; as float32 they would lose their meaning.
MAX_COORDINATE_PX = 1e6


class KeypointFileError(Exception):
    """What is wrong with a file, as the end of a sentence; whoever knows the file's name completes it."""


class Detection(NamedTuple):
    """One person in one frame, as a file reports them."""

    frame_id: int
    person_id: str
    score: float
    keypoints: Float[np.ndarray, "joint 3"]  # x and y in pixels, confidence as written
    picture: str | None = None  # the name that the frame's number is from


class Detections(NamedTuple):
    """All that a file reports, before people are told apart and doubles are resolved."""

    skeleton: Skeleton
    detections: list[Detection]
    fps: float | None = None
    image_size: tuple[int, int] | None = None
    in_image_shares: bool = False  # x and y over the image's width and height, instead of pixels
    counts_from: int = 0  # the number of the video's first frame
    video_name: str | None = None  # what they are of, where the file says it
    is_one_picture: bool = False  # a list of people that no frame is written for
    are_stills: bool = False  # every person is of a picture, and of a camera, of their own


def first_filled(frames: Any) -> Any:
    """The first entry of a list that is not empty; None where there is none, or no list."""
    return next((frame for frame in frames if frame), None) if isinstance(frames, list) else None


def length_of(values: Any) -> int:
    """Of a list; -1 for anything else."""
    return len(values) if isinstance(values, list) else -1


def checked_numbers(values: Any, count: int, what: str) -> Float[np.ndarray, "count"]:
    """A list of so many finite numbers; KeypointFileError says what it is instead."""
    if length_of(values) != count:
        found = f"{len(values)} values" if isinstance(values, list) else f"a {type(values).__name__}"
        raise KeypointFileError(f"{what} are {found}, and {count} numbers are needed")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise KeypointFileError(f"{what} are not all numbers")
    # The comparison is exact for integers of any size, which would overflow a float, and false for NaN.
    if not all(abs(value) <= MAX_COORDINATE_PX for value in values):
        raise KeypointFileError(
            f"{what} hold values that are not finite, or beyond a million; what was not detected has confidence 0"
        )
    return np.array(values, dtype=float)


def frame_id_of(image_id: Any, where: str) -> int:
    """The frame that an image id names: itself, or the last run of digits in the file's name."""
    if isinstance(image_id, float) and image_id.is_integer():
        image_id = int(image_id)
    if isinstance(image_id, int) and not isinstance(image_id, bool):
        return checked_frame_id(image_id, where)
    if not isinstance(image_id, str):
        raise KeypointFileError(
            f"the image_id of {where} is a {type(image_id).__name__}, not a number or a file name"
        )
    stem = re.split(r"[/\\]", image_id)[-1]
    stem = stem.rsplit(".", 1)[0] if "." in stem else stem
    digits = re.findall(r"[0-9]+", stem)
    if not digits or len(digits[-1]) > 15:
        raise KeypointFileError(f"the image_id {image_id[:60]!r} of {where} does not end in a frame number")
    return checked_frame_id(int(digits[-1]), where)


def checked_frame_id(frame_id: int, where: str) -> int:
    """The same, if it is one; else KeypointFileError."""
    if not 0 <= frame_id <= _MAX_FRAME_ID:
        raise KeypointFileError(f"{where} has a frame number outside 0 to {_MAX_FRAME_ID}")
    return frame_id


def frame_of_file(name: str, where: str, *, is_alone: bool) -> int:
    """The frame that a folder's file is of; a file that is alone in it need not be numbered."""
    if is_alone and not re.search(r"[0-9]", name.rsplit(".", 1)[0]):
        return 0
    return frame_id_of(name, where)


def picture_of(image_id: Any) -> str | None:
    """The picture's name, where the frame is written as one."""
    return image_id if isinstance(image_id, str) else None


def person_id_of(idx: Any, where: str) -> str:
    """A track id as AlphaPose writes it: a number, or lists around it, the first of which counts; none is 0."""
    while isinstance(idx, list) and idx:
        idx = idx[0]
    if idx is None or idx == []:
        return "0"
    is_number = isinstance(idx, int | float) and not isinstance(idx, bool)
    if not (is_number and abs(idx) <= _MAX_FRAME_ID):  # exact for integers of any size, and false for NaN
        raise KeypointFileError(f"the idx of {where} is not a person's number")
    return str(int(idx)) if idx == int(idx) else str(idx)
