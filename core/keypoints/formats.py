"""The formats of 2D keypoint files: from what a file holds to detections, every value checked.

One more format is one function that turns parsed content into `Detections`, and one entry in `FORMATS`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.keypoints.detections import (
    Detection,
    Detections,
    KeypointFileError,
    checked_frame_id,
    checked_numbers,
    frame_id_of,
    frame_of_file,
    length_of,
    person_id_of,
    picture_of,
)
from core.keypoints.layouts import LAYOUTS, known_layouts
from core.keypoints.loading import JsonFolder, describe
from core.keypoints.mediapipe import is_mediapipe, read_mediapipe
from core.keypoints.people_lists import is_mmpose, is_people, read_mmpose, read_people
from core.keypoints.ultralytics import is_ultralytics, read_ultralytics
from core.keypoints.videopose3d import is_videopose3d, read_videopose3d
from core.skeleton import BODY_25, COCO_17, COCO_18, HALPE_26, SKELETONS


def _is_alphapose(content: Any) -> bool:
    if isinstance(content, JsonFolder):
        content = next((entries for entries in content.files.values() if entries), None)
    return (
        isinstance(content, list)
        and bool(content)
        and isinstance(content[0], dict)
        and {"image_id", "keypoints"} <= content[0].keys()
    )


def _read_alphapose(content: Any) -> Detections:
    """AlphaPose's result list, or the folder of one list per picture; a COCO results list looks the same."""
    if not _is_alphapose(content):
        raise KeypointFileError(
            f"AlphaPose writes a list of entries with image_id and keypoints, but {describe(content)}"
        )
    layout, detections = None, []
    for file_name, where, entry in _alphapose_entries(content):
        if not (isinstance(entry, dict) and {"image_id", "keypoints"} <= entry.keys()):
            raise KeypointFileError(f"{where} lacks image_id or keypoints")
        count = length_of(entry["keypoints"])
        layout = layout or (LAYOUTS.get(count // 3) if count % 3 == 0 else None)
        if layout is None:
            raise KeypointFileError(
                f"{where} has {max(count, 0)} keypoint values, and three each of {known_layouts()} are read"
            )
        num_values = 3 * layout.num_keypoints
        keypoints = checked_numbers(entry["keypoints"], num_values, f"the keypoints of {where}").reshape(
            -1, 3
        )
        keypoints = keypoints[layout.kept]
        score = (
            None
            if entry.get("score") is None
            else checked_numbers([entry["score"]], 1, f"the score of {where}")[0]
        )
        detections.append(
            Detection(
                frame_id=frame_id_of(entry["image_id"], where),
                person_id=person_id_of(entry.get("idx"), where),
                score=float(keypoints[:, 2].mean() if score is None else score),
                keypoints=keypoints,
                picture=file_name or picture_of(entry["image_id"]),
            )
        )
    return Detections(layout.skeleton if layout else HALPE_26, detections)


def _alphapose_entries(content: Any) -> Iterator[tuple[str | None, str, Any]]:
    """Entries, the file of a folder that they are in, and which they are, for messages."""
    if not isinstance(content, JsonFolder):
        yield from ((None, f"entry {i}", entry) for i, entry in enumerate(content))
        return
    for name, entries in content.files.items():
        if not isinstance(entries, list):
            raise KeypointFileError(f"its file {name} is no list of entries with image_id and keypoints")
        yield from ((name, f"entry {i} of {name}", entry) for i, entry in enumerate(entries))


def _is_openpose(content: Any) -> bool:
    values = list(content.files.values()) if isinstance(content, JsonFolder) else [content]
    return isinstance(values[0], dict) and "people" in values[0]


def _read_openpose(content: Any) -> Detections:
    """OpenPose's folder with a file per frame, or one of its files: BODY_25 or COCO-18, unseen joints at (0, 0)."""
    if not _is_openpose(content):
        raise KeypointFileError(
            f"OpenPose writes a folder of files with the key 'people', but {describe(content)}"
        )
    files = content.files if isinstance(content, JsonFolder) else {"0": content}
    skeletons = {3 * skeleton.num_joints: skeleton for skeleton in (BODY_25, COCO_18)}
    skeleton, detections = None, []
    for name, frame in files.items():
        people = frame.get("people") if isinstance(frame, dict) else None
        if not isinstance(people, list):
            raise KeypointFileError(f"its file {name} has no list of people")
        for i, person in enumerate(people):
            where = f"person {i} of {name}"
            values = person.get("pose_keypoints_2d") if isinstance(person, dict) else None
            if length_of(values) not in skeletons or skeletons[length_of(values)] is not (
                skeleton or skeletons[length_of(values)]
            ):
                raise KeypointFileError(
                    f"{where} has {max(length_of(values), 0)} values in pose_keypoints_2d, and OpenPose writes "
                    f"{3 * BODY_25.num_joints} (BODY_25) or {3 * COCO_18.num_joints} (COCO), the same throughout"
                )
            skeleton = skeletons[length_of(values)]
            keypoints = checked_numbers(values, length_of(values), f"the keypoints of {where}").reshape(-1, 3)
            if (keypoints[:, 2] > 0).any():
                detections.append(
                    Detection(
                        frame_id=frame_of_file(name, where, is_alone=len(files) == 1),
                        person_id=_openpose_id(person.get("person_id"), where),
                        score=float(keypoints[:, 2].mean()),
                        keypoints=keypoints,
                        picture=name,
                    )
                )
    return Detections(skeleton or BODY_25, detections)


def _openpose_id(value: Any, where: str) -> str:
    """[-1], or none at all, is nobody in particular."""
    person_id = person_id_of(value, where)
    return "0" if person_id == "-1" else person_id


def _is_gastnet(content: Any) -> bool:
    frames = content.get("data") if isinstance(content, dict) else None
    return (
        isinstance(frames, list) and bool(frames) and isinstance(frames[0], dict) and "skeleton" in frames[0]
    )


def _read_gastnet(content: Any) -> Detections:
    """GAST-Net's file of one clip: frames, counted from 1, of people in COCO-17."""
    if not _is_gastnet(content):
        raise KeypointFileError(
            f"GAST-Net writes frames with a skeleton each under 'data', but {describe(content)}"
        )
    num_joints = COCO_17.num_joints
    detections = []
    for i, frame in enumerate(content["data"]):
        people = frame.get("skeleton") if isinstance(frame, dict) else None
        if not isinstance(people, list) or "frame_index" not in frame:
            raise KeypointFileError(f"frame {i} lacks frame_index or skeleton")
        for person in people:
            where = f"frame {i}"
            if not isinstance(person, dict) or length_of(person.get("pose")) != num_joints:
                raise KeypointFileError(f"{where} has a person without a pose of {num_joints} joints")
            places = [checked_numbers(place, 2, f"a place in {where}") for place in person["pose"]]
            scores = person.get("score")
            if not isinstance(scores, list) or len(scores) != num_joints:
                raise KeypointFileError(f"{where} has a person without {num_joints} scores")
            flat = [score[0] if isinstance(score, list) and len(score) == 1 else score for score in scores]
            confidence = checked_numbers(flat, num_joints, f"the scores of {where}")
            detections.append(
                Detection(
                    frame_id=frame_id_of(frame["frame_index"], where),
                    person_id="0",
                    score=float(confidence.mean()),
                    keypoints=np.concatenate([np.stack(places), confidence[:, None]], axis=1),
                )
            )
    return Detections(COCO_17, detections, counts_from=1)


_NPZ_KEYS = ("keypoints_px", "confidence", "frame_ids", "fps", "skeleton")


def _is_own_npz(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), np.ndarray) for key in _NPZ_KEYS)


