"""From anny's A-pose and 104 bones to SMPL's T-pose and 24 joints, and anny's own posing as the reference.

All rotations are world rotations (matrices acting on column vectors) in SMPL's axes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from body_models.open_body.anny_source import AnnyBody, RestShapes
from core.skeleton import SMPL_24

THIGH_ABDUCTION_RAD = np.deg2rad(4.0)
# Of the arm's elevation, the share that the clavicle and the shoulder blade have taken (scapulohumeral
# rhythm).
CLAVICLE_ELEVATION_SHARE = 0.06
SHOULDER_BLADE_ELEVATION_SHARE = 0.06 + 0.25
SKINNING_BATCH_SIZE = 50  # people skinned at a time, to bound the memory

MIDLINE_BONES = {
    "pelvis": ("root", "pelvis.L", "pelvis.R", "spine05", "spine04"),
    "spine1": ("spine03",),
    "spine2": ("spine02",),
    "spine3": ("spine01",),
    "neck": ("neck01", "neck02", "neck03"),
    "head": ("head", "eye.L", "eye.R"),
}
# Per side; prefixes of bone labels.
LIMB_BONES = {
    "collar": ("clavicle", "shoulder01"),
    "shoulder": ("upperarm01", "upperarm02"),
    "elbow": ("lowerarm01", "lowerarm02"),
    "wrist": ("wrist", "metacarpal", "finger1"),
    "hand": ("finger2", "finger3", "finger4", "finger5"),
    "hip": ("upperleg01", "upperleg02"),
    "knee": ("lowerleg01", "lowerleg02"),
    "ankle": ("foot",),
    "foot": ("toe",),
}


@dataclass(frozen=True, kw_only=True)
class TPose:
    """Sampled people in SMPL's T-pose, the pelvis joint at the origin."""

    vertices: Float[ndarray, "shape vertex 3"]
    bone_heads: Float[ndarray, "shape bone 3"]
    joints: Float[ndarray, "shape 24 3"]
    bone_rotmats: Float[ndarray, "shape bone 3 3"]  # A-pose → T-pose, world


def joint_of_bone(bone_labels: tuple[str, ...]) -> Int[ndarray, " bone"]:
    """The SMPL joint that each anny bone moves with."""
    joints = []
    for label in bone_labels:
        stem, _, side = label.rpartition(".")
        owners = [name for name, bones in MIDLINE_BONES.items() if label in bones]
        owners += [
            f"{'left' if side == 'L' else 'right'}_{name}"
            for name, prefixes in LIMB_BONES.items()
            if side in ("L", "R") and stem.startswith(prefixes)
        ]
        assert len(owners) == 1, label
        joints.append(SMPL_24.index(owners[0]))
    return np.array(joints)


def joint_centres(bone_heads: Float[ndarray, "shape bone 3"], body: AnnyBody) -> Float[ndarray, "shape 24 3"]:
    """Joint centres from bone heads.

    A joint sits at the head of its group's first bone; a hand at the mean knuckle of fingers 2 to 5 and a
    foot at the mean base of its toes. SMPL's pelvis lies about 9 cm above the hips, where anny's root lies
    between them: ours takes the height of `spine04`, in the hips' coronal plane.
    """

    def mean_head(*labels: str) -> Float[ndarray, "shape 3"]:
        return bone_heads[:, [body.bone(label) for label in labels]].mean(axis=1)

    centres = {name: mean_head(bones[0]) for name, bones in MIDLINE_BONES.items()}
    for side, suffix in (("left", "L"), ("right", "R")):
        for name, prefixes in LIMB_BONES.items():
            if name == "hand":
                bones = tuple(f"finger{i}-1.{suffix}" for i in (2, 3, 4, 5))
            elif name == "foot":
                bones = tuple(f"toe{i}-1.{suffix}" for i in (1, 2, 3, 4, 5))
            else:
                bones = (f"{prefixes[0]}.{suffix}",)
            centres[f"{side}_{name}"] = mean_head(*bones)
    hips = 0.5 * (centres["left_hip"] + centres["right_hip"])
    centres["pelvis"] = np.stack([hips[:, 0], mean_head("spine04")[:, 1], hips[:, 2]], axis=-1)
    return np.stack([centres[name] for name in SMPL_24.joint_names], axis=1)


