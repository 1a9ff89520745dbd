"""People as lists of keypoints and of scores: MMPose's predictions, and what other libraries return."""

from typing import Any

import numpy as np
from jaxtyping import Float

from core.keypoints.detections import (
    Detection,
    Detections,
    KeypointFileError,
    checked_frame_id,
    checked_numbers,
    first_filled,
    frame_id_of,
    frame_of_file,
    length_of,
    person_id_of,
    picture_of,
)
from core.keypoints.layouts import LAYOUTS, known_layouts
from core.keypoints.loading import JsonFolder, describe
from core.skeleton import COCO_17, Skeleton


def _keypoints_of(
    places: Any, scores: Any, of_others: Skeleton | None, where: str, name: str = "scores"
) -> tuple[Skeleton, Float[np.ndarray, "joint 3"]]:
    """The skeleton by the number of places, and its x, y and confidence."""
    count = length_of(places)
    layout = LAYOUTS.get(count)
    if layout is None or layout.skeleton is not (of_others or layout.skeleton):
        raise KeypointFileError(
            f"{where} has a person of {max(count, 0)} keypoints, and {known_layouts()} are read, the same "
            "throughout"
        )
    places_px = np.stack([checked_numbers(place, 2, f"a keypoint in {where}") for place in places])
    confidence = checked_numbers(scores, count, f"the {name} in {where}")
    return layout.skeleton, np.concatenate([places_px, confidence[:, None]], axis=1)[layout.kept]


def _mmpose_frames(content: Any) -> Any:
    """The frames of a video, or of pictures: from the folder of these, as frames are written."""
    if isinstance(content, JsonFolder):
        return [{"frame_id": name, "instances": _listed(picture)} for name, picture in content.files.items()]
    frames = _listed(content)
    return [{"frame_id": 0, "instances": frames}] if _is_mmpose_picture(content) else frames


def _is_mmpose_picture(content: Any) -> bool:
    people = _listed(content)
    return isinstance(people, list) and bool(people) and _is_mmpose_person(people[0])


def _listed(content: Any) -> Any:
    """The list itself (`MMPoseInferencer`), or a part of what is written (demo programs, Sapiens)."""
    return content.get("instance_info") if isinstance(content, dict) else content


def is_mmpose(content: Any) -> bool:
    """Whether it looks like frames of a video, or a picture's people, or a folder of the latter."""
    frames = _mmpose_frames(content)
    if isinstance(content, JsonFolder):
        people = next((frame["instances"] for frame in frames if frame["instances"]), None)
        return isinstance(people, list) and _is_mmpose_person(people[0])
    return isinstance(frames, list) and bool(frames) and _is_mmpose_frame(frames[0])


def _is_mmpose_person(person: Any) -> bool:
    return isinstance(person, dict) and {"keypoints", "keypoint_scores"} <= person.keys()


def _is_mmpose_frame(frame: Any) -> bool:
    return isinstance(frame, dict) and "frame_id" in frame and isinstance(frame.get("instances"), list)


def read_mmpose(content: Any) -> Detections:
    """MMPose's predictions for a video or for pictures (RTMPose, ViTPose, …), and Sapiens' for pictures."""
    if not is_mmpose(content):
        raise KeypointFileError(
            "MMPose writes a list of frames with frame_id and instances, or of a picture's people with keypoints "
            f"and keypoint_scores, but {describe(content)}"
        )
    for file in content.files.values() if isinstance(content, JsonFolder) else [content]:
        _require_nose_first(file)
    skeleton, detections = None, []
    for i, frame in enumerate(_mmpose_frames(content)):
        where = f"its file {frame['frame_id']}" if isinstance(content, JsonFolder) else f"frame {i}"
        if not _is_mmpose_frame(frame):
            raise KeypointFileError(f"{where} lacks frame_id or instances")
        for person in frame["instances"]:
            told = person if isinstance(person, dict) else {}
            skeleton, keypoints = _keypoints_of(
                told.get("keypoints"), told.get("keypoint_scores"), skeleton, where, name="keypoint_scores"
            )
            score = person.get("bbox_score")
            score = float(keypoints[:, 2].mean()) if score is None else score
            detections.append(
                Detection(
                    frame_id=frame_of_file(frame["frame_id"], where, is_alone=len(content.files) == 1)
                    if isinstance(content, JsonFolder)
                    else frame_id_of(frame["frame_id"], where),
                    person_id=person_id_of(person.get("track_id"), where),
                    score=float(checked_numbers([score], 1, f"the bbox_score in {where}")[0]),
                    keypoints=keypoints,
                    picture=picture_of(frame["frame_id"]),
                )
            )
    # Its demo programs, which list every frame, count before they save.
    counts_from_1 = isinstance(content, dict) and _mmpose_frames(content)[0]["frame_id"] == 1
    return Detections(
        skeleton or COCO_17,
        detections,
        counts_from=int(counts_from_1),
        is_one_picture=_is_mmpose_picture(content),
    )


