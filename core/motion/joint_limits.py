"""What an adult's joints can do, in SMPL's axis-angle convention.

SMPL's rest pose is a T-pose facing +z with y up and the left arm along +x, so that for the left side
hip flexion is a rotation about -x, knee flexion about +x, elbow flexion about -y and lowering the arm about
-z. The right side is the mirror image: the same x, opposite y and z.
"""

import numpy as np
from jaxtyping import Float

# Lower and upper bounds of the rotation vector's components in rad, for the trunk and the left side.
# Ranges follow the normal ranges of motion of clinical goniometry (American Academy of Orthopaedic Surgeons,
# Joint Motion, 1965), with the trunk's total shared by spine1-3. The rest pose has slightly bent knees and
# elbows, so straight limbs sit a little on the negative side of zero.
_LIMITS: dict[int, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    1: ((-2.3, -0.9, -0.9), (0.8, 0.9, 1.1)),  # hip: flexion, internal/external rotation, ab/adduction
    3: ((-0.35, -0.3, -0.3), (0.7, 0.3, 0.3)),  # spine1
    4: ((-0.22, -0.35, -0.35), (2.6, 0.35, 0.35)),  # knee
    6: ((-0.3, -0.3, -0.3), (0.6, 0.3, 0.3)),  # spine2
    7: ((-0.75, -0.6, -0.45), (0.95, 0.6, 0.45)),  # ankle: dorsi-, plantar flexion
    9: ((-0.3, -0.4, -0.3), (0.5, 0.4, 0.3)),  # spine3
    10: ((-0.9, -0.1, -0.1), (0.4, 0.1, 0.1)),  # toes
    12: ((-0.6, -0.8, -0.4), (0.6, 0.8, 0.4)),  # neck
    13: ((-0.2, -0.5, -0.3), (0.2, 0.4, 0.6)),  # collar: pro-/retraction, elevation
    15: ((-0.6, -0.7, -0.5), (0.6, 0.7, 0.5)),  # head
    16: ((-1.9, -2.3, -1.6), (1.9, 1.0, 1.7)),  # shoulder: twist, horizontal reach, elevation
    18: ((-0.9, -2.6, -0.6), (0.9, 0.12, 0.6)),  # elbow, with the proximal half of pronation
    20: ((-1.3, -0.6, -1.2), (1.3, 0.6, 1.2)),  # wrist, with the distal half of pronation
    22: ((-0.3, -0.3, -0.6), (0.3, 0.3, 0.6)),  # hand
}
_RIGHT_OF_LEFT = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21, 22: 23}


def _limit_tables() -> tuple[Float[np.ndarray, "24 3"], Float[np.ndarray, "24 3"]]:
    lower, upper = np.full((24, 3), -np.inf), np.full((24, 3), np.inf)  # the root is free
    for joint, (low, high) in _LIMITS.items():
        lower[joint], upper[joint] = low, high
        if joint in _RIGHT_OF_LEFT:
            right = _RIGHT_OF_LEFT[joint]
            lower[right] = (low[0], -high[1], -high[2])
            upper[right] = (high[0], -low[1], -low[2])
    return lower, upper


LOWER_LIMIT_ROTVEC, UPPER_LIMIT_ROTVEC = _limit_tables()


def clamp_to_joint_limits(
    poses_rotvec: Float[np.ndarray, "*batch 24 3"], softness_rad: float = 0.05
) -> Float[np.ndarray, "*batch 24 3"]:
    """Bring every component of every body joint inside its limits; the root is left as it is.

    Within `softness_rad` of a bound the curve bends smoothly (C1) and approaches the bound without crossing
    it; further inside nothing changes.
    """
    knee_low, knee_high = LOWER_LIMIT_ROTVEC + softness_rad, UPPER_LIMIT_ROTVEC - softness_rad
    over = np.maximum(poses_rotvec - knee_high, 0)
    under = np.maximum(knee_low - poses_rotvec, 0)
    inside = np.clip(poses_rotvec, knee_low, knee_high)
    clamped = inside + softness_rad * (np.tanh(over / softness_rad) - np.tanh(under / softness_rad))
    return clamped.astype(poses_rotvec.dtype)
