"""Joint regressors: sparse convex combinations of vertices."""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from body_models.open_body.shape_space import ShapeSpace
from core.skeleton import SMPL_24, Skeleton

# Relative to the shape directions: the template's joints are met exactly, posed meshes within a few millimetres.
TEMPLATE_WEIGHT = 30.0
POSED_WEIGHT = 0.05
SUM_TO_ONE_WEIGHT = 100.0
MAX_VERTICES_PER_JOINT = 16


# Where a skeleton's name and SMPL's differ. Human3.6M's spine lies halfway from the pelvis to the neck's
# base.
SMPL_JOINT_OF = {"spine": "spine2", "thorax": "neck"}


def fit_rest_joints(
    shape_space: ShapeSpace,
    template_joints: Float[ndarray, "24 3"],
    joint_directions: Float[ndarray, "24 3 beta"],
    posed_vertices: Float[ndarray, "pose vertex 3"],
    posed_joints: Float[ndarray, "pose 24 3"],
    weights: Float[ndarray, "vertex 24"],
    mirror_vertex: Int[ndarray, " vertex"],
    is_candidate: Bool[ndarray, " vertex"],
) -> Float[ndarray, "24 vertex"]:
    """SMPL's `J_regressor`: non-negative least squares on the template, shape directions and posed meshes.

    Signed weights would fit the directions closer but explode away from the fitted people. SMPL itself applies
    the regressor to rest shapes only; a little weight on poses makes it hold on posed meshes too, where it is
    often applied.

    Args:
        posed_vertices: The template person in various poses, with `posed_joints`.
    """
    rest = np.concatenate([TEMPLATE_WEIGHT * shape_space.mean[..., None], shape_space.directions], axis=-1)
    rest_targets = np.concatenate([TEMPLATE_WEIGHT * template_joints[..., None], joint_directions], axis=-1)
    regressor = np.zeros((SMPL_24.num_joints, len(weights)))
    for joint, name in enumerate(SMPL_24.joint_names):
        if name.startswith("right_"):
            continue
        posed = POSED_WEIGHT * (posed_vertices - posed_joints[:, joint, None])
        targets = np.concatenate([rest_targets[joint].T, np.zeros((len(posed), 3))])
        regressor[joint] = _convex_weights(
            np.concatenate([rest.transpose(2, 0, 1), posed]),
            targets,
            _vertices_around(joint, weights, is_candidate),
            _pairing(name, mirror_vertex),
        )
    return _mirrored_rows(regressor, SMPL_24, mirror_vertex)


def fit_skeleton_joints(
    skeleton: Skeleton,
    vertices: Float[ndarray, "person vertex 3"],
    smpl_joints: Float[ndarray, "person 24 3"],
    landmark_vertices: dict[str, int],
    weights: Float[ndarray, "vertex 24"],
    mirror_vertex: Int[ndarray, " vertex"],
    is_candidate: Bool[ndarray, " vertex"],
) -> Float[ndarray, "joint vertex"]:
    """Regressor of a skeleton's joints (see `skeleton_joints_of_smpl`) from the vertices of posed people."""
    targets = skeleton_joints_of_smpl(skeleton, vertices, smpl_joints, landmark_vertices)
    regressor = np.zeros((skeleton.num_joints, len(weights)))
    for row, name in enumerate(skeleton.joint_names):
        if name in landmark_vertices:
            regressor[row, landmark_vertices[name]] = 1.0
        elif name != "pelvis" and not name.startswith("right_"):
            joint = SMPL_24.index(SMPL_JOINT_OF.get(name, name))
            near = _vertices_around(joint, weights, is_candidate)
            # Relative to the joint, the sum-to-one row makes the problem homogeneous and well scaled.
            offsets = vertices - targets[:, row, None]
            zeros = np.zeros_like(targets[:, row])
            pairing = _pairing(name, mirror_vertex)
            dense = _convex_weights(offsets, zeros, near, pairing)
            best = np.argsort(-dense, kind="stable")[:MAX_VERTICES_PER_JOINT]
            regressor[row] = _convex_weights(offsets, zeros, np.sort(best[dense[best] > 0]), pairing)
    regressor = _mirrored_rows(regressor, skeleton, mirror_vertex)
    if "pelvis" in skeleton.joint_names:
        hips = [skeleton.index("left_hip"), skeleton.index("right_hip")]
        regressor[skeleton.index("pelvis")] = regressor[hips].mean(axis=0)
    return regressor


