"""Whether 17 joints are what they should be: finite, in the right unit, in the order of H36M_17, as the 2D shows.

A data set's file tells nothing about the order and the unit of its numbers; the body does. Limbs keep their length,
knees bend backwards, and no adult is 1.7 mm tall. The limits are wide: what they refuse cannot be a person.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from core.keypoints.boxes import boxes_around
from core.skeleton import H36M_17

# Lengths of an adult's bones, mm; a set's mean may lie at _SHORTEST to _LONGEST times these. The head's are the
# least agreed on (what one set calls nose is another's middle of the head), and where in the spine the spine is.
_BONE_MM = {
    "hip": 130.0,
    "knee": 440.0,
    "ankle": 440.0,
    "spine": 230.0,
    "thorax": 250.0,
    "nose": 120.0,
    "head": 130.0,
    "shoulder": 150.0,
    "elbow": 280.0,
    "wrist": 250.0,
}
_SHORTEST, _LONGEST = 0.15, 2.5
# Standard deviation over mean of a bone's share in all bones. Recorded skeletons stay below 0.1; joints in a wrong
# order, or depth in another unit than width and height, exceed 0.4 at some bone.
_MOST_VARIED = 0.3
# Root mean square distance of the joints from their centre is about 500 mm for a standing adult.
_RMS_RADIUS_MM = (120.0, 1500.0)
_UNITS_PER_M = {"m": 1.0, "cm": 100.0, "mm": 1000.0}
# Keypoints under another joint's name lie about their own. A detector's errors are some 50 mm; two joints of a
# limb, and those of both sides, are further apart. Whoever lies shows a short trunk.
_NEARER_TO_ANOTHER = 0.5
_NEARER_IN_TRUNK = 0.25
_LIMB_JOINTS = [
    H36M_17.index(f"{side}_{joint}")
    for side in ("right", "left")
    for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
]
# Without the pelvis, from which all are measured, and the nose, which is near the head.
_TRUNK_JOINTS = [H36M_17.index(joint) for joint in ("spine", "thorax", "head")]
_CHECKED_FRAMES = 4000
_SMALLEST_PERSON_PX = 8
# Any number beyond this is no measurement, and may overflow when it is squared.
_LARGEST = 1e12

_BONES = H36M_17.bones
_TYPICAL_MM = np.array(
    [_BONE_MM[H36M_17.joint_names[child].removeprefix("left_").removeprefix("right_")] for _, child in _BONES]
)


def check_joints(
    joints: Float[np.ndarray, "frame 17 3"],
    keypoints_px: Float[np.ndarray, "frame 17 2"],
    what: str,
    *,
    unit: str | None,
) -> None:
    """Refuses 3D joints that are no bodies in the order of H36M_17.

    Args:
        joints: In a right-handed frame with x right and y down, as the camera's.
        keypoints_px: Of the same frames.
        what: Which file, and what in it; begins the sentence.
        unit: "m" or "mm"; None where x and y are pixels.

    Raises:
        ValueError: One sentence about the first thing that is wrong.
    """
    check_finite(joints, what, "3D joints")
    check_finite(keypoints_px, what, "2D keypoints")
    sample = evenly_spaced(len(joints))
    joints = np.asarray(joints[sample], np.float64)
    keypoints_px = np.asarray(keypoints_px[sample], np.float64)
    if unit is not None:
        check_unit(joints, what, unit)
    check_order(joints, what)
    _check_agreement(joints, keypoints_px, what)


def check_in_picture(
    keypoints_px: Float[np.ndarray, "frame joint 2"], image_size: tuple[int, int], what: str
) -> None:
    """Refuses 2D keypoints that most of the time lie far outside of the picture that they were seen in.

    Args:
        image_size: (height, width).
        what: Which file, and what in it; begins the sentence.

    Raises:
        ValueError: They are in another unit than pixels, or from another corner.
    """
    height, width = image_size
    x, y = np.median(keypoints_px[evenly_spaced(len(keypoints_px))], axis=(0, 1))
    if not (-0.5 * width < x < 1.5 * width and -0.5 * height < y < 1.5 * height):
        raise ValueError(
            f"{what}: the 2D keypoints lie about ({x:.0f}, {y:.0f}), far outside of a picture of {width} x "
            f"{height} pixels; pixels from its upper left corner are expected."
        )


def check_extent(boxes_px: Float[np.ndarray, "box 4"], what: str) -> None:
    """Refuses people who are a few pixels large in the median.

    Args:
        boxes_px: (left, top, right, bottom) around keypoints.
        what: Which file, and what in it; begins the sentence.

    Raises:
        ValueError: They are in another unit than pixels.
    """
    extent = float(np.median((boxes_px[:, 2:] - boxes_px[:, :2]).max(-1)))
    if extent < _SMALLEST_PERSON_PX:
        raise ValueError(
            f"{what}: the 2D keypoints of a person span {extent:.2g}; pixels are expected, not normalised "
            "coordinates."
        )


def check_detections(
    keypoints_px: Float[np.ndarray, "frame 17 2"],
    confidence: Float[np.ndarray, "frame 17"],
    image_size: tuple[int, int],
    what: str,
) -> None:
    """Refuses the keypoints of a detector that are no pixels of a picture; absent ones have a confidence of 0.

    Args:
        image_size: (height, width).
        what: Which file, and what in it; begins the sentence.

    Raises:
        ValueError: They are in another unit than pixels, or from another corner.
    """
    seen = confidence > 0
    if seen.any():
        check_extent(boxes_around(keypoints_px, confidence)[seen.any(axis=1)], what)
        check_in_picture(keypoints_px[seen][:, None], image_size, what)


def evenly_spaced(num_frames: int, most: int = _CHECKED_FRAMES) -> slice:
    """Every frame where there are few, else about `most` of them."""
    return slice(None, None, max(1, num_frames // most))


def as_numbers(value: Any, what: str, name: str) -> np.ndarray:
    """An array of real numbers with at least one axis, out of whatever a file holds.

    Raises:
        ValueError: If it is anything else.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{what}: the {name} make no array of numbers ({error}); fetch the file again."
        ) from None
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise ValueError(
            f"{what}: the {name} are no array of numbers ({type(value).__name__}); fetch the file again."
        )
    return array


