"""From what a person does with pelvis, feet, hands and gaze to SMPL joint rotations, in closed form.

Arms and legs are two-bone chains solved analytically, trunk and head share their angles over the joints
that carry them. Everything is vectorised over any batch shape of at least one axis. Planting a foot and
moving the pelvis makes hip, knee and ankle turn together as they do in people; this is where the correlation
between joints in procedural motion comes from.

Frames: world z up. A body frame (SMPL's rest frame) has x to the person's left, y up, z forward. Limbs are
solved in the left side's convention, x outward; the right side is its mirror image.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from core.motion.joint_limits import ARM_REFERENCE_DIRECTION, ARM_REFERENCE_POLE

# Joint offsets from the parent in metres, in SMPL's rest pose: an adult of 1.70 m, the average of the project's
# open body to within a centimetre. A body of another shape stands a little above or below the floor.
NOMINAL_OFFSETS_M = np.array(
    [
        (0.0, 0.0, 0.0),  # pelvis
        (0.11, -0.095, 0.0),  # left_hip
        (-0.11, -0.095, 0.0),  # right_hip
        (0.0, 0.07, -0.015),  # spine1
        (0.026, -0.376, 0.03),  # left_knee
        (-0.026, -0.376, 0.03),  # right_knee
        (0.0, 0.085, 0.0),  # spine2
        (0.0, -0.434, -0.033),  # left_ankle
        (0.0, -0.434, -0.033),  # right_ankle
        (0.0, 0.125, -0.01),  # spine3
        (0.01, -0.05, 0.14),  # left_foot
        (-0.01, -0.05, 0.14),  # right_foot
        (0.0, 0.185, 0.04),  # neck
        (0.025, 0.105, 0.055),  # left_collar
        (-0.025, 0.105, 0.055),  # right_collar
        (0.0, 0.095, 0.03),  # head
        (0.16, 0.0, -0.005),  # left_shoulder
        (-0.16, 0.0, -0.005),  # right_shoulder
        (0.26, 0.0, 0.0),  # left_elbow
        (-0.26, 0.0, 0.0),  # right_elbow
        (0.23, 0.0, 0.0),  # left_wrist
        (-0.23, 0.0, 0.0),  # right_wrist
        (0.1, 0.0, -0.01),  # left_hand
        (-0.1, 0.0, -0.01),  # right_hand
    ]
)

# The sole of the left foot in the ankle's frame: what may touch the floor.
HEEL_M = np.array([0.0, -0.077, -0.05])
BALL_M = np.array([0.01, -0.077, 0.14])
TOE_FROM_BALL_M = np.array([0.0, -0.027, 0.06])
ANKLE_HEIGHT_M = -float(HEEL_M[1])
LEG_LENGTH_M = float(np.linalg.norm(NOMINAL_OFFSETS_M[4]) + np.linalg.norm(NOMINAL_OFFSETS_M[7]))
ARM_LENGTH_M = float(np.linalg.norm(NOMINAL_OFFSETS_M[18]) + np.linalg.norm(NOMINAL_OFFSETS_M[20]))
# Straight legs, feet flat below the hips.
STANDING_PELVIS_HEIGHT_M = ANKLE_HEIGHT_M + LEG_LENGTH_M - float(NOMINAL_OFFSETS_M[1, 1])

# SMPL's rest frame standing in the z-up world and facing +x.
R_WORLD_REST = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_MIRROR = np.array([-1.0, 1.0, 1.0])

_LEG_REST_DIRECTION, _LEG_POLE = np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])
# Shares of the full length that people reach: knees are all but straightened in standing, elbows hardly ever.
_STRAIGHTEST_LEG, _STRAIGHTEST_ARM = 0.9993, 0.992
_FURTHEST_HIP_FLEXION = 2.2  # rad


class TrunkAngles(NamedTuple):
    """Rotations in rad: forward flexion, bending to the right, turning to the left."""

    flexion: Float[np.ndarray, "*batch"]
    bend: Float[np.ndarray, "*batch"]
    twist: Float[np.ndarray, "*batch"]


class FootTarget(NamedTuple):
    """One foot. `position_m` is the flat foot's point below the ankle, its z the height of the sole."""

    position_m: Float[np.ndarray, "*batch 3"]  # world
    yaw: Float[np.ndarray, "*batch"]  # rad, heading of the toes in the world
    pitch: Float[np.ndarray, "*batch"]  # rad, > 0: heel raised, < 0: toes raised
    freedom: Float[np.ndarray, "*batch"]  # 0: oriented by yaw and pitch, 1: hanging from the shin
    splay: Float[np.ndarray, "*batch"]  # rad, knee turned outwards


