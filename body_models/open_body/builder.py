"""Builds the open body: a shape space, joints and pose-blend directions, fitted to sampled people."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from body_models.open_body.anny_source import AnnyBody, sample_adults
from body_models.open_body.joint_fitting import fit_rest_joints, fit_skeleton_joints
from body_models.open_body.pose_blend import PosingReference, fit_pose_blend, template_reference
from body_models.open_body.pose_sampling import random_pose_rotvecs
from body_models.open_body.rest_pose import TPose, to_t_pose
from body_models.open_body.shape_space import ShapeSpace, fit_shape_space
from body_models.open_body.topology import Topology
from body_models.parameters import BodyParameters
from body_models.smpl import BodyMesh, SmplBody
from core.atomic_write import written_whole
from core.skeleton import COCO_17, H36M_17, SMPL_24

NUM_BETAS = 10

OnProgress = Callable[[str, int, int], None]
"""Called with the stage's name, the steps just done, and the stage's steps in all."""


@dataclass(frozen=True, kw_only=True)
class BuildSizes:
    """How much is sampled."""

    num_people: int = 1500
    num_joint_poses: int = 80
    num_blend_poses: int = 900
    num_regressor_poses: int = 300


@dataclass(frozen=True, kw_only=True)
class BuiltBody:
    """The open body (`arrays` is what the npz holds) together with what it was fitted to."""

    arrays: dict[str, ndarray]
    shape_space: ShapeSpace
    reference: PosingReference


def build_open_body(
    anny_body: AnnyBody,
    topology: Topology,
    *,
    gender: str,
    seed: int,
    sizes: BuildSizes,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> BuiltBody:
    """Builds the open body of one gender; the same seed gives the same arrays."""
    mirror = topology.mirror_vertex
    people = sample_adults(
        anny_body,
        sizes.num_people,
        gender=gender,
        seed=seed,
        on_progress=lambda done: on_progress(f"{gender}: people", done, sizes.num_people),
    )
    t_pose = to_t_pose(people, anny_body, topology.vertex_ids)
    shape_space = fit_shape_space(t_pose.vertices, topology.faces, mirror, NUM_BETAS)
    reference = template_reference(
        shape_space.mean, people.bone_heads.mean(axis=0), topology.vertex_ids, anny_body
    )
    is_candidate = ~anny_body.is_hidden[topology.vertex_ids]
    rng = np.random.default_rng(seed)
    joint_poses = random_pose_rotvecs(sizes.num_joint_poses, rng)
    J_regressor = fit_rest_joints(
        shape_space,
        reference.joints,
        _joint_directions(shape_space, t_pose),
        reference.pose_as_anny(joint_poses),
        reference.posed_joints(joint_poses),
        reference.weights,
        mirror,
        is_candidate,
    )
    num_left = int((shape_space.mean[:, 0] >= 0).sum())
    posedirs = fit_pose_blend(
        reference,
        mirror,
        random_pose_rotvecs(sizes.num_blend_poses, rng),
        on_progress=lambda done: on_progress(f"{gender}: pose blend", done, num_left),
    )
    arrays = {
        "v_template": shape_space.mean.astype(np.float32),
        "shapedirs": shape_space.directions.astype(np.float32),
        "posedirs": posedirs.astype(np.float32),
        "weights": reference.weights.astype(np.float32),
        "J_regressor": J_regressor.astype(np.float32),
        "f": topology.faces.astype(np.int32),
        "kintree_table": np.array([SMPL_24.parents, range(SMPL_24.num_joints)], dtype=np.int32),
    }
    posed = pose_open_body(
        arrays,
        random_pose_rotvecs(sizes.num_regressor_poses, rng),
        rng.normal(size=(sizes.num_regressor_poses, NUM_BETAS)),
    )
    for skeleton in (H36M_17, COCO_17):
        regressor = fit_skeleton_joints(
            skeleton,
            posed.vertices_m.numpy(),
            posed.joints_m.numpy(),
            topology.landmark_vertices,
            reference.weights,
            mirror,
            is_candidate,
        )
        arrays[f"J_regressor_{skeleton.name}"] = regressor.astype(np.float32)
    return BuiltBody(arrays=arrays, shape_space=shape_space, reference=reference)


def pose_open_body(
    arrays: dict[str, ndarray],
    pose_rotvec: Float[ndarray, "pose 24 3"],
    betas: Float[ndarray, "pose beta"],
) -> BodyMesh:
    """Poses a body of SMPL's arrays in float64."""
    body = SmplBody.from_arrays(arrays, dtype=torch.float64)
    with torch.no_grad():
        return body(BodyParameters.from_rotvec(torch.from_numpy(pose_rotvec), torch.from_numpy(betas)))


def write_open_body(path: Path, arrays: dict[str, ndarray]) -> None:
    """Writes the npz; complete or not at all."""
    with written_whole(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _joint_directions(shape_space: ShapeSpace, t_pose: TPose) -> Float[ndarray, "24 3 beta"]:
    """How the joints of the sampled people move with the betas, by linear regression."""
    betas = shape_space.fit(t_pose.vertices)
    design = np.concatenate([np.ones((len(betas), 1)), betas], axis=1)
    joints = t_pose.joints.reshape(len(betas), -1)
    coefficients, *_ = np.linalg.lstsq(design, joints, rcond=None)
    return coefficients[1:].T.reshape(SMPL_24.num_joints, 3, -1)
