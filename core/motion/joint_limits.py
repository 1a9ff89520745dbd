"""What an adult's joints can do, in SMPL's axis-angle convention.

SMPL's rest pose is a T-pose facing +z with y up and the left arm along +x, so that for the left side
hip flexion is a rotation about -x, knee flexion about +x, elbow flexion about -y and lowering the arm about
-z. The right side is the mirror image: the same x, opposite y and z.

Hips and shoulders turn so far that a rotation vector's components say little about anatomy (and jump where
the angle reaches pi): their limits are set on swing (where the bone points) and twist (how it is turned about
itself) apart. All other joints are limited by the components of their rotation vectors.
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
# Rotation vector of the swing, with the twist in the place of the bone's own axis (rotation = swing * twist).
_SWING_TWIST_LIMITS: dict[int, _Bounds] = {
    1: ((-2.35, -0.9, -0.7), (0.75, 0.9, 1.2)),  # hip: flexion, twist about y, ab-/adduction
    16: ((-2.2, -2.4, -2.0), (1.8, 1.4, 1.75)),  # shoulder: twist about x, reach forward, elevation
}
_TWIST_AXIS = {1: 1, 2: 1, 16: 0, 17: 0}
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


def limited_angles(poses_rotvec: Float[np.ndarray, "*batch 24 3"]) -> Float[np.ndarray, "*batch 24 3"]:
    """The angles (rad) that LOWER_LIMITS and UPPER_LIMITS bound.

    Rotation vectors as they are, except that hips and shoulders give their swing's rotation vector with the
    twist angle in the place of the bone's axis.
    """
    angles = poses_rotvec.astype(np.float64)
    for joint, axis in _TWIST_AXIS.items():
        angles[..., joint, :] = _swing_and_twist(angles[..., joint, :], axis)
    return angles


def clamp_to_joint_limits(
    poses_rotvec: Float[np.ndarray, "*batch 24 3"], softness_rad: float = 0.05
) -> Float[np.ndarray, "*batch 24 3"]:
    """Bring every body joint inside its limits; the root is left as it is.

    Within `softness_rad` of a bound the curve bends smoothly (C1) and approaches the bound without crossing
    it; further inside nothing changes.
    """
    from scipy.spatial.transform import Rotation  # here: scipy is slow to import

    angles = limited_angles(poses_rotvec)
    for joint, axis in _TWIST_AXIS.items():
        angles[..., joint, axis] = _folded(
            angles[..., joint, axis], float(LOWER_LIMITS[joint, axis]), float(UPPER_LIMITS[joint, axis])
        )
    soft_low, soft_high = LOWER_LIMITS + softness_rad, UPPER_LIMITS - softness_rad
    over, under = np.maximum(angles - soft_high, 0), np.maximum(soft_low - angles, 0)
    clamped = np.clip(angles, soft_low, soft_high)
    clamped += softness_rad * (np.tanh(over / softness_rad) - np.tanh(under / softness_rad))
    for joint, axis in _TWIST_AXIS.items():
        swing, twist = clamped[..., joint, :].copy(), np.zeros_like(clamped[..., joint, :])
        twist[..., axis], swing[..., axis] = swing[..., axis], 0.0
        rotation = Rotation.from_rotvec(swing.reshape(-1, 3)) * Rotation.from_rotvec(twist.reshape(-1, 3))
        clamped[..., joint, :] = rotation.as_rotvec().reshape(swing.shape)
    return clamped.astype(poses_rotvec.dtype)


def _folded(angle: Float[np.ndarray, "*batch"], lower: float, upper: float) -> Float[np.ndarray, "*batch"]:
    """Angles beyond the bounds mirrored back, down to the middle half a turn away from it.

    A full circle cannot be clamped to an interval without a jump; folded, a limb that is driven through its
    forbidden range comes back the way it came.
    """
    middle, half = 0.5 * (lower + upper), 0.5 * (upper - lower)
    away = (angle - middle + np.pi) % (2 * np.pi) - np.pi
    beyond = np.sign(away) * half * (np.pi - np.abs(away)) / (np.pi - half)
    return middle + np.where(np.abs(away) > half, beyond, away)


def _swing_and_twist(rotvec: Float[np.ndarray, "*batch 3"], axis: int) -> Float[np.ndarray, "*batch 3"]:
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_rotvec(rotvec.reshape(-1, 3))
    quat = rotation.as_quat()
    twist_angle = 2 * np.arctan2(quat[:, axis], quat[:, 3])
    twist_angle = (twist_angle + np.pi) % (2 * np.pi) - np.pi
    twist = np.zeros_like(quat[:, :3])
    twist[:, axis] = twist_angle
    swing = (rotation * Rotation.from_rotvec(-twist)).as_rotvec()
    swing[:, axis] = twist_angle
    return swing.reshape(rotvec.shape)