class HandTarget(NamedTuple):
    """One hand, as the wrist's place seen from the shoulder: (outward, up, forward)."""

    position_m: Float[np.ndarray, "*batch 3"]
    swivel: Float[np.ndarray, "*batch"]  # rad, elbow raised outwards about the line shoulder-wrist
    upright: Float[np.ndarray, "*batch"]  # 0: `position_m` turns with the chest, 1: only with the heading
    pronation: Float[np.ndarray, "*batch"]  # rad
    flexion: Float[np.ndarray, "*batch"]  # rad, of the wrist
    deviation: Float[np.ndarray, "*batch"]  # rad, of the wrist


class WholeBodyTarget(NamedTuple):
    pelvis_m: Float[np.ndarray, "*batch 3"]  # world
    heading: Float[np.ndarray, "*batch"]  # rad about world z; 0 faces +x
    pelvis_pitch: Float[np.ndarray, "*batch"]  # rad, > 0: leaning forward
    pelvis_roll: Float[np.ndarray, "*batch"]  # rad, > 0: leaning to the right
    trunk: TrunkAngles
    head: TrunkAngles
    left_foot: FootTarget
    right_foot: FootTarget
    left_hand: HandTarget
    right_hand: HandTarget


def solve_whole_body(
    target: WholeBodyTarget, spine_shares: Float[np.ndarray, "*batch 3"]
) -> Float[np.ndarray, "*batch 24 3 3"]:
    """Local joint rotations (SMPL-24 order; joint 0: rest frame to world) that meet the targets.

    `spine_shares` says how much of the trunk's angles spine1, spine2 and spine3 take. Unreachable hands and
    feet are approached along the line to them, with a smooth limit short of the straight limb.
    """
    batch = target.heading.shape
    rotmat = np.broadcast_to(np.eye(3), (*batch, 24, 3, 3)).copy()
    R_world_heading = _rotation_z(target.heading) @ R_WORLD_REST
    R_world_pelvis = pelvis_rotation(target)
    rotmat[..., 0, :, :] = R_world_pelvis

    R_pelvis_chest = np.eye(3)
    for share, joint in enumerate((3, 6, 9)):
        part = TrunkAngles(*(angle * spine_shares[..., share] for angle in target.trunk))
        rotmat[..., joint, :, :] = _trunk_rotation(part)
        R_pelvis_chest = R_pelvis_chest @ rotmat[..., joint, :, :]
    for joint in (12, 15):
        rotmat[..., joint, :, :] = _trunk_rotation(TrunkAngles(*(0.5 * angle for angle in target.head)))

    R_chest_heading = _transpose(R_world_pelvis @ R_pelvis_chest) @ R_world_heading
    sides = ((target.left_foot, target.left_hand), (target.right_foot, target.right_hand))
    for side, (foot, hand) in enumerate(sides):
        flip = _MIRROR if side else np.ones(3)
        for joint, rotation in _solve_leg(R_world_pelvis, target.pelvis_m, foot, flip).items():
            rotmat[..., joint + side, :, :] = _mirrored(rotation, flip)
        for joint, rotation in _solve_arm(R_chest_heading, hand, flip).items():
            rotmat[..., joint + side, :, :] = _mirrored(rotation, flip)
    return rotmat


def sole_heights(
    rotmat: Float[np.ndarray, "*batch 24 3 3"], pelvis_m: Float[np.ndarray, "*batch 3"]
) -> Float[np.ndarray, "*batch 2"]:
    """Height (m) of the lowest point (heel, ball or toes) of the left and the right sole."""
    heights = []
    for side, flip in ((0, np.ones(3)), (1, _MIRROR)):
        height, R_world_joint = pelvis_m[..., 2], rotmat[..., 0, :, :]
        for joint in (1 + side, 4 + side, 7 + side):
            height = height + R_world_joint[..., 2, :] @ NOMINAL_OFFSETS_M[joint]
            R_world_joint = R_world_joint @ rotmat[..., joint, :, :]
        heel = height + R_world_joint[..., 2, :] @ (flip * HEEL_M)
        ball = height + R_world_joint[..., 2, :] @ (flip * BALL_M)
        toes_joint = height + R_world_joint[..., 2, :] @ NOMINAL_OFFSETS_M[10 + side]
        R_world_toes = R_world_joint @ rotmat[..., 10 + side, :, :]
        toe = toes_joint + R_world_toes[..., 2, :] @ (flip * TOE_FROM_BALL_M)
        heights.append(np.minimum(np.minimum(heel, ball), toe))
    return np.stack(heights, axis=-1)


