"""Whether what a file holds can be what it is taken for: one video, one picture's people, pixels, shares."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np
from jaxtyping import Float

from core.keypoints.detections import Detection, Detections, KeypointFileError
from core.keypoints.track import Track

# Pixels do not all lie so near the corner: those are shares of the picture.
_LARGEST_SHARE = 2.0
# A keypoint beyond the picture by more than this share of its side lies clearly outside. Of keypoints, weighed by
# confidence, more than half there belong to no such picture; nor do so many that lie in the turned one.
_CLEARLY_OUTSIDE = 0.1
_MOST_OUTSIDE, _MOST_OUTSIDE_UNLESS_TURNED, _MOST_OUTSIDE_WHEN_TURNED = 0.5, 0.2, 0.02
# Frames of a video in which people are seen do not lie so far apart.
_LARGEST_MEDIAN_STEP = 100
# Fewer may be one person detected twice.
_LEAST_OF_ONE_PICTURE = 3


def require_frames_of_one_video(detections: Sequence[Detection]) -> None:
    """KeypointFileError where one frame number is of two pictures, or the numbers are of unrelated ones."""
    pictures: dict[int, str] = {}
    for detection in detections:
        if detection.picture is None:
            continue
        known = pictures.setdefault(detection.frame_id, detection.picture)
        if known != detection.picture:
            raise KeypointFileError(
                f"its pictures {known[-60:]!r} and {detection.picture[-60:]!r} are both frame "
                f"{detection.frame_id}; give each video a file or folder of its own, and number pictures at the "
                "end of their names"
            )
    frames = sorted({detection.frame_id for detection in detections})
    step = median(later - earlier for earlier, later in pairwise(frames)) if len(frames) > 1 else 1
    if step > _LARGEST_MEDIAN_STEP:
        raise KeypointFileError(
            f"its frames lie {step:g} numbers apart in the median, so they are pictures and no video; give each a "
            "file of its own, or number them 0, 1, 2, … if they follow each other"
        )


def require_people_of_one_picture(num_detections: int, num_people: int) -> None:
    """KeypointFileError where entries that are taken for one picture's people are one another's doubles."""
    if num_detections >= max(_LEAST_OF_ONE_PICTURE, 2 * num_people):
        raise KeypointFileError(
            f"its {num_detections} entries would be people of one picture, but lie where {num_people} would; if "
            "each is of a frame, write a list with an entry per frame, each a list of its people"
        )


def require_shares(file: Detections) -> None:
    """KeypointFileError where coordinates are no shares of the picture's width and height."""
    keypoints = np.concatenate([detection.keypoints for detection in file.detections])
    seen = keypoints[keypoints[:, 2] > 0]
    if len(seen) and (outside := _share_outside(seen[:, :2], seen[:, 2], (1, 1))) > _MOST_OUTSIDE:
        raise KeypointFileError(
            f"its coordinates should be shares of the picture, from 0 to 1, and {round(100 * outside)} % lie "
            "clearly outside, as pixels do, or world landmarks, which are metres"
        )


def look_like_shares(file: Detections) -> bool:
    """Whether what is seen lies so near the corner that coordinates cannot be pixels, and can be shares."""
    keypoints = np.concatenate([one.keypoints for one in file.detections] or [np.zeros((0, 3))])
    places = keypoints[keypoints[:, 2] > 0, :2]
    return len(places) > 0 and bool(places.min() >= -_CLEARLY_OUTSIDE and places.max() <= _LARGEST_SHARE)


def require_pixels(tracks: Sequence[Track], *, size_is_the_files: bool) -> None:
    """KeypointFileError where keypoints are no pixels, or cannot be of pictures of the size that is given.

    The picture's edge cuts people off, and some detectors guess what lies beyond: only the gross case is refused.
    """
    keypoints_px = np.concatenate([track.keypoints_px[track.confidence > 0] for track in tracks])
    confidence = np.concatenate([track.confidence[track.confidence > 0] for track in tracks])
    if not len(keypoints_px):
        return
    if np.abs(keypoints_px).max() <= _LARGEST_SHARE:
        within = "the corner, so they are shares of the picture's width and height; multiply them by these"
        if keypoints_px.min() < -_CLEARLY_OUTSIDE:
            within = "(0, 0), on both sides of it, so they are no pixels; write them as pixels"
        raise KeypointFileError(f"all its coordinates lie within {_LARGEST_SHARE:g} pixels of {within}")
    size = tracks[0].image_size
    if size is None:
        return
    outside = _share_outside(keypoints_px, confidence, size)
    when_turned = _share_outside(keypoints_px, confidence, (size[1], size[0]))
    is_turned = outside > _MOST_OUTSIDE_UNLESS_TURNED and when_turned <= _MOST_OUTSIDE_WHEN_TURNED
    if outside > _MOST_OUTSIDE or is_turned:
        swapped = ", and inside when both are swapped" if is_turned else ""
        cure = "give image_size=[height,width] or the video that they are from"
        raise KeypointFileError(
            f"{round(100 * outside)} % of its keypoints lie outside pictures of {size[0]} × {size[1]} (height × "
            f"width){swapped}; {'correct its own image_size' if size_is_the_files else cure}"
        )


def _share_outside(
    keypoints: Float[np.ndarray, "point 2"],
    confidence: Float[np.ndarray, "point"],
    image_size: tuple[int, int],
) -> float:
    """Of keypoints, weighed by confidence, how many lie clearly outside pictures of a size."""
    side = np.array([image_size[1], image_size[0]])
    beyond = np.maximum(-keypoints, keypoints - side)
    is_outside = (beyond > _CLEARLY_OUTSIDE * side).any(axis=1)
    return float(confidence[is_outside].sum() / confidence.sum())
