"""How well the open body fits people and poses that it was not built from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from body_models.open_body.anny_source import AnnyBody, sample_adults
from body_models.open_body.builder import BuiltBody, pose_open_body
from body_models.open_body.joint_fitting import skeleton_joints_of_smpl
from body_models.open_body.pose_blend import PosingReference, template_reference
from body_models.open_body.pose_sampling import random_pose_rotvecs
from body_models.open_body.rest_pose import to_t_pose
from body_models.open_body.topology import Topology
from core.skeleton import COCO_17, H36M_17

NUM_POSES_AT_ONCE = 25  # bounds the memory


@dataclass(frozen=True, kw_only=True)
class OpenBodyReport:
    """Distances in millimetres over all vertices (or joints) of held-out people and poses."""

    num_vertices: int
    num_faces: int
    explained_variance_ratio: float
    shape_mean_mm: float  # people in T-pose, with 10 betas
    shape_without_betas_mean_mm: float
    rest_joint_mean_mm: float  # J_regressor on the fitted people against anny's bone heads
    posed_joint_mean_mm: float  # J_regressor on posed people against their joint centres
    posing_mean_mm: float  # the template person against anny's own posing
    posing_p99_mm: float
    posing_without_blend_mean_mm: float
    posing_without_blend_p99_mm: float
    posed_people_mean_mm: float  # shape, joints and posing together: held-out people in held-out poses
    h36m_17_mean_mm: float  # regressed against the definition, posed people
    h36m_17_max_mm: float
    coco_17_mean_mm: float
    coco_17_max_mm: float
    posedirs_non_zero_ratio: float


def measure_open_body(
    anny_body: AnnyBody,
    topology: Topology,
    built: BuiltBody,
    *,
    gender: str,
    seed: int,
    num_people: int = 300,
    num_poses: int = 200,
) -> OpenBodyReport:
    """Measures on people and poses drawn with `seed`, which must differ from the seed of the build."""
    arrays, shape_space = built.arrays, built.shape_space
    people = sample_adults(anny_body, num_people, gender=gender, seed=seed)
    t_pose = to_t_pose(people, anny_body, topology.vertex_ids)
    betas = shape_space.fit(t_pose.vertices)
    fitted = shape_space.vertices(betas)
    poses = random_pose_rotvecs(num_poses, np.random.default_rng(seed))
    posing = posing_errors_mm(arrays, built.reference, poses)
    without_blend = {**arrays, "posedirs": np.zeros_like(arrays["posedirs"])}
    posing_without_blend = posing_errors_mm(without_blend, built.reference, poses)

    posed_people: list[float] = []
    posed_joints: list[ndarray] = []
    regressed: dict[str, list[ndarray]] = {H36M_17.name: [], COCO_17.name: []}
    for index in range(min(num_people, num_poses)):
        pose, person_betas = poses[index : index + 1], betas[index : index + 1]
        person = template_reference(
            t_pose.vertices[index].astype(np.float64),
            people.bone_heads[index],
            topology.vertex_ids,
            anny_body,
        )
        posed_people.append(posing_errors_mm(arrays, person, pose, person_betas).mean())
        posed = pose_open_body(arrays, pose, person_betas)
        vertices, joints = posed.vertices_m.numpy(), posed.joints_m.numpy()
        posed_joints.append(_distances_mm(arrays["J_regressor"] @ vertices, joints))
        for skeleton in (H36M_17, COCO_17):
            defined = skeleton_joints_of_smpl(skeleton, vertices, joints, topology.landmark_vertices)
            regressor = arrays[f"J_regressor_{skeleton.name}"]
            regressed[skeleton.name].append(_distances_mm(regressor @ vertices, defined))
    h36m, coco = (np.concatenate(regressed[skeleton.name]) for skeleton in (H36M_17, COCO_17))
    return OpenBodyReport(
        num_vertices=len(arrays["v_template"]),
        num_faces=len(arrays["f"]),
        explained_variance_ratio=float(shape_space.explained_variance_ratio.sum()),
        shape_mean_mm=float(_distances_mm(fitted, t_pose.vertices).mean()),
        shape_without_betas_mean_mm=float(_distances_mm(shape_space.mean, t_pose.vertices).mean()),
        rest_joint_mean_mm=float(_distances_mm(arrays["J_regressor"] @ fitted, t_pose.joints).mean()),
        posed_joint_mean_mm=float(np.mean(posed_joints)),
        posing_mean_mm=float(posing.mean()),
        posing_p99_mm=float(np.percentile(posing, 99)),
        posing_without_blend_mean_mm=float(posing_without_blend.mean()),
        posing_without_blend_p99_mm=float(np.percentile(posing_without_blend, 99)),
        posed_people_mean_mm=float(np.mean(posed_people)),
        h36m_17_mean_mm=float(h36m.mean()),
        h36m_17_max_mm=float(h36m.max()),
        coco_17_mean_mm=float(coco.mean()),
        coco_17_max_mm=float(coco.max()),
        posedirs_non_zero_ratio=float((arrays["posedirs"] != 0).mean()),
    )


def posing_errors_mm(
    arrays: dict[str, ndarray],
    reference: PosingReference,
    pose_rotvec: Float[ndarray, "pose 24 3"],
    betas: Float[ndarray, "pose beta"] | None = None,
) -> Float[ndarray, "pose vertex"]:
    """Distance of every vertex of the open body to where anny's own posing puts it for the reference person.

    Args:
        betas: Of the reference person; zeros (the template) by default.
    """
    if betas is None:
        betas = np.zeros((len(pose_rotvec), arrays["shapedirs"].shape[-1]))
    errors = []
    for start in range(0, len(pose_rotvec), NUM_POSES_AT_ONCE):
        chunk = slice(start, start + NUM_POSES_AT_ONCE)
        posed = pose_open_body(arrays, pose_rotvec[chunk], betas[chunk])
        errors.append(_distances_mm(posed.vertices_m.numpy(), reference.pose_as_anny(pose_rotvec[chunk])))
    return np.concatenate(errors)


def _distances_mm(
    a: Float[ndarray, "*#batch point 3"], b: Float[ndarray, "*#batch point 3"]
) -> Float[ndarray, "*batch point"]:
    return 1000.0 * np.linalg.norm(a - b, axis=-1)