def ankle_position(foot: FootTarget, outward: float) -> Float[np.ndarray, "*batch 3"]:
    """World position of the ankle of a foot that pivots about its ball (heel raised) or heel (toes raised).

    `outward` is +1 for the left and -1 for the right foot.
    """
    raised_heel = _positive_part(foot.pitch) * (1 - foot.freedom)
    raised_toes = _positive_part(-foot.pitch) * (1 - foot.freedom)
    side = np.array([outward, 1.0, 1.0])
    ankle_in_foot = (
        (BALL_M - _turn_x(raised_heel, BALL_M))
        + (HEEL_M - _turn_x(-raised_toes, HEEL_M))
        + np.array([0.0, ANKLE_HEIGHT_M, 0.0])
    )
    R_world_foot = _rotation_z(foot.yaw) @ R_WORLD_REST
    return foot.position_m + _apply(R_world_foot, ankle_in_foot * side)


def pelvis_rotation(target: WholeBodyTarget) -> Float[np.ndarray, "*batch 3 3"]:
    """From SMPL's rest frame to the world."""
    R_world_heading = _rotation_z(target.heading) @ R_WORLD_REST
    return R_world_heading @ _rotation_x(target.pelvis_pitch) @ _rotation_z(target.pelvis_roll)


def hip_position(
    pelvis_m: Float[np.ndarray, "*batch 3"], R_world_pelvis: Float[np.ndarray, "*batch 3 3"], outward: float
) -> Float[np.ndarray, "*batch 3"]:
    return pelvis_m + R_world_pelvis @ (NOMINAL_OFFSETS_M[1] * np.array([outward, 1.0, 1.0]))


def _solve_leg(
    R_world_pelvis: np.ndarray, pelvis_m: np.ndarray, foot: FootTarget, flip: np.ndarray
) -> dict[int, np.ndarray]:
    outward = float(flip[0])
    ankle = ankle_position(foot, outward)
    hip = hip_position(pelvis_m, R_world_pelvis, outward)
    to_ankle = _within_hip_flexion(flip * _apply(_transpose(R_world_pelvis), ankle - hip))

    R_world_foot = _rotation_z(foot.yaw) @ R_WORLD_REST @ _rotation_x(foot.pitch)
    R_pelvis_foot = _mirrored(_transpose(R_world_pelvis) @ R_world_foot, flip)
    # Toes turned outwards turn the knee with them, as far as the foot's direction is the foot's own.
    toe_out = np.arctan2(
        R_pelvis_foot[..., 0, 2], np.hypot(R_pelvis_foot[..., 1, 2], R_pelvis_foot[..., 2, 2])
    )
    knee_out = foot.splay + 0.7 * toe_out * (1 - foot.freedom)
    leg_bones = (NOMINAL_OFFSETS_M[4], NOMINAL_OFFSETS_M[7])
    R_pelvis_thigh, R_thigh_shin = _two_bone_ik(
        to_ankle, leg_bones, (_LEG_REST_DIRECTION, _LEG_POLE), _LEG_POLE, -knee_out, _STRAIGHTEST_LEG
    )
    R_shin_foot = _transpose(R_pelvis_thigh @ R_thigh_shin) @ R_pelvis_foot
    # A hanging foot points a little down and follows the shin.
    planted = _rotvec(R_shin_foot)
    hanging = np.zeros_like(planted)
    hanging[..., 0] = 0.15 + 0.6 * foot.pitch
    ankle_rotvec = planted + foot.freedom[..., None] * (hanging - planted)
    toes = np.clip(-0.7 * _positive_part(foot.pitch) * (1 - foot.freedom), -0.6, 0.0)
    return {1: R_pelvis_thigh, 4: R_thigh_shin, 7: _rotmat(ankle_rotvec), 10: _rotation_x(toes)}


