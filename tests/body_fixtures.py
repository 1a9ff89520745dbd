"""A small random body model in SMPL's layout, so that tests of the layer need no model file."""

import numpy as np
import torch

from body_models.parameters import BodyParameters
from core.rotations import rotvec_to_rotmat

SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


def random_body_arrays(num_vertices: int = 90, seed: int = 0, num_betas: int = 10) -> dict[str, np.ndarray]:
    """SMPL's keys, shapes and tree, filled with float64 noise of a body's magnitude; rows sum to one."""
    rng = np.random.default_rng(seed)
    skinning_weights = rng.random((num_vertices, 24)) ** 8
    J_regressor = rng.random((24, num_vertices)) ** 8
    kintree_table = np.array([SMPL_PARENTS, range(24)])
    kintree_table[0, 0] = 2**32 - 1
    return {
        "v_template": rng.normal(scale=0.4, size=(num_vertices, 3)),
        "shapedirs": rng.normal(scale=0.03, size=(num_vertices, 3, num_betas)),
        "posedirs": rng.normal(scale=0.005, size=(num_vertices, 3, 207)),
        "weights": skinning_weights / skinning_weights.sum(axis=1, keepdims=True),
        "J_regressor": J_regressor / J_regressor.sum(axis=1, keepdims=True),
        "f": rng.integers(num_vertices, size=(2 * num_vertices, 3)).astype(np.uint32),
        "kintree_table": kintree_table,
    }


def random_body_parameters(
    *batch: int, seed: int = 0, num_betas: int = 10, dtype: torch.dtype = torch.float64
) -> BodyParameters:
    """Poses of up to about a radian per joint, any root orientation, metres away from the origin."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return BodyParameters(
        root_rotmat=rotvec_to_rotmat(2 * normal(*batch, 3)),
        body_rotmat=rotvec_to_rotmat(0.5 * normal(*batch, 23, 3)),
        betas=normal(*batch, num_betas),
        translation_m=3 * normal(*batch, 3),
    )
