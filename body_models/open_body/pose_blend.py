"""Pose-blend directions that make the 24-joint T-posed body follow anny's own 104-bone posing.

Skinning from a T-pose that was itself skinned loses volume twice (pinched shoulders). The reference skins
once, from anny's A-pose; SMPL's linear pose-dependent offsets are fitted to close the gap.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from body_models.open_body.anny_source import AnnyBody
from body_models.open_body.rest_pose import (
    forward_kinematics,
    joint_centres,
    joint_of_bone,
    rotvec_to_rotmat,
    skin,
    t_pose_rotmats,
)
from core.skeleton import SMPL_24

NUM_POSE_FEATURES = 9 * (SMPL_24.num_joints - 1)
RIDGE = 1e-4
# Directions below a hundredth of a millimetre per unit of rotation-matrix entry are dropped: the file stays
# small.
MIN_DIRECTION_M = 1e-5
MANY_HEADED_JOINTS = frozenset(
    SMPL_24.index(name) for name in ("left_hand", "right_hand", "left_foot", "right_foot")
)


@dataclass(frozen=True, kw_only=True)
class PosingReference:
    """One person in anny's rig, brought to the open body's T-pose."""

    template: Float[ndarray, "vertex 3"]  # T-pose
    a_pose_vertices: Float[ndarray, "vertex 3"]
    a_pose_heads: Float[ndarray, "bone 3"]
    t_pose_heads: Float[ndarray, "bone 3"]
    bone_rotmats: Float[ndarray, "bone 3 3"]  # A-pose → T-pose, world
    bone_weights: Float[ndarray, "vertex bone"]
    bone_parents: tuple[int, ...]
    bone_joint: Int[ndarray, " bone"]
    joints: Float[ndarray, "24 3"]
    weights: Float[ndarray, "vertex 24"]

    def pose_as_anny(self, pose_rotvec: Float[ndarray, "pose 24 3"]) -> Float[ndarray, "pose vertex 3"]:
        """anny's own posing: every bone turns about its own head with the joint that it belongs to."""
        world = world_rotmats(rotvec_to_rotmat(pose_rotvec))[:, self.bone_joint]
        rest_heads = self.t_pose_heads
        # The root bone rides on the pelvis joint, which is not at the root bone's head.
        heads = forward_kinematics(np.broadcast_to(rest_heads, world.shape[:-1]), world, self.bone_parents)
        pelvis = self.joints[0]
        root_shift = np.einsum("nij,j->ni", world[:, 0], rest_heads[0] - pelvis) + pelvis - rest_heads[0]
        heads = heads + root_shift[:, None]
        return skin(
            self.a_pose_vertices[None],
            self.a_pose_heads[None],
            heads,
            world @ self.bone_rotmats,
            self.bone_weights,
        )

    def pose_without_blend(self, pose_rotvec: Float[ndarray, "pose 24 3"]) -> Float[ndarray, "pose vertex 3"]:
        """SMPL's posing of the same person: linear blend skinning from the T-pose, no pose-blend offsets."""
        world = world_rotmats(rotvec_to_rotmat(pose_rotvec))
        posed_joints = self.posed_joints(pose_rotvec)
        return skin(self.template[None], self.joints[None], posed_joints, world, self.weights)

    def posed_joints(self, pose_rotvec: Float[ndarray, "pose 24 3"]) -> Float[ndarray, "pose 24 3"]:
        """SMPL's joint centres."""
        world = world_rotmats(rotvec_to_rotmat(pose_rotvec))
        return forward_kinematics(np.broadcast_to(self.joints, world.shape[:-1]), world, SMPL_24.parents)


def template_reference(
    template: Float[ndarray, "vertex 3"],
    a_pose_heads: Float[ndarray, "bone 3"],
    vertex_ids: Int[ndarray, " vertex"],
    body: AnnyBody,
) -> PosingReference:
    """The person that anny's rig would need as rest shape so that its T-pose is exactly `template`."""
    bone_rotmats = t_pose_rotmats(a_pose_heads[None], body)
    t_pose_heads = forward_kinematics(a_pose_heads[None], bone_rotmats, body.bone_parents)
    joints = joint_centres(t_pose_heads, body)[0]
    t_pose_heads, bone_rotmats = t_pose_heads[0] - joints[0], bone_rotmats[0]
    weights = body.skinning_weights[vertex_ids]
    translations = t_pose_heads - np.einsum("bij,bj->bi", bone_rotmats, a_pose_heads)
    linear = np.einsum("vb,bij->vij", weights, bone_rotmats)
    a_pose_vertices = np.linalg.solve(linear, (template - weights @ translations)[..., None])[..., 0]
    return PosingReference(
        template=template,
        a_pose_vertices=a_pose_vertices,
        a_pose_heads=a_pose_heads,
        t_pose_heads=t_pose_heads,
        bone_rotmats=bone_rotmats,
        bone_weights=weights,
        bone_parents=body.bone_parents,
        bone_joint=joint_of_bone(body.bone_labels),
        joints=joints - joints[0],
        weights=joint_weights(weights, joint_of_bone(body.bone_labels)),
    )