def _within_hip_flexion(to_ankle: np.ndarray) -> np.ndarray:
    """Ankles moved away from the hip where reaching them would fold the thigh against the chest."""
    thigh = float(np.linalg.norm(NOMINAL_OFFSETS_M[4]))
    elevation = np.arctan2(to_ankle[..., 2], -to_ankle[..., 1])  # of the line to the ankle; 0: straight down
    # Two bones of about equal length: the thigh is above that line by arccos(distance / (2 thigh)).
    room = np.clip(_FURTHEST_HIP_FLEXION - np.maximum(elevation, 0), 0.1, 0.5 * np.pi)
    distance = np.linalg.norm(to_ankle, axis=-1)
    nearest = 2 * thigh * np.cos(room)
    longer = nearest + _positive_part(distance - nearest, 0.04)
    return to_ankle * (longer / np.maximum(distance, 1e-6))[..., None]


def _solve_arm(R_chest_heading: np.ndarray, hand: HandTarget, flip: np.ndarray) -> dict[int, np.ndarray]:
    upright = flip * _apply(R_chest_heading, flip * hand.position_m)
    wrist = _clear_of_body(hand.position_m + hand.upright[..., None] * (upright - hand.position_m))

    # Scapulohumeral rhythm: the shoulder girdle rises with the arm and goes forward with the reach.
    elevation = wrist[..., 1] / ARM_LENGTH_M
    reach = wrist[..., 2] / ARM_LENGTH_M
    lift = 0.16 * elevation + 0.10 * elevation**2
    R_chest_collar = _rotation_y(-0.18 * np.maximum(reach, 0) ** 2) @ _rotation_z(lift)
    collar_to_shoulder = NOMINAL_OFFSETS_M[16]
    to_wrist = wrist + collar_to_shoulder - R_chest_collar @ collar_to_shoulder
    R_chest_upper, R_upper_lower = _two_bone_ik(
        to_wrist,
        (NOMINAL_OFFSETS_M[18], NOMINAL_OFFSETS_M[20]),
        # From a hand low in front of the body with the elbow out, down and back, the shortest way to any
        # other place has the elbow back when the arm hangs and outwards when it is raised.
        (ARM_REFERENCE_DIRECTION, ARM_REFERENCE_POLE),
        np.array([0.0, 0.0, -1.0]),
        hand.swivel,
        _STRAIGHTEST_ARM,
    )
    half_pronation = _rotation_x(0.5 * hand.pronation)
    R_wrist = half_pronation @ _rotation_z(-hand.flexion) @ _rotation_y(hand.deviation)
    return {
        13: R_chest_collar,
        16: _transpose(R_chest_collar) @ R_chest_upper,
        18: R_upper_lower @ half_pronation,
        20: R_wrist,
    }


def _clear_of_body(wrist: np.ndarray) -> np.ndarray:
    """Wrists moved out of the torso and away from the shoulder joint; seen from the shoulder, x outward."""
    outward, up, forward = np.moveaxis(wrist, -1, 0)
    # The torso (with a forearm's radius) is an upright elliptic cylinder that ends below the chin.
    x, z = outward + 0.185, forward + 0.03
    depth = np.sqrt((x / 0.19) ** 2 + (z / 0.16) ** 2 + 1e-4)
    below_chin = 1 / (1 + np.exp((up - 0.08) / 0.03))
    push = 1 + below_chin * _positive_part(1 / depth - 1, 0.1)
    outward, forward = push * x - 0.185, push * z - 0.03
    # A hand that passes its own shoulder passes in front of it: behind it would turn the whole arm over.
    near = np.exp(-(outward**2 + up**2) / (0.55 * ARM_LENGTH_M) ** 2)
    nearest = (1.48 * near - 1.0) * ARM_LENGTH_M
    forward = nearest + _positive_part(forward - nearest, 0.1 * ARM_LENGTH_M)
    return np.stack([outward, up, forward], axis=-1)