def check_finite(array: np.ndarray, what: str, name: str) -> None:
    """Raises ValueError if any number is NaN or infinite, in single precision too."""
    for start in range(0, len(array), 65_536):
        # In double precision: half precision could not be compared with the limit.
        bad = ~(np.abs(np.asarray(array[start : start + 65_536], np.float64)) < _LARGEST)
        if bad.any():
            frame = start + int(np.nonzero(bad)[0][0])
            raise ValueError(
                f"{what}: the {name} hold a value that is not finite, first in frame {frame}; fetch the file again."
            )


def check_unit(joints: Float[np.ndarray, "frame joint 3"], what: str, unit: str) -> None:
    """Raises ValueError if people would not be people's size in `unit`, whatever the order of the joints."""
    offsets = joints - joints.mean(axis=1, keepdims=True)
    radius = float(np.median(np.sqrt(np.square(offsets).sum(-1).mean(-1))))
    low, high = _RMS_RADIUS_MM
    fitting = [name for name, per_m in _UNITS_PER_M.items() if low <= radius / per_m * 1000 <= high]
    if unit not in fitting:
        found = (
            f"are in {fitting[0]}" if fitting else "are in no unit in which a body has the size of a person"
        )
        raise ValueError(
            f"{what}: the 3D joints {found} (they lie {radius:.3g} around their centre), but {unit} are "
            "expected; convert them, or fetch the original file."
        )


