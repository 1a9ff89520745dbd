"""The seeded arrays behind tests/golden/*.json: what was put through each protocol's reference implementation.

`predicted` and `true` are metres. The joints stand for SMPL's 24 and for Human3.6M's 17, right leg first, as
regressed from the vertices.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

NUM_VERTICES, NUM_FRAMES, SEED = 6890, 12, 20240917


@dataclass(frozen=True)
class GoldenArrays:
    h36m_regressor: np.ndarray  # (17, V)
    smpl_regressor: np.ndarray  # (24, V)
    predicted_vertices: np.ndarray  # (T, V, 3)
    true_vertices: np.ndarray
    predicted_smpl_joints: (
        np.ndarray
    )  # (T, 24, 3), near what smpl_regressor gives, as a kinematic chain's are
    true_smpl_joints: np.ndarray


@cache
def golden_arrays() -> GoldenArrays:
    """A cloud of a person's size that turns and sways, and a prediction some centimetres off."""
    rng = np.random.default_rng(SEED)
    template = rng.normal(size=(NUM_VERTICES, 3)) * (0.25, 0.5, 0.15)
    regressors = np.zeros((41, NUM_VERTICES))
    for row in regressors:
        row[rng.integers(NUM_VERTICES, size=3)] = (0.5, 0.3, 0.2)
    h36m_regressor, smpl_regressor = regressors[:17], regressors[17:]
    time = np.arange(NUM_FRAMES)[:, None, None]
    true = template @ _rotmat(0.1 * time[:, 0, 0], axis=1)
    true = true + 0.1 * np.sin(0.7 * time + 3 * template)
    predicted = (1 + 0.03 * np.cos(time)) * true @ _rotmat(0.2 * np.sin(time[:, 0, 0]), axis=0)
    predicted = predicted + rng.normal(scale=0.03, size=(NUM_FRAMES, 1, 3))
    predicted = predicted + rng.normal(scale=0.04, size=predicted.shape)
    chain = rng.normal(scale=0.02, size=(2, NUM_FRAMES, 24, 3))
    return GoldenArrays(
        h36m_regressor,
        smpl_regressor,
        predicted,
        true,
        smpl_regressor @ predicted + chain[0],
        smpl_regressor @ true + chain[1],
    )


def _rotmat(angles: np.ndarray, axis: int) -> np.ndarray:
    """(T, 3, 3) turns about a coordinate axis."""
    i, j = [k for k in range(3) if k != axis]
    rotmats = np.tile(np.eye(3), (len(angles), 1, 1))
    rotmats[:, i, i] = rotmats[:, j, j] = np.cos(angles)
    rotmats[:, i, j], rotmats[:, j, i] = -np.sin(angles), np.sin(angles)
    return rotmats