def _two_bone_ik(
    to_end: np.ndarray,
    bones: tuple[np.ndarray, np.ndarray],
    pole_at: tuple[np.ndarray, np.ndarray],
    rest_pole: np.ndarray,
    swivel: np.ndarray,
    straightest: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation of the upper bone in the parent's frame, and of the lower bone in the upper's.

    `pole_at` is a direction of the limb and where its middle joint points there; for any other direction the
    pole is carried along by the smallest rotation and turned by `swivel` about the limb. `rest_pole` is where
    the middle joint points when the rest pose bends, which fixes the hinge's axis on the bones.
    """
    upper, lower = (float(np.linalg.norm(bone)) for bone in bones)
    distance = np.linalg.norm(to_end, axis=-1)
    axis = to_end / np.maximum(distance, 1e-6)[..., None]
    distance = _limited_reach(distance, upper, lower, straightest)

    direction = pole_at[0] / np.linalg.norm(pole_at[0])
    pole = pole_at[1] - direction * (pole_at[1] @ direction)
    pole = _carried(direction, axis, pole / np.linalg.norm(pole))
    sideways = np.cross(axis, pole)
    pole = np.cos(swivel)[..., None] * pole + np.sin(swivel)[..., None] * sideways
    normal = np.cross(axis, pole)

    cos_root = (upper**2 + distance**2 - lower**2) / (2 * upper * distance)
    sin_root = np.sqrt(np.maximum(1 - cos_root**2, 0))
    upper_direction = cos_root[..., None] * axis + sin_root[..., None] * pole
    lower_direction = (distance[..., None] * axis - upper * upper_direction) / lower

    rest_normal = np.cross(bones[0], rest_pole)
    R_upper = _hinge_frame(upper_direction, normal) @ _hinge_frame(bones[0], rest_normal).T
    R_lower = _hinge_frame(lower_direction, normal) @ _hinge_frame(bones[1], rest_normal).T
    return R_upper, _transpose(R_upper) @ R_lower


def _limited_reach(distance: np.ndarray, upper: float, lower: float, straightest: float) -> np.ndarray:
    """Smoothly between the most bent (150 degrees) and the straightest limb, a share of its full length."""
    longest = straightest * (upper + lower)
    margin = 3 * (1 - straightest) * (upper + lower)
    bend = longest - margin
    distance = np.where(distance > bend, bend + margin * np.tanh((distance - bend) / margin), distance)
    shortest = np.sqrt(upper**2 + lower**2 - 2 * upper * lower * np.cos(np.radians(30)))
    return shortest + _positive_part(distance - shortest, 0.02)


def _hinge_frame(direction: np.ndarray, normal: np.ndarray) -> np.ndarray:
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    normal = normal - direction * np.sum(direction * normal, axis=-1, keepdims=True)
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.stack([direction, normal, np.cross(direction, normal)], axis=-1)


def _carried(start: np.ndarray, end: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`vector` under the smallest rotation that takes the unit vector `start` to `end`."""
    cross = np.cross(start, end)
    cosine = np.sum(start * end, axis=-1, keepdims=True)
    twice = np.cross(cross, np.cross(cross, vector))
    return vector + np.cross(cross, vector) + twice / np.maximum(1 + cosine, 1e-3)


def _trunk_rotation(angles: TrunkAngles) -> np.ndarray:
    return _rotation_y(angles.twist) @ _rotation_x(angles.flexion) @ _rotation_z(angles.bend)


def _positive_part(x: np.ndarray, width: float = 0.06) -> np.ndarray:
    """max(x, 0) with its corner rounded over about `width`, so that pivots change without a jolt."""
    return 0.5 * (x + np.sqrt(x * x + width * width)) - 0.5 * width * np.exp(-np.abs(x) / width)


def _rotation_x(angle: np.ndarray) -> np.ndarray:
    return _rotation(angle, 1, 2)


def _rotation_y(angle: np.ndarray) -> np.ndarray:
    return _rotation(angle, 2, 0)


def _rotation_z(angle: np.ndarray) -> np.ndarray:
    return _rotation(angle, 0, 1)


def _rotation(angle: np.ndarray, first: int, second: int) -> np.ndarray:
    """Rotation that turns coordinate axis `first` towards `second`."""
    rotmat = np.broadcast_to(np.eye(3), (*angle.shape, 3, 3)).copy()
    cosine, sine = np.cos(angle), np.sin(angle)
    rotmat[..., first, first] = rotmat[..., second, second] = cosine
    rotmat[..., second, first], rotmat[..., first, second] = sine, -sine
    return rotmat


def _turn_x(angle: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return _rotation_x(angle) @ vector


def _apply(rotmat: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.squeeze(rotmat @ vectors[..., None], axis=-1)


def _transpose(rotmat: np.ndarray) -> np.ndarray:
    return np.swapaxes(rotmat, -1, -2)


def _mirrored(rotmat: np.ndarray, flip: np.ndarray) -> np.ndarray:
    return flip[:, None] * rotmat * flip


def _rotvec(rotmat: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation  # here: scipy costs more to import than the rest of core

    return Rotation.from_matrix(rotmat.reshape(-1, 3, 3)).as_rotvec().reshape(rotmat.shape[:-1])


def _rotmat(rotvec: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(*rotvec.shape, 3)
