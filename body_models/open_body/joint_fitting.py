"""Joint regressors: sparse convex combinations of vertices."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from body_models.open_body.shape_space import ShapeSpace
from core.skeleton import SMPL_24, Skeleton

MEAN_WEIGHT = 30.0  # the template's joints are met exactly, the shape directions as well as possible
SUM_TO_ONE_WEIGHT = 100.0
MAX_VERTICES_PER_JOINT = 16


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """Vertices that skeletons' surface joints are defined by."""

    nose_tip: int
    head_top: int
    left_eye: int
    left_ear: int

    def vertex_ids(self) -> dict[str, int]:
        return {
            "nose": self.nose_tip,
            "head": self.head_top,
            "left_eye": self.left_eye,
            "left_ear": self.left_ear,
        }


def fit_rest_joints(
    shape_space: ShapeSpace,
    template_joints: Float[ndarray, "24 3"],
    joint_directions: Float[ndarray, "24 3 num_betas"],
    weights: Float[ndarray, "vertex 24"],
    mirror_vertex: Int[ndarray, " vertex"],
    is_candidate: ndarray,
) -> Float[ndarray, "24 vertex"]:
    """SMPL's `J_regressor` by non-negative least squares on the template and the shape directions.

    Signed weights would fit closer but explode away from the fitted people. A joint's vertices are those skinned to
    its neighbourhood in the tree, so that the regressor stays meaningful on a part of the body.
    """
    basis = np.concatenate([MEAN_WEIGHT * shape_space.mean[..., None], shape_space.directions], axis=-1)
    targets = np.concatenate([MEAN_WEIGHT * template_joints[..., None], joint_directions], axis=-1)
    hops = np.array(SMPL_24.hop_distances())
    regressor = np.zeros((SMPL_24.num_joints, len(weights)))
    for joint, name in enumerate(SMPL_24.joint_names):
        if name.startswith("right_"):
            continue
        near = weights[:, hops[joint] <= 2].sum(axis=1) > 0.3
        regressor[joint] = _convex_weights(
            basis.transpose(2, 0, 1),
            targets[joint].T,
            np.flatnonzero(near & is_candidate),
            _pairing(name, mirror_vertex),
        )
    return _mirrored_rows(regressor, SMPL_24, mirror_vertex)


def fit_skeleton_joints(
    skeleton: Skeleton,
    vertices: Float[ndarray, "sample vertex 3"],
    smpl_joints: Float[ndarray, "sample 24 3"],
    landmarks: Landmarks,
    weights: Float[ndarray, "vertex 24"],
    mirror_vertex: Int[ndarray, " vertex"],
    is_candidate: ndarray,
) -> Float[ndarray, "joint vertex"]:
    """A skeleton's joints from the vertices of posed people.

    Limb joints are SMPL's joint centres; `pelvis` is the mean of the hips, `spine` SMPL's spine2, `thorax` SMPL's
    neck (the neck's base); `nose`, `head` (its top), eyes and ears are single vertices of the surface.

    Args:
        vertices: Posed people.
        smpl_joints: Their joint centres.
    """
    surface = landmarks.vertex_ids()
    source_of = {"spine": "spine2", "thorax": "neck"}
    hops = np.array(SMPL_24.hop_distances())
    regressor = np.zeros((skeleton.num_joints, len(weights)))
    for row, name in enumerate(skeleton.joint_names):
        if name in surface:
            regressor[row, surface[name]] = 1.0
        elif name != "pelvis" and not name.startswith("right_"):
            joint = SMPL_24.index(source_of.get(name, name))
            # Only vertices skinned to the bones on both sides of the joint are near it in every pose.
            near = np.flatnonzero((weights[:, hops[joint] <= 1].sum(axis=1) > 0.3) & is_candidate)
            # Relative to the joint, the sum-to-one row makes the problem homogeneous and well scaled.
            offsets = vertices - smpl_joints[:, joint, None]
            pairing = _pairing(name, mirror_vertex)
            zeros = np.zeros((len(offsets), 3))
            dense = _convex_weights(offsets, zeros, near, pairing)
            best = np.argsort(dense)[::-1][:MAX_VERTICES_PER_JOINT]
            regressor[row] = _convex_weights(offsets, zeros, np.sort(best[dense[best] > 0]), pairing)
    regressor = _mirrored_rows(regressor, skeleton, mirror_vertex)
    if "pelvis" in skeleton.joint_names:
        hips = [skeleton.index("left_hip"), skeleton.index("right_hip")]
        regressor[skeleton.index("pelvis")] = regressor[hips].mean(axis=0)
    return regressor


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
