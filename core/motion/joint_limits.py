"""What an adult's joints can do, in SMPL's axis-angle convention.

SMPL's rest pose is a T-pose facing +z with y up and the left arm along +x, so that for the left side
hip flexion is a rotation about -x, knee flexion about +x, elbow flexion about -y and lowering the arm about
-z. The right side is the mirror image: the same x, opposite y and z.

Hips and shoulders turn so far that a rotation vector's components say little about anatomy (and jump where
the angle reaches pi): their limits are set on swing (where the bone points) and twist (how it is turned about
itself) apart. A shoulder's are counted from an arm held low in front, not from the T-pose: seen from there
the natural twist stays small from hanging down to reaching overhead, on whichever way the arm got there.
"""

import numpy as np
from jaxtyping import Float

# Lower and upper bounds in rad for the trunk and the left side. The ranges follow the normal ranges of motion
# of clinical goniometry (American Academy of Orthopaedic Surgeons, Joint Motion, 1965), with the trunk's
# total shared by spine1-3. The rest pose has slightly bent knees and elbows, so straight limbs sit a little
# on the negative side of zero.
_Bounds = tuple[tuple[float, float, float], tuple[float, float, float]]
_ROTVEC_LIMITS: dict[int, _Bounds] = {
    3: ((-0.35, -0.3, -0.3), (0.7, 0.3, 0.3)),  # spine1
    4: ((-0.22, -0.35, -0.35), (2.6, 0.35, 0.35)),  # knee
    6: ((-0.3, -0.3, -0.3), (0.6, 0.3, 0.3)),  # spine2
    7: ((-0.75, -0.6, -0.45), (0.95, 0.6, 0.45)),  # ankle: dorsi-, plantar flexion
    9: ((-0.3, -0.4, -0.3), (0.5, 0.4, 0.3)),  # spine3
    10: ((-0.9, -0.1, -0.1), (0.4, 0.1, 0.1)),  # toes
    12: ((-0.6, -0.8, -0.4), (0.6, 0.8, 0.4)),  # neck
    13: ((-0.2, -0.5, -0.3), (0.2, 0.4, 0.6)),  # collar: pro-/retraction, elevation
    15: ((-0.6, -0.7, -0.5), (0.6, 0.7, 0.5)),  # head
    18: ((-0.9, -2.6, -0.6), (0.9, 0.12, 0.6)),  # elbow, with the proximal half of pronation
    20: ((-1.3, -0.6, -1.2), (1.3, 0.6, 1.2)),  # wrist, with the distal half of pronation
    22: ((-0.3, -0.3, -0.6), (0.3, 0.3, 0.6)),  # hand
}
# Rotation vector of the swing, with the twist in the place of the bone's own axis:
# rotation = reference * swing * twist.
_SWING_TWIST_LIMITS: dict[int, _Bounds] = {
    1: ((-2.35, -0.9, -0.7), (0.75, 0.9, 1.2)),  # hip: flexion, twist about y, ab-/adduction
    16: ((-1.6, -2.3, -2.3), (1.6, 2.3, 2.3)),  # shoulder: twist about x, swing
}
_TWIST_AXIS = {1: 1, 2: 1, 16: 0, 17: 0}
# Of the shoulders' references: where the upper arm points and where the elbow would point if it bent.
ARM_REFERENCE_DIRECTION = np.array([0.2, -0.6, 0.77])
ARM_REFERENCE_POLE = np.array([0.32, -0.7, -0.6])
_RIGHT_OF_LEFT = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21, 22: 23}


def _limit_tables() -> tuple[Float[np.ndarray, "24 3"], Float[np.ndarray, "24 3"]]:
    lower, upper = np.full((24, 3), -np.inf), np.full((24, 3), np.inf)  # the root is free
    for joint, (low, high) in (_ROTVEC_LIMITS | _SWING_TWIST_LIMITS).items():
        lower[joint], upper[joint] = low, high
        if joint in _RIGHT_OF_LEFT:
            right = _RIGHT_OF_LEFT[joint]
            lower[right] = (low[0], -high[1], -high[2])
            upper[right] = (high[0], -low[1], -low[2])
    return lower, upper


LOWER_LIMITS, UPPER_LIMITS = _limit_tables()


def _references() -> dict[int, Float[np.ndarray, "3 3"]]:
    direction = ARM_REFERENCE_DIRECTION / np.linalg.norm(ARM_REFERENCE_DIRECTION)
    flexion = -(ARM_REFERENCE_POLE - direction * (ARM_REFERENCE_POLE @ direction))
    flexion /= np.linalg.norm(flexion)
    left = np.stack([direction, np.cross(flexion, direction), flexion], axis=-1)
    mirror = np.diag([-1.0, 1.0, 1.0])
    return {1: np.eye(3), 2: np.eye(3), 16: left, 17: mirror @ left @ mirror}


_REFERENCE_ROTMAT = _references()


def limited_angles(poses_rotvec: Float[np.ndarray, "*batch 24 3"]) -> Float[np.ndarray, "*batch 24 3"]:
    """The angles (rad) that LOWER_LIMITS and UPPER_LIMITS bound.

    Rotation vectors as they are, except that hips and shoulders give their swing's rotation vector with the
    twist angle in the place of the bone's axis, both counted from their reference.
    """
    from scipy.spatial.transform import Rotation  # here: scipy is slow to import

    angles = poses_rotvec.astype(np.float64)
    for joint, axis in _TWIST_AXIS.items():
        reference = Rotation.from_matrix(_REFERENCE_ROTMAT[joint])
        rotation = reference.inv() * Rotation.from_rotvec(angles[..., joint, :].reshape(-1, 3))
        quat = rotation.as_quat(canonical=True)
        twist = np.zeros_like(quat[:, :3])
        twist[:, axis] = 2 * np.arctan2(quat[:, axis], quat[:, 3])
        both = (rotation * Rotation.from_rotvec(-twist)).as_rotvec()
        both[:, axis] = twist[:, axis]
        angles[..., joint, :] = both.reshape(*angles.shape[:-2], 3)
    return angles


def clamp_to_joint_limits(
    poses_rotvec: Float[np.ndarray, "*batch 24 3"], softness_rad: float = 0.05
) -> Float[np.ndarray, "*batch 24 3"]:
    """Bring every body joint inside its limits; the root is left as it is.

    Within `softness_rad` of a bound the curve bends smoothly (C1) and approaches the bound without crossing
    it; further inside nothing changes.
    """
    from scipy.spatial.transform import Rotation

    angles = limited_angles(poses_rotvec)
    soft_low, soft_high = LOWER_LIMITS + softness_rad, UPPER_LIMITS - softness_rad
    over, under = np.maximum(angles - soft_high, 0), np.maximum(soft_low - angles, 0)
    clamped = np.clip(angles, soft_low, soft_high)
    clamped += softness_rad * (np.tanh(over / softness_rad) - np.tanh(under / softness_rad))
    for joint, axis in _TWIST_AXIS.items():
        swing = clamped[..., joint, :].reshape(-1, 3).copy()
        twist = np.zeros_like(swing)
        twist[:, axis], swing[:, axis] = swing[:, axis], 0.0
        reference = Rotation.from_matrix(_REFERENCE_ROTMAT[joint])
        rotation = reference * Rotation.from_rotvec(swing) * Rotation.from_rotvec(twist)
        clamped[..., joint, :] = rotation.as_rotvec().reshape(*clamped.shape[:-2], 3)
    return clamped.astype(poses_rotvec.dtype)
