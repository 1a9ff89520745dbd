"""Joint regressors: from all vertices, and from the vertices they need."""

import pytest
import torch
from body_fixtures import random_body_arrays, random_body_parameters
from torch import Tensor

from body_models.joint_regressors import JointRegressor
from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.smpl import SmplBody
from core.skeleton import COCO_17, H36M_17


def sparse_weights(num_vertices: int = 90) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    weights = torch.zeros(17, num_vertices, dtype=torch.float64)
    for joint in range(17):
        vertex_ids = torch.randperm(num_vertices // 2, generator=generator)[:4] * 2
        weights[joint, vertex_ids] = torch.rand(4, dtype=torch.float64, generator=generator)
    return weights / weights.sum(1, keepdim=True)


@pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 3)])
def test_equals_the_dense_product(batch: tuple[int, ...]) -> None:
    weights = sparse_weights()
    vertices_m = torch.randn(*batch, 90, 3, dtype=torch.float64)
    for given in (weights, weights.to_sparse()):
        joints_m = JointRegressor(H36M_17, given)(vertices_m)
        torch.testing.assert_close(joints_m, torch.einsum("jv,...vc->...jc", weights, vertices_m))


def test_restricted_regressor_on_restricted_body_gives_the_same_joints() -> None:
    body = SmplBody.from_arrays(random_body_arrays(), dtype=torch.float64)
    regressor = JointRegressor(H36M_17, sparse_weights())
    assert regressor.support.tolist() == sparse_weights().any(0).nonzero()[:, 0].tolist()
    assert len(regressor.support) < 46
    parameters = random_body_parameters(2, 3)
    restricted_body = body.restricted_to(regressor.support)
    joints_m = regressor.restricted()(restricted_body(parameters).vertices_m)
    torch.testing.assert_close(joints_m, regressor(body(parameters).vertices_m))


def test_wrong_mesh_and_wrong_skeleton_are_refused() -> None:
    regressor = JointRegressor(H36M_17, sparse_weights())
    with pytest.raises(ValueError, match="made for a mesh of 90 vertices, not 6890"):
        regressor(torch.zeros(6890, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="needs 17 rows, one per joint, but the weights have 9"):
        JointRegressor(COCO_17, sparse_weights()[:9])


def test_no_array_enters_a_checkpoint() -> None:
    assert JointRegressor(H36M_17, sparse_weights()).state_dict() == {}


def test_open_body_regressor_finds_the_knees_of_the_open_body() -> None:
    mesh = load_open_body()(random_body_parameters(4, dtype=torch.float32))
    joints_m = load_open_body_regressor("h36m_17")(mesh.vertices_m)
    for side, smpl_knee in (("left", 4), ("right", 5)):
        knee_m = joints_m[:, H36M_17.index(f"{side}_knee")]
        assert (knee_m - mesh.joints_m[:, smpl_knee]).norm(dim=-1).max() < 0.06