def _require_nose_first(file: Any) -> None:
    meta = file.get("meta_info") if isinstance(file, dict) else None
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    _require_nose(names.get("0") if isinstance(names, dict) else None)


def _require_nose(first_name: Any) -> None:
    if first_name is not None and str(first_name) != "nose":
        raise KeypointFileError(
            f"its keypoints begin with {str(first_name)[:40]!r}, and those that are read begin with the nose"
        )


def is_people(content: Any) -> bool:
    """Whether it looks like an entry per frame, or one picture's people; frames without anybody may come first."""
    first = first_filled(_people_frames(content))
    return isinstance(first, list) and _is_person(first[0])


def _people_frames(content: Any) -> Any:
    return [content] if _is_picture_of_people(content) else content


def _is_picture_of_people(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and _is_person(content[0])


def _is_person(person: Any) -> bool:
    keypoints = person.get("keypoints") if isinstance(person, dict) else None
    if not isinstance(keypoints, list) or not keypoints:
        return False
    return isinstance(person.get("scores"), list) or (
        isinstance(keypoints[0], dict) and {"x", "y"} <= keypoints[0].keys()
    )


def read_people(content: Any) -> Detections:
    """A list with an entry per frame, its people as libraries return them.

    In Python as transformers (ViTPose) gives them, with keypoints [[x, y], …] and scores; in JavaScript as
    TensorFlow.js (MoveNet, BlazePose) and ml5 do, with keypoints {x, y, score or confidence, name}.
    """
    if not is_people(content):
        raise KeypointFileError(
            "people are written as a list with an entry per frame, a list of people with keypoints [[x, y], …] and "
            f"scores, or with keypoints {{x, y, score}}, but {describe(content)}"
        )
    skeleton, detections = None, []
    for number, frame in enumerate(_people_frames(content)):
        where = f"frame {number}"
        if frame is None:
            continue
        if not isinstance(frame, list) or not all(_is_person(person) for person in frame):
            raise KeypointFileError(
                f"{where} is no list of people with lists of keypoints and of scores, or of keypoints "
                "{x, y, score}"
            )
        for person in frame:
            places, scores = _places_and_scores(person, where)
            skeleton, keypoints = _keypoints_of(places, scores, skeleton, where)
            detections.append(
                Detection(
                    frame_id=checked_frame_id(number, where),
                    person_id=person_id_of(person.get("track_id", person.get("id")), where),
                    score=float(keypoints[:, 2].mean()),
                    keypoints=keypoints,
                )
            )
    return Detections(skeleton or COCO_17, detections, is_one_picture=_is_picture_of_people(content))


def _places_and_scores(person: dict[str, Any], where: str) -> tuple[list[Any], Any]:
    keypoints = person["keypoints"]
    if not any(isinstance(keypoint, dict) for keypoint in keypoints):
        return keypoints, person.get("scores")
    told = next(keypoint for keypoint in keypoints if isinstance(keypoint, dict))
    of_score = next((key for key in ("score", "confidence") if key in told), "score")
    if not all(isinstance(k, dict) and {"x", "y", of_score} <= k.keys() for k in keypoints):
        raise KeypointFileError(f"{where} has a keypoint without x, y and {of_score}")
    _require_nose(keypoints[0].get("name"))
    return [[k["x"], k["y"]] for k in keypoints], [k[of_score] for k in keypoints]