def to_t_pose(shapes: RestShapes, body: AnnyBody, vertex_ids: Int[ndarray, " kept"]) -> TPose:
    """Brings sampled people into SMPL's rest pose, the pelvis joint at the origin.

    Args:
        shapes: In anny's A-pose, with all of anny's vertices.
        vertex_ids: The vertices to pose.
    """
    weights = body.skinning_weights[vertex_ids]
    rotmats = t_pose_rotmats(shapes.bone_heads, body)
    heads = forward_kinematics(shapes.bone_heads, rotmats, body.bone_parents)
    joints = joint_centres(heads, body)
    pelvis = joints[:, :1]
    vertices = np.empty((len(rotmats), len(vertex_ids), 3), dtype=np.float32)
    for start in range(0, len(rotmats), SKINNING_BATCH_SIZE):
        batch = slice(start, start + SKINNING_BATCH_SIZE)
        posed = skin(
            shapes.vertices[batch, vertex_ids],
            shapes.bone_heads[batch],
            heads[batch],
            rotmats[batch],
            weights,
        )
        vertices[batch] = posed - pelvis[batch]
    return TPose(vertices=vertices, bone_heads=heads - pelvis, joints=joints - pelvis, bone_rotmats=rotmats)


def t_pose_rotmats(
    bone_heads: Float[ndarray, "shape bone 3"], body: AnnyBody
) -> Float[ndarray, "shape bone 3 3"]:
    """World rotation of every bone from anny's A-pose to the T-pose.

    Arms go to ±x with the elbow's hinge vertical and the palms down, thighs 4° outward, shins vertical in the
    frontal plane; feet, spine and head stay.
    """
    mirror = np.diag([-1.0, 1.0, 1.0])
    rotmats = np.broadcast_to(np.eye(3), (*bone_heads.shape[:2], 3, 3)).copy()
    for suffix in ("L", "R"):
        # The right side is computed on its mirror image, as a left side.
        heads = bone_heads if suffix == "L" else bone_heads @ mirror
        head_of = {
            label.removesuffix(f".{suffix}"): heads[:, index]
            for index, label in enumerate(body.bone_labels)
            if label.endswith(f".{suffix}")
        }
        segment_rotmats = {**_left_arm_rotmats(head_of), **_left_leg_rotmats(head_of)}
        for index, label in enumerate(body.bone_labels):
            for prefix, rotmat in segment_rotmats.items():
                if label.startswith(prefix) and label.endswith(f".{suffix}"):
                    rotmats[:, index] = rotmat if suffix == "L" else mirror @ rotmat @ mirror
    return rotmats


def _left_arm_rotmats(
    head_of: dict[str, Float[ndarray, "shape 3"]],
) -> dict[str, Float[ndarray, "shape 3 3"]]:
    upper_arm = head_of["lowerarm01"] - head_of["upperarm01"]
    forearm = head_of["wrist"] - head_of["lowerarm01"]
    hand = head_of["finger3-1"] - head_of["wrist"]
    towards_thumb = head_of["finger2-1"] - head_of["finger5-1"]
    hinge = np.cross(upper_arm, forearm)
    # Bending the left elbow of a T-pose brings the hand forward: x × z = −y is the hinge's direction there.
    x, y, z = np.eye(3)
    upper_rotmat = frame(x, -y) @ frame(upper_arm, hinge).swapaxes(-1, -2)
    forearm_rotmat = frame(x, -y) @ frame(forearm, hinge).swapaxes(-1, -2)
    hand_rotmat = frame(x, z) @ frame(hand, towards_thumb).swapaxes(-1, -2)
    elevation_rotvec = _swing_rotvec(upper_arm, x)
    elevation = rotvec_to_rotmat(elevation_rotvec)
    upper_twist = _twist_about_x(upper_rotmat @ elevation.swapaxes(-1, -2))
    forearm_twist = _twist_about_x(hand_rotmat @ forearm_rotmat.swapaxes(-1, -2))
    return {
        "clavicle": rotvec_to_rotmat(CLAVICLE_ELEVATION_SHARE * elevation_rotvec),
        "shoulder01": rotvec_to_rotmat(SHOULDER_BLADE_ELEVATION_SHARE * elevation_rotvec),
        # Twists are spread over the two bones of a segment, or the skin would wring at the joint.
        "upperarm01": rotvec_to_rotmat(0.5 * upper_twist[:, None] * x) @ elevation,
        "upperarm02": upper_rotmat,
        "lowerarm01": forearm_rotmat,
        "lowerarm02": rotvec_to_rotmat(0.5 * forearm_twist[:, None] * x) @ forearm_rotmat,
        "wrist": hand_rotmat,
        "metacarpal": hand_rotmat,
        "finger": hand_rotmat,
    }


