"""Random joint-limited poses, to fit and to measure the open body on."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from core.skeleton import SMPL_24

# Axis-angle of a joint relative to the T-pose, radians, SMPL's axes (x left, y up, z forward), left side:
# mean, standard deviation, lower and upper limit per axis. Elbows bend about −y, knees about +x, hips about
# −x.
_Axes = tuple[float, float, float]
POSE_RANGES_RAD: dict[str, tuple[_Axes, _Axes, _Axes, _Axes]] = {
    "hip": ((-0.5, 0.0, 0.1), (0.6, 0.3, 0.25), (-2.1, -0.7, -0.3), (0.5, 0.7, 0.9)),
    "knee": ((0.7, 0.0, 0.0), (0.6, 0.08, 0.06), (0.0, -0.2, -0.15), (2.4, 0.2, 0.15)),
    "ankle": ((0.0, 0.0, 0.0), (0.3, 0.15, 0.15), (-0.6, -0.4, -0.4), (0.7, 0.4, 0.4)),
    "foot": ((0.0, 0.0, 0.0), (0.15, 0.03, 0.03), (-0.5, -0.1, -0.1), (0.4, 0.1, 0.1)),
    "spine1": ((0.1, 0.0, 0.0), (0.2, 0.12, 0.12), (-0.4, -0.35, -0.35), (0.7, 0.35, 0.35)),
    "spine2": ((0.05, 0.0, 0.0), (0.12, 0.12, 0.1), (-0.3, -0.35, -0.3), (0.4, 0.35, 0.3)),
    "spine3": ((0.0, 0.0, 0.0), (0.08, 0.08, 0.06), (-0.25, -0.25, -0.2), (0.25, 0.25, 0.2)),
    "neck": ((0.05, 0.0, 0.0), (0.2, 0.25, 0.15), (-0.6, -0.7, -0.4), (0.6, 0.7, 0.4)),
    "head": ((0.0, 0.0, 0.0), (0.2, 0.25, 0.12), (-0.5, -0.7, -0.35), (0.5, 0.7, 0.35)),
    "collar": ((0.0, -0.05, -0.05), (0.05, 0.12, 0.15), (-0.2, -0.4, -0.4), (0.2, 0.35, 0.5)),
    "shoulder": ((0.1, -0.3, -0.7), (0.4, 0.5, 0.55), (-1.2, -1.6, -1.4), (1.2, 0.9, 0.9)),
    "elbow": ((0.0, -0.8, 0.0), (0.15, 0.6, 0.1), (-0.5, -2.4, -0.3), (0.5, 0.0, 0.3)),
    "wrist": ((0.0, 0.0, 0.0), (0.3, 0.15, 0.3), (-0.9, -0.4, -0.9), (0.9, 0.4, 0.9)),
    "hand": ((0.0, 0.0, -0.1), (0.05, 0.05, 0.2), (-0.15, -0.15, -0.9), (0.15, 0.15, 0.3)),
}


def random_pose_rotvecs(num_poses: int, generator: np.random.Generator) -> Float[ndarray, "pose 24 3"]:
    """Axis-angle of SMPL's joints, normally distributed and clipped to the joint limits; the root stays."""
    poses = np.zeros((num_poses, SMPL_24.num_joints, 3))
    for index, name in enumerate(SMPL_24.joint_names):
        if index == 0:
            continue
        mean, deviation, lower, upper = (
            np.array(axes) for axes in POSE_RANGES_RAD[name.removeprefix("left_").removeprefix("right_")]
        )
        rotvecs = np.clip(generator.normal(mean, deviation, (num_poses, 3)), lower, upper)
        if name.startswith("right_"):
            rotvecs = rotvecs * np.array([1.0, -1.0, -1.0])
        poses[:, index] = rotvecs
    return poses