def _read_own_npz(content: Any) -> Detections:
    """What `write_keypoints_npz` writes."""
    if not _is_own_npz(content):
        raise KeypointFileError(
            f"a keypoint npz has the arrays {', '.join(_NPZ_KEYS)}, but {describe(content)}"
        )
    skeleton_name = str(content["skeleton"])
    if skeleton_name not in SKELETONS:
        raise KeypointFileError(f"its skeleton is {skeleton_name!r}, which is none of {', '.join(SKELETONS)}")
    skeleton, num_frames = SKELETONS[skeleton_name], content["frame_ids"].size
    for key, shape, kinds in (
        ("frame_ids", (num_frames,), "iu"),
        ("keypoints_px", (num_frames, skeleton.num_joints, 2), "fiu"),
        ("confidence", (num_frames, skeleton.num_joints), "fiu"),
        ("fps", (), "fiu"),
        ("image_size", (2,), "iu"),
    ):
        if key in content and (content[key].shape != shape or content[key].dtype.kind not in kinds):
            raise KeypointFileError(
                f"its {key} are {content[key].dtype} of shape {content[key].shape}, and numbers of shape "
                f"{shape} are needed"
            )
    keypoints = np.concatenate(
        [content["keypoints_px"], content["confidence"][..., None]], axis=-1, dtype=float
    )
    if not np.isfinite(keypoints).all():
        raise KeypointFileError("it holds values that are not finite")
    person_id = str(content.get("person_id", "0"))
    detections = [
        Detection(checked_frame_id(int(frame_id), f"frame {i}"), person_id, float(frame[:, 2].mean()), frame)
        for i, (frame_id, frame) in enumerate(zip(content["frame_ids"], keypoints, strict=True))
    ]
    size = content.get("image_size")
    image_size = None if size is None else (int(size[0]), int(size[1]))
    return Detections(skeleton, detections, fps=float(content["fps"]), image_size=image_size)