def skeleton_joints_of_smpl(
    skeleton: Skeleton,
    vertices: Float[ndarray, "person vertex 3"],
    smpl_joints: Float[ndarray, "person 24 3"],
    landmark_vertices: dict[str, int],
) -> Float[ndarray, "person joint 3"]:
    """What counts as the joints of H36M_17 or COCO_17 on the open body.

    Hips, knees, ankles, shoulders, elbows and wrists are SMPL's joint centres; `pelvis` is the mean of the
    hips, `spine` SMPL's spine2 (halfway from pelvis to thorax), `thorax` SMPL's neck (the neck's base);
    `nose`, `head` (its top), eyes and ears are single vertices of the surface.

    Args:
        landmark_vertices: The vertex of each of the surface's joints.
    """
    joints = []
    for name in skeleton.joint_names:
        if name in landmark_vertices:
            joints.append(vertices[:, landmark_vertices[name]])
        elif name == "pelvis":
            hips = [SMPL_24.index("left_hip"), SMPL_24.index("right_hip")]
            joints.append(smpl_joints[:, hips].mean(axis=1))
        else:
            joints.append(smpl_joints[:, SMPL_24.index(SMPL_JOINT_OF.get(name, name))])
    return np.stack(joints, axis=1)


def _convex_weights(
    points: Float[ndarray, "sample vertex 3"],
    targets: Float[ndarray, "sample 3"],
    candidates: Int[ndarray, " candidate"],
    partner: Int[ndarray, " vertex"],
) -> Float[ndarray, " vertex"]:
    """Non-negative weights that sum to one; a vertex and its `partner` weigh the same."""
    from scipy.optimize import nnls

    paired = np.unique(np.minimum(candidates, partner[candidates]))
    columns = 0.5 * (points[:, paired] + points[:, partner[paired]])
    matrix = columns.transpose(0, 2, 1).reshape(-1, len(paired))
    sum_row = SUM_TO_ONE_WEIGHT * np.sqrt(len(points)) * np.ones((1, len(paired)))
    solution, _ = nnls(
        np.concatenate([matrix, sum_row]),
        np.concatenate([targets.ravel(), sum_row[0, :1]]),
        maxiter=50 * len(paired),
    )
    result = np.zeros(len(partner))
    np.add.at(result, paired, 0.5 * solution)
    np.add.at(result, partner[paired], 0.5 * solution)
    return result / result.sum()


def _vertices_around(
    joint: int, weights: Float[ndarray, "vertex 24"], is_candidate: Bool[ndarray, " vertex"]
) -> Int[ndarray, " near_vertex"]:
    """Vertices skinned to the joint, its parent or its children: near it in every pose."""
    hops = np.array(SMPL_24.hop_distances()[joint])
    return np.flatnonzero((weights[:, hops <= 1].sum(axis=1) > 0.3) & is_candidate)


def _pairing(joint_name: str, mirror_vertex: Int[ndarray, " vertex"]) -> Int[ndarray, " vertex"]:
    """A midline joint pairs each vertex with its mirror image, a limb's joint with itself."""
    return np.arange(len(mirror_vertex)) if joint_name.startswith("left_") else mirror_vertex


def _mirrored_rows(
    regressor: Float[ndarray, "joint vertex"], skeleton: Skeleton, mirror_vertex: Int[ndarray, " vertex"]
) -> Float[ndarray, "joint vertex"]:
    result = regressor.copy()
    for row, name in enumerate(skeleton.joint_names):
        if name.startswith("right_"):
            result[row] = regressor[skeleton.mirror_permutation[row], mirror_vertex]
    return result
