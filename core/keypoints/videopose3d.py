"""Keypoints as VideoPose3D's users have them: Detectron's of a video, and what is made of those.

    <video>.npz                 boxes[frame][1] (N, 5) px, score; keypoints[frame][1] (N, 4, 17) x, y, -, score
    data_2d_custom_<name>.npz   positions_2d[video]["custom"][0] (T, 17, 2) px, gaps filled, no confidences

Both hold arrays of objects, which numpy writes as pickles: they are read without executing anything. Joints are
those of COCO-17.

Source: inference/infer_video_d2.py and data/prepare_data_2d_custom.py of github.com/facebookresearch/VideoPose3D.
"""

from typing import Any

import numpy as np

from core.keypoints.detections import MAX_COORDINATE_PX, Detection, Detections, KeypointFileError
from core.skeleton import COCO_17

_OF_VIDEO = ("boxes", "keypoints", "metadata")
_OF_DATA_SET = ("positions_2d", "metadata")
_NUM_JOINTS = COCO_17.num_joints
_X, _Y, _SCORE = 0, 1, 3


def is_videopose3d(content: Any) -> bool:
    """Whether it has the arrays of either file."""
    return isinstance(content, dict) and any(
        all(isinstance(content.get(key), np.ndarray) for key in keys) for keys in (_OF_VIDEO, _OF_DATA_SET)
    )


def read_videopose3d(content: Any) -> Detections:
    """The people of Detectron's file of a video, or the one person of a data set that was made of one video."""
    if not is_videopose3d(content):
        raise KeypointFileError(
            "VideoPose3D's files of a video are npz with boxes, keypoints and metadata, or with positions_2d"
        )
    return _of_video(content) if "boxes" in content else _of_data_set(content)


def _of_video(content: dict[str, np.ndarray]) -> Detections:
    boxes, keypoints = (_frames(content[key], key) for key in ("boxes", "keypoints"))
    if len(boxes) != len(keypoints):
        raise KeypointFileError(f"it has boxes of {len(boxes)} frames and keypoints of {len(keypoints)}")
    detections = []
    for frame, (of_boxes, of_keypoints) in enumerate(zip(boxes, keypoints, strict=True)):
        if len(of_boxes) == 0 or len(of_keypoints) == 0:
            continue
        scores = _numbers(of_boxes, (5,), f"the boxes of frame {frame}")[:, 4]
        people = _numbers(of_keypoints, (4, _NUM_JOINTS), f"the keypoints of frame {frame}")
        if len(scores) != len(people):
            raise KeypointFileError(
                f"frame {frame} has {len(scores)} boxes and {len(people)} people's keypoints"
            )
        detections += [
            Detection(frame, "0", float(score), person[[_X, _Y, _SCORE]].T)
            for score, person in zip(scores, people, strict=True)
        ]
    return Detections(COCO_17, detections, image_size=_image_size(_only(content["metadata"])))


def _frames(array: np.ndarray, key: str) -> list[Any]:
    """Of each frame what lies in Detectron's second class, a person."""
    if array.ndim == 0 or not all(
        isinstance(frame, np.ndarray | list) and len(frame) == 2 for frame in array
    ):
        raise KeypointFileError(f"its {key} are not a pair, of background and people, for each frame")
    people = [frame[1] for frame in array]
    is_list = [isinstance(one, list) or (isinstance(one, np.ndarray) and one.ndim > 0) for one in people]
    if not all(is_list):
        raise KeypointFileError(f"its {key} hold a frame that is no list of people")
    return people


def _of_data_set(content: dict[str, np.ndarray]) -> Detections:
    videos, metadata = _only(content["positions_2d"]), _only(content["metadata"])
    if not (isinstance(videos, dict) and videos and all(isinstance(one, dict) for one in videos.values())):
        raise KeypointFileError("its positions_2d are no table of videos")
    if any("custom" not in of_video for of_video in videos.values()):
        raise KeypointFileError(
            "its positions_2d are a data set's, such as Human3.6M's, which tools/prepare_data.py takes"
        )
    if len(videos) > 1:
        names = ", ".join(str(name)[:40] for name in list(videos)[:4])
        raise KeypointFileError(
            f"it is of {len(videos)} videos ({names}{', …' * (len(videos) > 4)}); give the npz that "
            "Detectron left of one of them"
        )
    name, of_video = next(iter(videos.items()))
    takes = of_video["custom"]
    if not isinstance(takes, list | np.ndarray) or len(takes) != 1:
        raise KeypointFileError(f"its video {str(name)[:60]!r} is not one sequence of frames")
    places_px = _numbers(takes[0], (_NUM_JOINTS, 2), f"the keypoints of {str(name)[:60]!r}")
    frames = np.concatenate([places_px, np.ones((*places_px.shape[:2], 1))], axis=-1)
    of_videos = metadata.get("video_metadata") if isinstance(metadata, dict) else None
    return Detections(
        COCO_17,
        [Detection(frame, "0", 1.0, keypoints) for frame, keypoints in enumerate(frames)],
        image_size=_image_size(of_videos.get(name) if isinstance(of_videos, dict) else None),
        video_name=str(name),
    )


def _only(array: np.ndarray) -> Any:
    """The single object that an array stands for."""
    return array.item() if array.ndim == 0 else None


def _image_size(metadata: Any) -> tuple[int, int] | None:
    """(height, width), where the file says it."""
    if not isinstance(metadata, dict) or not {"h", "w"} & metadata.keys():
        return None
    height, width = metadata.get("h"), metadata.get("w")
    if not all(isinstance(side, int | np.integer) and side > 0 for side in (height, width)):
        raise KeypointFileError(f"its video's width and height are {width!r} and {height!r}, no size")
    return int(height), int(width)  # type: ignore[arg-type]


def _numbers(values: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """(N, *shape) finite numbers; KeypointFileError says what they are instead."""
    try:
        numbers = np.asarray(values, dtype=float)
    except (ValueError, TypeError):
        raise KeypointFileError(f"{what} are not numbers of one shape") from None
    if numbers.shape[1:] != shape:
        raise KeypointFileError(
            f"{what} are of shape {numbers.shape}, and (N, {', '.join(map(str, shape))}) are read"
        )
    if not (np.abs(numbers) <= MAX_COORDINATE_PX).all():
        raise KeypointFileError(f"{what} hold values that are not finite, or beyond a million")
    return numbers