@dataclass(frozen=True)
class _Format:
    description: str
    recognises: Callable[[Any], bool]
    read: Callable[[Any], Detections]


FORMATS: dict[str, _Format] = {
    "alphapose": _Format("Halpe-26 or COCO-17, or more", _is_alphapose, _read_alphapose),
    "openpose": _Format("BODY_25 or COCO-18", _is_openpose, _read_openpose),
    "mmpose": _Format("COCO-17, Halpe-26, COCO-WholeBody", is_mmpose, read_mmpose),
    "ultralytics": _Format("labels or summaries, COCO-17", is_ultralytics, read_ultralytics),
    "people": _Format("per frame, with scores", is_people, read_people),
    "gastnet": _Format("COCO-17", _is_gastnet, _read_gastnet),
    "mediapipe": _Format("BlazePose-33", is_mediapipe, read_mediapipe),
    "videopose3d": _Format("Detectron's, COCO-17", is_videopose3d, read_videopose3d),
    "npz": _Format("the project's own", _is_own_npz, _read_own_npz),
}


def known_formats() -> str:
    """The names and descriptions of the formats, for messages."""
    return "; ".join(f"{name} ({entry.description})" for name, entry in FORMATS.items())


def refuse_nobody(content: Any) -> None:
    """KeypointFileError for what a writer leaves in which nobody was detected, from which no format is known."""
    content = content.get("instance_info", content) if isinstance(content, dict) else content
    values = list(content.files.values()) if isinstance(content, JsonFolder) else content
    if isinstance(values, list) and all(
        value is None or value == [] or (isinstance(value, dict) and value.get("instances") == [])
        for value in values
    ):
        raise KeypointFileError(
            "it is an empty list: no person was detected"
            if values == []
            else "no person was detected in any frame"
        )


def recognise(content: Any) -> str:
    """The name of the format that parsed content is in."""
    for name, entry in FORMATS.items():
        if entry.recognises(content):
            return name
    if isinstance(content, dict) and {"poses", "trans"} <= content.keys():
        raise KeypointFileError(
            "it is a motion (poses, trans), not keypoints: tools/export_mesh.py and tools/render_video.py take it"
        )
    raise KeypointFileError(
        f"{describe(content)}, which is no known format; these are read: {known_formats()}"
    )
