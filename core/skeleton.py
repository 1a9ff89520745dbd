"""Named skeletons, and conversion between any two of them by the meaning of their joints.

A joint's *name* is what its data set calls it; its *landmark* is the place on the body that the name
stands for. The two differ only where data sets disagree: Human3.6M's `head` is the top of the head, SMPL's
`head` is the base of the skull. Conversion goes by landmark, so such a pair is never mixed up.
"""

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Skeleton:
    """A list of named joints and the tree of bones between them.

    Attributes:
        name: Key in `SKELETONS`.
        joint_names: One name per joint; sides are prefixed `left_` and `right_`.
        parents: Index of each joint's parent, -1 for the one root. A parent may come later in the list.
        landmark_of: (joint name, landmark) pairs for the joints whose name is not their landmark.
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    landmark_of: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        assert len(self.joint_names) == len(self.parents) == len(set(self.joint_names))
        assert self.parents.count(-1) == 1
        assert all(name in self.joint_names for name, _ in self.landmark_of)

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) index pairs, one per joint other than the root, in the order of the children."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    @cached_property
    def landmarks(self) -> tuple[str, ...]:
        """The landmark of each joint."""
        exceptions = dict(self.landmark_of)
        return tuple(exceptions.get(name, name) for name in self.joint_names)

    @cached_property
    def mirror_permutation(self) -> tuple[int, ...]:
        """Indices such that `keypoints[mirror_permutation]` swaps left and right joints."""
        return tuple(self.index(_mirrored_name(name)) for name in self.joint_names)

    def index(self, joint_name: str) -> int:
        """Index of a joint.

        Raises:
            ValueError: If the skeleton has no joint of that name.
        """
        if joint_name not in self.joint_names:
            raise ValueError(
                f"Skeleton {self.name!r} has no joint {joint_name!r}; "
                f"its joints are {', '.join(self.joint_names)}."
            )
        return self.joint_names.index(joint_name)

    def hop_distances(self) -> list[list[int]]:
        """(J, J) numbers of bones on the shortest path between two joints."""
        neighbours: list[list[int]] = [[] for _ in self.joint_names]
        for parent, child in self.bones:
            neighbours[parent].append(child)
            neighbours[child].append(parent)
        return [_breadth_first_depths(neighbours, start) for start in range(self.num_joints)]


def _mirrored_name(name: str) -> str:
    if name.startswith("left_"):
        return "right_" + name.removeprefix("left_")
    if name.startswith("right_"):
        return "left_" + name.removeprefix("right_")
    return name


def _breadth_first_depths(neighbours: list[list[int]], start: int) -> list[int]:
    depths = {start: 0}
    queue = deque([start])
    while queue:
        joint = queue.popleft()
        for neighbour in neighbours[joint]:
            if neighbour not in depths:
                depths[neighbour] = depths[joint] + 1
                queue.append(neighbour)
    return [depths[joint] for joint in range(len(neighbours))]


def _skeleton(name: str, tree: str, landmark_of: tuple[tuple[str, str], ...] = ()) -> Skeleton:
    """Builds a skeleton from lines `joint < parent`, in joint order."""
    pairs = [(line.split("<")[0].strip(), line.split("<")[1].strip()) for line in tree.strip().splitlines()]
    names = tuple(joint for joint, _ in pairs)
    parents = tuple(names.index(parent) if parent else -1 for _, parent in pairs)
    return Skeleton(name=name, joint_names=names, parents=parents, landmark_of=landmark_of)


H36M_17 = _skeleton(
    "h36m_17",
    """
    pelvis <
    right_hip < pelvis
    right_knee < right_hip
    right_ankle < right_knee
    left_hip < pelvis
    left_knee < left_hip
    left_ankle < left_knee
    spine < pelvis
    thorax < spine
    nose < thorax
    head < nose
    left_shoulder < thorax
    left_elbow < left_shoulder
    left_wrist < left_elbow
    right_shoulder < thorax
    right_elbow < right_shoulder
    right_wrist < right_elbow
    """,
    landmark_of=(("thorax", "neck_base"), ("head", "head_top")),
)

COCO_17 = _skeleton(
    "coco_17",
    """
    nose <
    left_eye < nose
    right_eye < nose
    left_ear < left_eye
    right_ear < right_eye
    left_shoulder < nose
    right_shoulder < nose
    left_elbow < left_shoulder
    right_elbow < right_shoulder
    left_wrist < left_elbow
    right_wrist < right_elbow
    left_hip < left_shoulder
    right_hip < right_shoulder
    left_knee < left_hip
    right_knee < right_hip
    left_ankle < left_knee
    right_ankle < right_knee
    """,
)

# OpenPose's first body model; 3DPW's `poses2d`.
COCO_18 = _skeleton(
    "coco_18",
    """
    nose < neck
    neck <
    right_shoulder < neck
    right_elbow < right_shoulder
    right_wrist < right_elbow
    left_shoulder < neck
    left_elbow < left_shoulder
    left_wrist < left_elbow
    right_hip < neck
    right_knee < right_hip
    right_ankle < right_knee
    left_hip < neck
    left_knee < left_hip
    left_ankle < left_knee
    right_eye < nose
    left_eye < nose
    right_ear < right_eye
    left_ear < left_eye
    """,
    landmark_of=(("neck", "neck_base"),),
)

HALPE_26 = _skeleton(
    "halpe_26",
    """
    nose < neck
    left_eye < nose
    right_eye < nose
    left_ear < left_eye
    right_ear < right_eye
    left_shoulder < neck
    right_shoulder < neck
    left_elbow < left_shoulder
    right_elbow < right_shoulder
    left_wrist < left_elbow
    right_wrist < right_elbow
    left_hip < pelvis
    right_hip < pelvis
    left_knee < left_hip
    right_knee < right_hip
    left_ankle < left_knee
    right_ankle < right_knee
    head < neck
    neck < pelvis
    pelvis <
    left_big_toe < left_ankle
    right_big_toe < right_ankle
    left_small_toe < left_ankle
    right_small_toe < right_ankle
    left_heel < left_ankle
    right_heel < right_ankle
    """,
    landmark_of=(("head", "head_top"), ("neck", "neck_base")),
)

BODY_25 = _skeleton(
    "body_25",
    """
    nose < neck
    neck < pelvis
    right_shoulder < neck
    right_elbow < right_shoulder
    right_wrist < right_elbow
    left_shoulder < neck
    left_elbow < left_shoulder
    left_wrist < left_elbow
    pelvis <
    right_hip < pelvis
    right_knee < right_hip
    right_ankle < right_knee
    left_hip < pelvis
    left_knee < left_hip
    left_ankle < left_knee
    right_eye < nose
    left_eye < nose
    right_ear < right_eye
    left_ear < left_eye
    left_big_toe < left_ankle
    left_small_toe < left_ankle
    left_heel < left_ankle
    right_big_toe < right_ankle
    right_small_toe < right_ankle
    right_heel < right_ankle
    """,
    landmark_of=(("neck", "neck_base"),),
)

BLAZEPOSE_33 = _skeleton(
    "blazepose_33",
    """
    nose <
    left_eye_inner < nose
    left_eye < left_eye_inner
    left_eye_outer < left_eye
    right_eye_inner < nose
    right_eye < right_eye_inner
    right_eye_outer < right_eye
    left_ear < left_eye_outer
    right_ear < right_eye_outer
    left_mouth < nose
    right_mouth < nose
    left_shoulder < nose
    right_shoulder < nose
    left_elbow < left_shoulder
    right_elbow < right_shoulder
    left_wrist < left_elbow
    right_wrist < right_elbow
    left_pinky < left_wrist
    right_pinky < right_wrist
    left_index < left_wrist
    right_index < right_wrist
    left_thumb < left_wrist
    right_thumb < right_wrist
    left_hip < left_shoulder
    right_hip < right_shoulder
    left_knee < left_hip
    right_knee < right_hip
    left_ankle < left_knee
    right_ankle < right_knee
    left_heel < left_ankle
    right_heel < right_ankle
    left_foot_index < left_heel
    right_foot_index < right_heel
    """,
)

# The order of the MPI-INF-3DHP files in P-STMO and MotionAGFormer; joint 14 is the root.
MPI_INF_17 = _skeleton(
    "mpi_inf_17",
    """
    head_top < head
    neck < spine
    right_shoulder < neck
    right_elbow < right_shoulder
    right_wrist < right_elbow
    left_shoulder < neck
    left_elbow < left_shoulder
    left_wrist < left_elbow
    right_hip < pelvis
    right_knee < right_hip
    right_ankle < right_knee
    left_hip < pelvis
    left_knee < left_hip
    left_ankle < left_knee
    pelvis <
    spine < pelvis
    head < neck
    """,
    landmark_of=(("neck", "neck_base"), ("head", "head_centre")),
)

SMPL_24 = _skeleton(
    "smpl_24",
    """
    pelvis <
    left_hip < pelvis
    right_hip < pelvis
    spine1 < pelvis
    left_knee < left_hip
    right_knee < right_hip
    spine2 < spine1
    left_ankle < left_knee
    right_ankle < right_knee
    spine3 < spine2
    left_foot < left_ankle
    right_foot < right_ankle
    neck < spine3
    left_collar < spine3
    right_collar < spine3
    head < neck
    left_shoulder < left_collar
    right_shoulder < right_collar
    left_elbow < left_shoulder
    right_elbow < right_shoulder
    left_wrist < left_elbow
    right_wrist < right_elbow
    left_hand < left_wrist
    right_hand < right_wrist
    """,
    landmark_of=(("neck", "neck_base"), ("head", "skull_base")),
)

SKELETONS: dict[str, Skeleton] = {
    skeleton.name: skeleton
    for skeleton in (H36M_17, COCO_17, COCO_18, HALPE_26, BODY_25, BLAZEPOSE_33, MPI_INF_17, SMPL_24)
}


class _Derivation(NamedTuple):
    """A landmark as a weighted sum of others; its confidence is the least of theirs times `trust`."""

    weights: dict[str, float]
    trust: float = 1.0


def _midpoint(first: str, second: str) -> _Derivation:
    return _Derivation({first: 0.5, second: 0.5})


def _beyond(start: str, through: str, factor: float, trust: float) -> _Derivation:
    """The point `factor` times the segment start → through beyond `through`."""
    return _Derivation({through: 1.0 + factor, start: -factor}, trust)


# Tried in order, per keypoint: the first whose parts are all seen (confidence > 0) is taken. The head top is
# the one extrapolation, past the ears from the neck base; its factor was measured on a Halpe-26 track, where
# head top, ears and neck are all detected (docs/keypoints.md).
_HEAD_TOP_BEYOND_EARS = 0.68
_DERIVATIONS: dict[str, tuple[_Derivation, ...]] = {
    "pelvis": (_midpoint("left_hip", "right_hip"),),
    "neck_base": (_midpoint("left_shoulder", "right_shoulder"),),
    "spine": (_midpoint("pelvis", "neck_base"),),
    "head_centre": (_midpoint("left_ear", "right_ear"), _midpoint("head_top", "neck_base")),
    "head_top": (
        _beyond("neck_base", "head_centre", _HEAD_TOP_BEYOND_EARS, trust=0.5),
        _beyond("neck_base", "left_ear", _HEAD_TOP_BEYOND_EARS, trust=0.4),
        _beyond("neck_base", "right_ear", _HEAD_TOP_BEYOND_EARS, trust=0.4),
    ),
    "nose": (_Derivation({"head_centre": 1.0}, trust=0.5),),
    "left_foot": (_midpoint("left_big_toe", "left_small_toe"), _Derivation({"left_foot_index": 1.0})),
    "right_foot": (_midpoint("right_big_toe", "right_small_toe"), _Derivation({"right_foot_index": 1.0})),
}


@dataclass(frozen=True)
class ConvertedKeypoints:
    """Keypoints in a target skeleton, and how they came about.

    Attributes:
        keypoints: (..., J_target, D), 0 where the confidence is 0.
        confidence: (..., J_target).
        derived_joints: Target joints that were computed from others.
        missing_joints: Target joints that the source skeleton cannot give; their confidence is 0.
    """

    keypoints: Float[Tensor, "*batch target_joint D"]
    confidence: Float[Tensor, "*batch target_joint"]
    derived_joints: tuple[str, ...]
    missing_joints: tuple[str, ...]


def convert_keypoints(
    keypoints: Float[Tensor, "*batch source_joint D"],
    confidence: Float[Tensor, "*batch source_joint"],
    source: Skeleton,
    target: Skeleton,
) -> ConvertedKeypoints:
    """Converts 2D or 3D keypoints between two skeletons by landmark.

    A landmark that the source has is copied. Another is derived where it can be (pelvis, neck base and spine
    as midpoints; the head top beyond the ears) with the least confidence among its parts, so a point derived
    from an unseen one is itself unseen. Halpe-26 to Human3.6M gives the mapping
    [19, 12, 14, 16, 11, 13, 15, (18 + 19) / 2, 18, 0, 17, 5, 7, 9, 6, 8, 10] in use since MotionBERT.

    Args:
        keypoints: (..., J_source, D) in any unit.
        confidence: (..., J_source), 0 = unseen.
        source: Skeleton of the input.
        target: Skeleton of the output.
    """
    if keypoints.shape[-2] != source.num_joints:
        raise ValueError(
            f"Keypoints with {keypoints.shape[-2]} joints cannot be of skeleton {source.name!r}, "
            f"which has {source.num_joints}."
        )
    points = {landmark: keypoints[..., i, :] for i, landmark in enumerate(source.landmarks)}
    confidences = {landmark: confidence[..., i] for i, landmark in enumerate(source.landmarks)}
    derived: list[str] = []
    missing: list[str] = []
    for name, landmark in zip(target.joint_names, target.landmarks, strict=True):
        if landmark in source.landmarks:
            continue
        (derived if _derive(landmark, points, confidences) else missing).append(name)

    unseen_point, unseen = torch.zeros_like(keypoints[..., 0, :]), torch.zeros_like(confidence[..., 0])
    target_confidence = torch.stack([confidences.get(mark, unseen) for mark in target.landmarks], dim=-1)
    target_keypoints = torch.stack([points.get(mark, unseen_point) for mark in target.landmarks], dim=-2)
    target_keypoints = torch.where(target_confidence[..., None] > 0, target_keypoints, 0.0)
    return ConvertedKeypoints(target_keypoints, target_confidence, tuple(derived), tuple(missing))


def _derive(
    landmark: str,
    points: dict[str, Tensor],
    confidences: dict[str, Tensor],
    under_way: frozenset[str] = frozenset(),
) -> bool:
    """Adds `landmark`, and what it is derived from, to the two dictionaries; False where it cannot be.

    `under_way` holds the landmarks whose derivation asked for this one: they cannot be its parts.
    """
    if landmark in points:
        return True
    under_way = under_way | {landmark}
    point, confidence = None, None
    for derivation in _DERIVATIONS.get(landmark, ()):
        parts = tuple(derivation.weights)
        if not all(part not in under_way and _derive(part, points, confidences, under_way) for part in parts):
            continue
        new_point = torch.stack([derivation.weights[part] * points[part] for part in parts]).sum(dim=0)
        new_confidence = derivation.trust * torch.stack([confidences[part] for part in parts]).amin(dim=0)
        if point is None or confidence is None:
            point, confidence = new_point, new_confidence
        else:
            seen = confidence > 0
            point = torch.where(seen[..., None], point, new_point)
            confidence = torch.where(seen, confidence, new_confidence)
    if point is None or confidence is None:
        return False
    points[landmark], confidences[landmark] = point, confidence
    return True
