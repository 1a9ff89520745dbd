"""How well the open body fits people and poses that it was not built from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from body_models.open_body.anny_source import AnnyBody, sample_adults
from body_models.open_body.builder import OpenBodyParts, to_t_pose_in_batches
from body_models.open_body.pose_sampling import random_pose_rotvecs


@dataclass(frozen=True, kw_only=True)
class OpenBodyReport:
    """Errors in millimetres over all vertices of the held-out people and poses."""

    num_vertices: int
    num_faces: int
    explained_variance_ratio: float
    shape_error_mm: float
    mean_shape_error_mm: float  # of the template alone, without betas
    shape_joint_error_mm: float  # J_regressor on the fitted people against anny's bone heads
    pose_error_mean_mm: float  # against anny's own posing
    pose_error_p99_mm: float
    pose_error_without_blend_mean_mm: float
    pose_error_without_blend_p99_mm: float
    posedirs_non_zero_ratio: float


def measure_open_body(
    body: AnnyBody,
    parts: OpenBodyParts,
    *,
    gender: str,
    seed: int,
    num_people: int = 300,
    num_poses: int = 200,
) -> OpenBodyReport:
    """Measures on people and poses drawn with another seed than the body was built with."""
    people = to_t_pose_in_batches(
        sample_adults(body, num_people, gender=gender, seed=seed), body, parts.vertex_ids
    )
    arrays = parts.arrays
    fitted = parts.shape_space.vertices(parts.shape_space.fit(people.vertices))
    joints = arrays["J_regressor"] @ fitted
    poses = random_pose_rotvecs(num_poses, np.random.default_rng(seed))
    with_blend = posing_errors_mm(parts, poses)
    without_blend = posing_errors_mm(parts, poses, use_pose_blend=False)
    return OpenBodyReport(
        num_vertices=len(arrays["v_template"]),
        num_faces=len(arrays["f"]),
        explained_variance_ratio=float(parts.shape_space.explained_variance_ratio.sum()),
        shape_error_mm=float(_distances_mm(fitted, people.vertices).mean()),
        mean_shape_error_mm=float(_distances_mm(parts.shape_space.mean, people.vertices).mean()),
        shape_joint_error_mm=float(_distances_mm(joints, people.joints).mean()),
        pose_error_mean_mm=float(with_blend.mean()),
        pose_error_p99_mm=float(np.percentile(with_blend, 99)),
        pose_error_without_blend_mean_mm=float(without_blend.mean()),
        pose_error_without_blend_p99_mm=float(np.percentile(without_blend, 99)),
        posedirs_non_zero_ratio=float((arrays["posedirs"] != 0).mean()),
    )


def posing_errors_mm(
    parts: OpenBodyParts, pose_rotvec: Float[ndarray, "pose 24 3"], use_pose_blend: bool = True
) -> Float[ndarray, "pose vertex"]:
    """Distance of every vertex to where anny's own posing puts it, for the template person."""
    posedirs = parts.arrays["posedirs"].astype(np.float64) if use_pose_blend else None
    return np.concatenate(
        [
            _distances_mm(parts.reference.pose_as_smpl(chunk, posedirs), parts.reference.pose_as_anny(chunk))
            for chunk in np.array_split(pose_rotvec, -(-len(pose_rotvec) // 50))
        ]
    )


def _distances_mm(a: ndarray, b: ndarray) -> Float[ndarray, "*batch point"]:
    return 1000.0 * np.linalg.norm(a - b, axis=-1)
