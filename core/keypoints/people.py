"""Who is who: detections that a file gives to one person, though they are several people's.

Detectors without a tracker name nobody, or name everybody "0". Their people are told apart by where they are: a
person is near the place of a moment ago.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from core.keypoints.boxes import box_overlap, boxes_around
from core.keypoints.detections import Detection

# Two detections of one frame whose boxes share less of their union than this are of two people.
_SAME_PERSON_OVERLAP = 0.4
# So many frames with two people, as a share of the person's frames and at least, are no detector's slip.
_SLIPS, _LEAST_FRAMES = 0.01, 2
# A person moves by at most so many diagonals of their box from one seen frame to the next, and per missed frame.
_LARGEST_STEP, _LARGEST_STEP_PER_GAP = 0.5, 0.1
# After so many missed frames whoever comes is somebody new; after a few, so is whoever is so many times larger or
# smaller, as false detections are.
_LONGEST_GAP, _SHORT_GAP = 30, 5
_LARGEST_GROWTH = 4.0


class ToldApart(NamedTuple):
    """Detections, every person's under an id of their own.

    Attributes:
        detections: without the strays. Those of a frame that overlap are one person's.
        shared_ids: ids that several people had.
        strays: (person, frame) in which another person, too short a time for one of their own, had the id as well.
    """

    detections: list[Detection]
    shared_ids: tuple[str, ...]
    strays: list[tuple[str, int]]


def told_apart(detections: Sequence[Detection]) -> ToldApart:
    """Whose the detections are, where several people have one id.

    The first of them keeps it; the others' are the id with "-2", "-3", … added.
    """
    by_id: dict[str, list[Detection]] = {}
    for detection in detections:
        by_id.setdefault(detection.person_id, []).append(detection)
    found: list[Detection] = []
    shared: list[str] = []
    strays: list[tuple[str, int]] = []
    for person_id, of_id in by_id.items():
        frames: dict[int, list[list[Detection]]] = {}
        for detection in of_id:
            _put_with_its_person(frames.setdefault(detection.frame_id, []), detection)
        num_shared = sum(len(people) > 1 for people in frames.values())
        if num_shared < max(min(_LEAST_FRAMES, len(frames)), _SLIPS * len(frames)):
            found += _without_strays(frames)
            strays += [(person_id, frame_id) for frame_id, people in frames.items() if len(people) > 1]
        else:
            shared.append(person_id)
            found += _linked(person_id, frames)
    return ToldApart(found, tuple(shared), strays)


def _put_with_its_person(people: list[list[Detection]], detection: Detection) -> None:
    for person in people:
        if box_overlap(_box(person[0]), _box(detection)) >= _SAME_PERSON_OVERLAP:
            person.append(detection)
            return
    people.append([detection])


def _without_strays(frames: dict[int, list[list[Detection]]]) -> Iterable[Detection]:
    """The person's detections: in a frame of two people, of whoever is nearest to where the person was before."""
    alone = (people[0][0] for _, people in sorted(frames.items()) if len(people) == 1)
    first = next(alone, None)
    last_box = None if first is None else _box(first)
    for frame_id in sorted(frames):
        people = frames[frame_id]
        if last_box is not None:
            last = last_box
            people = [min(people, key=lambda person: _steps(last, _box(person[0]), 1))]
            last_box = _box(people[0][0])
        yield from (detection for person in people for detection in person)


def _linked(person_id: str, frames: dict[int, list[list[Detection]]]) -> Iterable[Detection]:
    """Every frame's people, each given to a person of before or somebody new, all together at the least cost."""
    from scipy.optimize import linear_sum_assignment  # here: scipy is slow to import

    last_box: list[np.ndarray] = []
    last_frame: list[int] = []
    for frame_id in sorted(frames):
        boxes = [_box(people[0]) for people in frames[frame_id]]
        known = [k for k in range(len(last_box)) if frame_id - last_frame[k] <= _LONGEST_GAP]
        steps = np.array(
            [[_steps(last_box[k], box, frame_id - last_frame[k]) for box in boxes] for k in known]
        ).reshape(len(known), len(boxes))
        # Somebody new costs as much as the farthest step. Were it more, a false detection would take a person's
        # place, and the person that of a false one of before; without the root, two middling steps would, too.
        cost = np.concatenate([np.where(steps <= 1, np.sqrt(steps), np.inf), np.ones((len(boxes),) * 2)])
        rows, columns = linear_sum_assignment(cost)
        person_of = {
            int(number): known[row] for row, number in zip(rows, columns, strict=True) if row < len(known)
        }
        for number, people in enumerate(frames[frame_id]):
            if number not in person_of:
                person_of[number] = len(last_box)
                last_box.append(boxes[number])
                last_frame.append(frame_id)
            person = person_of[number]
            last_box[person], last_frame[person] = boxes[number], frame_id
            name = person_id if person == 0 else f"{person_id}-{person + 1}"
            yield from (detection._replace(person_id=name) for detection in people)


def _box(detection: Detection) -> Float[np.ndarray, "4"]:
    """Around the seen keypoints (around all, where none is seen)."""
    confidence = detection.keypoints[:, 2]
    return boxes_around(
        detection.keypoints[:, :2], confidence if (confidence > 0).any() else np.ones_like(confidence)
    )


def _steps(before: Float[np.ndarray, "4"], now: Float[np.ndarray, "4"], num_frames: int) -> float:
    """How far a box has moved, over how far a person can in that time.

    By its corners: a box elsewhere in another is no less another's than one beside it.
    """
    moved = float(np.linalg.norm((now - before).reshape(2, 2), axis=1).mean())
    smaller, diagonal = sorted(float(np.linalg.norm(box[2:] - box[:2])) for box in (before, now))
    if num_frames > _SHORT_GAP and diagonal > _LARGEST_GROWTH * max(smaller, 1.0):
        return np.inf
    reach = (_LARGEST_STEP + _LARGEST_STEP_PER_GAP * (num_frames - 1)) * max(diagonal, 1.0)
    return moved / reach