def _left_leg_rotmats(
    head_of: dict[str, Float[ndarray, "shape 3"]],
) -> dict[str, Float[ndarray, "shape 3 3"]]:
    thigh = head_of["lowerleg01"] - head_of["upperleg01"]
    shin = head_of["foot"] - head_of["lowerleg01"]
    z = np.array([0.0, 0.0, 1.0])
    thigh_angle = THIGH_ABDUCTION_RAD - np.arctan2(thigh[:, 0], -thigh[:, 1])
    shin_angle = -np.arctan2(shin[:, 0], -shin[:, 1])
    return {
        "upperleg": rotvec_to_rotmat(thigh_angle[:, None] * z),
        "lowerleg": rotvec_to_rotmat(shin_angle[:, None] * z),
    }


def forward_kinematics(
    bone_heads: Float[ndarray, "*batch bone 3"],
    world_rotmats: Float[ndarray, "*batch bone 3 3"],
    parents: tuple[int, ...],
) -> Float[ndarray, "*batch bone 3"]:
    """Bone heads after every bone took its world rotation; the root's head stays."""
    posed = np.empty(world_rotmats.shape[:-1])
    for bone, parent in enumerate(parents):
        if parent < 0:
            posed[..., bone, :] = bone_heads[..., bone, :]
        else:
            offset = bone_heads[..., bone, :] - bone_heads[..., parent, :]
            posed[..., bone, :] = posed[..., parent, :] + np.einsum(
                "...ij,...j->...i", world_rotmats[..., parent, :, :], offset
            )
    return posed


def skin(
    vertices: Float[ndarray, "#batch vertex 3"],
    rest_heads: Float[ndarray, "#batch bone 3"],
    posed_heads: Float[ndarray, "batch bone 3"],
    world_rotmats: Float[ndarray, "batch bone 3 3"],
    weights: Float[ndarray, "vertex bone"],
) -> Float[ndarray, "batch vertex 3"]:
    """Linear blend skinning with world rotations."""
    translations = posed_heads - np.einsum(
        "nbij,nbj->nbi", world_rotmats, np.broadcast_to(rest_heads, posed_heads.shape)
    )
    transforms = np.concatenate([world_rotmats, translations[..., None]], axis=-1)
    blended = np.tensordot(transforms.reshape(*transforms.shape[:2], 12), weights, axes=([1], [1]))
    blended = blended.swapaxes(1, 2).reshape(len(transforms), len(weights), 3, 4)
    return (
        np.einsum("nvij,nvj->nvi", blended[..., :3], np.broadcast_to(vertices, blended.shape[:-1]))
        + blended[..., 3]
    )


def frame(
    primary: Float[ndarray, "*#batch 3"], secondary: Float[ndarray, "*#batch 3"]
) -> Float[ndarray, "*batch 3 3"]:
    """Right-handed frame as columns: along `primary`, along the rest of `secondary`, their cross product."""
    first = primary / np.linalg.norm(primary, axis=-1, keepdims=True)
    second = secondary - (secondary * first).sum(-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def rotvec_to_rotmat(rotvec: Float[ndarray, "*batch 3"]) -> Float[ndarray, "*batch 3 3"]:
    """Rodrigues' formula."""
    angle = np.linalg.norm(rotvec, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(rotvec, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    sine = np.sinc(angle / np.pi)
    cosine = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + sine * cross + cosine * (cross @ cross)


def _swing_rotvec(
    direction: Float[ndarray, "shape 3"], target: Float[ndarray, "3"]
) -> Float[ndarray, "shape 3"]:
    """Rotation vector of the smallest rotation taking `direction` onto the unit vector `target`."""
    unit = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    axis = np.cross(unit, target)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    return axis / sine * np.arctan2(sine, (unit @ target)[:, None])


def _twist_about_x(rotmats: Float[ndarray, "shape 3 3"]) -> Float[ndarray, " shape"]:
    return np.arctan2(rotmats[:, 2, 1] - rotmats[:, 1, 2], rotmats[:, 1, 1] + rotmats[:, 2, 2])