def check_order(joints: Float[np.ndarray, "frame 17 3"], what: str) -> None:
    """Raises ValueError if bones of H36M_17 are no bones here, or left and right are exchanged."""
    parents, children = np.array(_BONES).T
    lengths = np.linalg.norm(joints[:, children] - joints[:, parents], axis=-1)
    share = lengths / np.maximum(lengths.sum(axis=1, keepdims=True), 1e-12)
    mean, spread = np.median(share, axis=0), share.std(axis=0)
    ratio = mean / (_TYPICAL_MM / _TYPICAL_MM.sum())
    variation = spread / np.maximum(mean, 1e-12)
    wrong = (ratio < _SHORTEST) | (ratio > _LONGEST) | (variation > _MOST_VARIED)
    if wrong.any():
        worst = int(np.argmax(np.where(wrong, np.abs(np.log(np.maximum(ratio, 1e-6))) + variation, 0)))
        parent, child = (H36M_17.joint_names[joint] for joint in _BONES[worst])
        raise ValueError(
            f"{what}: the joints are not in the expected order, or depth is not in the unit of width and height: "
            f"from {parent} to {child} it is {ratio[worst]:.2g} times as far as on a body, varying by "
            f"{100 * variation[worst]:.0f} %."
        )

    at = {name: joints[:, index] for index, name in enumerate(H36M_17.joint_names)}
    _check_trunk(at, what)
    to_left = at["left_hip"] - at["right_hip"]
    across = (to_left * (at["left_shoulder"] - at["right_shoulder"])).sum(-1)
    if np.median(across) < 0:
        raise ValueError(
            f"{what}: left and right are exchanged in the legs or in the arms: hips and shoulders point "
            "opposite ways."
        )
    forward = np.cross(to_left, at["thorax"] - at["pelvis"])
    forward /= np.maximum(np.linalg.norm(forward, axis=-1, keepdims=True), 1e-12)
    bend = np.mean(
        [
            ((at[f"{side}_knee"] - (at[f"{side}_hip"] + at[f"{side}_ankle"]) / 2) * forward).sum(-1)
            for side in ("left", "right")
        ]
    )
    leg = 2 * float(np.median(lengths[:, children == H36M_17.index("left_knee")]))
    if bend < -0.02 * leg:
        raise ValueError(
            f"{what}: left and right are exchanged, or an axis is mirrored: the knees bend forwards."
        )


def _check_trunk(at: dict[str, Float[np.ndarray, "frame 3"]], what: str) -> None:
    """Raises ValueError if pelvis and spine are exchanged, or nose and head, whose bones are about as long then."""
    for name, other, farther, base in (
        ("pelvis", "spine", False, (at["left_hip"] + at["right_hip"]) / 2),
        ("head", "nose", True, at["thorax"]),
    ):
        own, others = (float(np.median(np.linalg.norm(at[key] - base, axis=-1))) for key in (name, other))
        if (own < others) if farther else (own > others):
            from_where = "the thorax" if farther else "the middle of the hips"
            raise ValueError(
                f"{what}: {name} and {other} are exchanged: the joint called {name} lies "
                f"{'nearer to' if farther else 'farther from'} {from_where} than the one called {other}."
            )


def _check_agreement(
    joints: Float[np.ndarray, "frame 17 3"], keypoints_px: Float[np.ndarray, "frame 17 2"], what: str
) -> None:
    """Raises ValueError if the 2D keypoints are no picture of the 3D joints."""
    check_extent(boxes_around(keypoints_px, np.ones(keypoints_px.shape[:2])), what)
    pelvis = H36M_17.index("pelvis")
    seen = (keypoints_px - keypoints_px[:, pelvis : pelvis + 1]).reshape(len(joints), -1)
    pose = (joints - joints[:, pelvis : pelvis + 1])[..., :2].reshape(len(joints), -1)
    norms = np.linalg.norm(seen, axis=-1) * np.linalg.norm(pose, axis=-1)
    agreement = float(np.median((seen * pose).sum(-1) / np.maximum(norms, 1e-12)))
    if agreement < 0.8:
        raise ValueError(
            f"{what}: the 2D keypoints do not show the 3D joints (correlation {agreement:.2f}): the order of the "
            "joints differs, or y points up, or they are of different frames."
        )
    _check_names(seen, pose, what)


def _check_names(seen: Float[np.ndarray, "frame xy"], pose: Float[np.ndarray, "frame xy"], what: str) -> None:
    """Raises ValueError if keypoints follow another joint than the one whose name they bear."""
    size = (seen * pose).sum(-1, keepdims=True) / np.maximum(np.square(pose).sum(-1, keepdims=True), 1e-12)
    seen = seen / np.maximum(size, 1e-12)  # in the unit of the pose
    points, joints = (array.reshape(len(array), -1, 2) for array in (seen, pose))
    for group, least_share in ((_LIMB_JOINTS, _NEARER_TO_ANOTHER), (_TRUNK_JOINTS, _NEARER_IN_TRUNK)):
        between = points[:, group, None] - joints[:, None, group]
        apart = np.median(np.linalg.norm(between, axis=-1), axis=0)  # [point, joint]
        share = apart.min(axis=1) / np.maximum(np.diagonal(apart), 1e-12)
        worst = int(share.argmin())
        if share[worst] < least_share:
            named, followed = (
                H36M_17.joint_names[group[index]] for index in (worst, int(apart[worst].argmin()))
            )
            raise ValueError(
                f"{what}: the 2D keypoints called {named} lie about the 3D joint {followed}: the orders of the "
                "joints differ."
            )