def fit_pose_blend(
    reference: PosingReference,
    mirror_vertex: Int[ndarray, " vertex"],
    pose_rotvec: Float[ndarray, "pose 24 3"],
    on_progress: Callable[[int], None] = lambda num_done: None,
) -> Float[ndarray, "vertex 3 207"]:
    """Ridge regression of SMPL's pose-dependent offsets on the gap to anny's own posing.

    An offset is added before skinning, so it is fitted through the vertex's blended rotation: the residual
    that is minimised is the one in the posed mesh. A vertex depends only on the joints between those it is
    skinned to. The left half and the midline are fitted; the right half is their mirror image.

    Returns:
        Metres per entry of (R − I) of joints 1 to 23, row-major, as in SMPL.
    """
    rotmats = rotvec_to_rotmat(pose_rotvec)
    features = pose_features(rotmats)
    world = world_rotmats(rotmats)
    posedirs = np.zeros((len(reference.template), 3, NUM_POSE_FEATURES))
    left = np.flatnonzero(reference.template[:, 0] >= 0)
    gap = np.concatenate(
        [
            reference.pose_as_anny(chunk)[:, left] - reference.pose_without_blend(chunk)[:, left]
            for chunk in np.array_split(pose_rotvec, max(1, len(pose_rotvec) // 50))
        ]
    )
    for joint_ids, members in _vertices_by_feature_joints(reference.weights[left]).items():
        on_progress(len(members))
        if not joint_ids:
            continue
        columns = np.concatenate([np.arange(9 * (joint - 1), 9 * joint) for joint in joint_ids])
        chosen = features[:, columns]
        outer = (chosen[:, :, None] * chosen[:, None, :]).reshape(len(chosen), -1)
        num_features = len(columns)
        for chunk in np.array_split(np.array(members), -(-len(members) // 64)):
            blended = np.einsum("vj,pjab->vpab", reference.weights[left[chunk]], world)
            metric = np.einsum("vpca,vpcb->vabp", blended, blended).reshape(-1, len(chosen))
            normal = (metric @ outer).reshape(len(chunk), 3, 3, num_features, num_features)
            normal = normal.transpose(0, 1, 3, 2, 4).reshape(len(chunk), 3 * num_features, -1)
            pulled_back = np.einsum("vpca,pvc->vap", blended, gap[:, chunk])
            target = (pulled_back @ chosen).reshape(len(chunk), -1)
            normal += RIDGE * len(chosen) * np.eye(3 * num_features)
            solution = np.linalg.solve(normal, target[..., None]).reshape(len(chunk), 3, num_features)
            posedirs[left[chunk][:, None, None], np.arange(3)[:, None], columns] = solution
    posedirs[np.abs(posedirs) < MIN_DIRECTION_M] = 0.0
    return _mirrored_to_the_right(posedirs, left, mirror_vertex)


def world_rotmats(rotmats: Float[ndarray, "pose 24 3 3"]) -> Float[ndarray, "pose 24 3 3"]:
    """Rotations relative to the parent → world rotations."""
    world = rotmats.copy()
    for joint, parent in enumerate(SMPL_24.parents):
        if parent >= 0:
            world[:, joint] = world[:, parent] @ rotmats[:, joint]
    return world


def pose_features(rotmats: Float[ndarray, "pose 24 3 3"]) -> Float[ndarray, "pose 207"]:
    """SMPL's pose features: R − I of every joint but the root, row-major."""
    return (rotmats[:, 1:] - np.eye(3)).reshape(len(rotmats), -1)


def joint_weights(
    bone_weights: Float[ndarray, "vertex bone"], bone_joint: Int[ndarray, " bone"]
) -> Float[ndarray, "vertex 24"]:
    """Skinning weights of the joints: the sum over their bones."""
    weights = np.zeros((len(bone_weights), SMPL_24.num_joints))
    np.add.at(weights.T, bone_joint, bone_weights.T)
    return weights / weights.sum(axis=1, keepdims=True)


def mirror_pose_blend(posedirs: Float[ndarray, "vertex 3 207"]) -> Float[ndarray, "vertex 3 207"]:
    """Directions of the mirror-image vertices: sides swapped, components along x negated."""
    sign = np.array([-1.0, 1.0, 1.0])
    by_joint = posedirs.reshape(len(posedirs), 3, -1, 3, 3)
    other_side = np.array(SMPL_24.mirror_permutation[1:]) - 1
    signs = sign[:, None, None, None] * sign[:, None] * sign
    return (by_joint[:, :, other_side] * signs).reshape(posedirs.shape)


def _vertices_by_feature_joints(weights: Float[ndarray, "vertex 24"]) -> dict[tuple[int, ...], list[int]]:
    """Vertices grouped by the joints whose rotation their offset depends on.

    These are the joints between those that move a vertex, on the paths to their common ancestor; and the hand
    or foot itself, because anny turns each finger and each toe about its own base, SMPL all of them about one
    point.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    ancestors = []
    for joint in range(SMPL_24.num_joints):
        chain = [joint]
        while SMPL_24.parents[chain[-1]] >= 0:
            chain.append(SMPL_24.parents[chain[-1]])
        ancestors.append(chain)
    for vertex, row in enumerate(weights):
        own_joints = set(np.flatnonzero(row).tolist())
        chains = [set(ancestors[joint]) for joint in own_joints]
        between = set().union(*chains) - chains[0].intersection(*chains[1:])
        joints = between | (own_joints & MANY_HEADED_JOINTS)
        groups.setdefault(tuple(sorted(joints)), []).append(vertex)
    return groups


def _mirrored_to_the_right(
    posedirs: Float[ndarray, "vertex 3 207"],
    left: Int[ndarray, " left_vertex"],
    mirror_vertex: Int[ndarray, " vertex"],
) -> Float[ndarray, "vertex 3 207"]:
    mirrored = mirror_pose_blend(posedirs[left])
    on_midline = (mirror_vertex[left] == left)[:, None, None]
    result = posedirs.copy()
    result[mirror_vertex[left]] = np.where(on_midline, 0.5 * (posedirs[left] + mirrored), mirrored)
    return result
