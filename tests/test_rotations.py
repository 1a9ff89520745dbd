"""Rotations: round trips at large and tiny angles, golden layouts, finite gradients, batch shapes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import roma
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import core.rotations
from core.rotations import (
    chordal_mean,
    geodesic_angle,
    mean_rotmat,
    mirror_rotmat,
    mirror_rotvec,
    nearest_rotation,
    rot6d_to_rotmat,
    rotmat_along_chain,
    rotmat_from_parent,
    rotmat_to_euler_zxy,
    rotmat_to_quaternion,
    rotmat_to_rot6d,
    rotmat_to_rotvec,
    rotvec_to_rotmat,
)
from core.skeleton import SMPL_24

BATCH_SHAPES = [(), (10,), (23, 5), (0,)]


def random_rotvec(*batch: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(*batch, 3, generator=generator, dtype=torch.float64)).to(dtype)


def random_rotmat(*batch: int) -> Tensor:
    return rotvec_to_rotmat(random_rotvec(*batch, scale=2.0))


def test_quaternions_are_scipys_up_to_their_sign() -> None:
    rotmat = random_rotmat(50)
    quaternions = rotmat_to_quaternion(rotmat)
    products = (quaternions * torch.from_numpy(Rotation.from_matrix(rotmat.numpy()).as_quat())).sum(-1)
    torch.testing.assert_close(products.abs(), torch.ones_like(products))
    assert rotmat_to_quaternion(torch.eye(3)).tolist() == [0, 0, 0, 1]
    half_turn = rotmat_to_quaternion(torch.diag(torch.tensor([-1.0, 1.0, -1.0])))
    torch.testing.assert_close(half_turn.abs(), torch.tensor([0.0, 1.0, 0.0, 0.0]))


def test_euler_angles_are_scipys_and_give_the_rotation_back() -> None:
    rotmat = random_rotmat(50)
    angles = rotmat_to_euler_zxy(rotmat)
    np.testing.assert_allclose(angles, Rotation.from_matrix(rotmat.numpy()).as_euler("ZXY"), atol=1e-9)
    locked = torch.from_numpy(Rotation.from_euler("ZXY", [[0.7, np.pi / 2, 0.4]]).as_matrix())
    again = Rotation.from_euler("ZXY", rotmat_to_euler_zxy(locked).numpy()).as_matrix()
    np.testing.assert_allclose(again, locked, atol=1e-6)
    assert rotmat_to_euler_zxy(torch.eye(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_batch_shapes(batch: tuple[int, ...]) -> None:
    rotvec = random_rotvec(*batch)
    rotmat = rotvec_to_rotmat(rotvec)
    assert rotmat.shape == (*batch, 3, 3)
    assert rotmat_to_rotvec(rotmat).shape == (*batch, 3)
    assert rotmat_to_rot6d(rotmat).shape == (*batch, 6)
    assert rot6d_to_rotmat(rotmat_to_rot6d(rotmat)).shape == (*batch, 3, 3)
    assert mirror_rotvec(rotvec).shape == (*batch, 3)
    assert mirror_rotmat(rotmat).shape == (*batch, 3, 3)
    assert geodesic_angle(rotmat, rotmat).shape == batch
    assert geodesic_angle(rotmat, torch.eye(3, dtype=torch.float64)).shape == batch


@pytest.mark.parametrize("scale", [10.0, 1.0, 1e-3, 1e-7, 0.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rotvec_to_rotmat_equals_scipy(scale: float, dtype: torch.dtype) -> None:
    rotvec = random_rotvec(100, scale=scale, dtype=dtype)
    expected = Rotation.from_rotvec(rotvec.double().numpy()).as_matrix()
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(
        rotvec_to_rotmat(rotvec).double(), torch.from_numpy(expected), atol=tolerance * max(scale, 1), rtol=0
    )


@pytest.mark.parametrize("scale", [10.0, 1.0, 1e-3, 1e-7, 0.0])
def test_round_trip_from_rotmat_through_rotvec(scale: float) -> None:
    rotmat = rotvec_to_rotmat(random_rotvec(100, scale=scale))
    torch.testing.assert_close(rotvec_to_rotmat(rotmat_to_rotvec(rotmat)), rotmat, atol=1e-12, rtol=0)
    assert rotmat_to_rotvec(rotmat).norm(dim=-1).max() <= math.pi + 1e-12


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-7])
def test_round_trip_from_rotvec_through_rotmat(scale: float) -> None:
    rotvec = random_rotvec(100, scale=scale)
    rotvec = rotvec * (rotvec.norm(dim=-1, keepdim=True).clamp_max(3.0) / rotvec.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(rotmat_to_rotvec(rotvec_to_rotmat(rotvec)), rotvec, atol=1e-13, rtol=1e-7)


@pytest.mark.parametrize("scale", [10.0, 1.0, 1e-3, 0.0])
def test_gradient_of_rotvec_to_rotmat_equals_romas(scale: float) -> None:
    rotvec = random_rotvec(50, scale=scale)
    weights = random_rotmat(50)

    def gradient(conversion: Callable[[Tensor], Tensor]) -> Tensor:
        leaf = rotvec.clone().requires_grad_()
        return torch.autograd.grad((conversion(leaf) * weights).sum(), leaf)[0]

    torch.testing.assert_close(gradient(rotvec_to_rotmat), gradient(roma.rotvec_to_rotmat), atol=1e-9, rtol=0)


def test_rot6d_is_the_first_two_columns_one_after_the_other() -> None:
    rotmat = random_rotmat()
    golden = torch.stack([rotmat[0, 0], rotmat[1, 0], rotmat[2, 0], rotmat[0, 1], rotmat[1, 1], rotmat[2, 1]])
    assert torch.equal(rotmat_to_rot6d(rotmat), golden)
    quarter_turn_about_z = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert rotmat_to_rot6d(quarter_turn_about_z).tolist() == [0, 1, 0, -1, 0, 0]
    torch.testing.assert_close(
        rot6d_to_rotmat(torch.tensor([0.0, 1, 0, -1, 0, 0])), quarter_turn_about_z, atol=0, rtol=0
    )


def test_rot6d_round_trip_and_gram_schmidt() -> None:
    rotmat = random_rotmat(100)
    torch.testing.assert_close(rot6d_to_rotmat(rotmat_to_rot6d(rotmat)), rotmat)
    first, second = rotmat[..., 0], rotmat[..., 1]
    skewed = torch.cat([3 * first, 0.2 * second - 5 * first], dim=-1)
    torch.testing.assert_close(rot6d_to_rotmat(skewed), rotmat)


def test_mirroring_twice_changes_nothing() -> None:
    rotvec = random_rotvec(20)
    torch.testing.assert_close(mirror_rotvec(mirror_rotvec(rotvec)), rotvec)
    torch.testing.assert_close(
        mirror_rotmat(mirror_rotmat(rotvec_to_rotmat(rotvec))), rotvec_to_rotmat(rotvec)
    )


def test_mirrored_rotation_is_the_rotation_in_the_mirror() -> None:
    rotvec, points = random_rotvec(20), random_rotvec(20) + 1
    mirror = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    rotmat = rotvec_to_rotmat(rotvec)
    seen_in_mirror = (rotmat @ (points * mirror)[..., None])[..., 0] * mirror
    torch.testing.assert_close((mirror_rotmat(rotmat) @ points[..., None])[..., 0], seen_in_mirror)
    torch.testing.assert_close(rotvec_to_rotmat(mirror_rotvec(rotvec)), mirror_rotmat(rotmat))


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, math.pi - 1e-6, math.pi])
def test_geodesic_angle_is_accurate_from_zero_to_pi(angle: float) -> None:
    axis = torch.nn.functional.normalize(random_rotvec(50), dim=-1)
    start = random_rotmat(50)
    measured = geodesic_angle(start, start @ rotvec_to_rotmat(angle * axis))
    torch.testing.assert_close(measured, torch.full_like(measured, angle), atol=2e-15 + 1e-12, rtol=0)
    single = geodesic_angle(start.float(), (start @ rotvec_to_rotmat(angle * axis)).float())
    torch.testing.assert_close(single, torch.full_like(single, angle), atol=1e-6, rtol=0)


def test_gradients_are_finite_at_degenerate_inputs() -> None:
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    for function, degenerate in (
        (rotvec_to_rotmat, torch.zeros(3)),
        (rotmat_to_rotvec, torch.eye(3)),
        (rotmat_to_rotvec, half_turn),
        (rot6d_to_rotmat, torch.zeros(6)),
        (rot6d_to_rotmat, torch.ones(6)),
        (lambda rotmat: geodesic_angle(rotmat, torch.eye(3)), torch.eye(3)),
        (lambda rotmat: geodesic_angle(rotmat, torch.eye(3)), half_turn),
        (lambda rotmat: chordal_mean(rotmat, 0), torch.stack([torch.eye(3), half_turn])),
        (lambda rotmat: chordal_mean(rotmat, 0), torch.zeros(2, 3, 3)),
    ):
        leaf = degenerate.clone().requires_grad_()
        result = function(leaf)
        assert result.isfinite().all()
        result.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all(), function


def test_the_nearest_rotation_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = torch.randn(7, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = nearest_rotation(matrices)
    monkeypatch.setattr(core.rotations, "_DECOMPOSED_AT_ONCE", 4)
    torch.testing.assert_close(nearest_rotation(matrices), whole, atol=1e-14, rtol=0)
    turned = rotvec_to_rotmat(torch.randn(100, 3, dtype=torch.float64))
    distance = (whole[0, 0] - matrices[0, 0]).norm()
    assert ((turned @ whole[0, 0] - matrices[0, 0]).flatten(1).norm(dim=1) >= distance).all()
    assert nearest_rotation(matrices[:0]).shape == (0, 3, 3, 3)


def test_the_mean_of_many_frames_is_that_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rotvec = 0.8 * torch.randn(70, 5, 3, generator=torch.Generator().manual_seed(0))
    at_once = chordal_mean(rotvec_to_rotmat(rotvec.double()), dim=0).float()
    assert len(rotvec) > 2 * 16  # several parts, the last of them shorter
    monkeypatch.setattr(core.rotations, "_AVERAGED_AT_ONCE", 16)
    torch.testing.assert_close(mean_rotmat(rotvec), at_once)


def test_chordal_mean_of_equal_rotations_and_of_opposite_turns() -> None:
    rotmat = random_rotmat(4)
    repeated = rotmat[:, None].expand(4, 7, 3, 3)
    torch.testing.assert_close(chordal_mean(repeated, 1), rotmat)
    torch.testing.assert_close(chordal_mean(repeated, -1), rotmat)
    turn = random_rotvec(5, scale=0.5)
    both_ways = rotvec_to_rotmat(torch.stack([turn, -turn]))
    identity = torch.eye(3, dtype=torch.float64).expand(5, 3, 3)
    torch.testing.assert_close(chordal_mean(both_ways, 0), identity)


def test_chordal_mean_is_the_least_squares_rotation() -> None:
    rotmat = rotvec_to_rotmat(random_rotvec(9, scale=0.7))
    weights = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def cost(mean: Tensor) -> Tensor:
        return (weights * (rotmat - mean).square().sum((-1, -2))).sum()

    mean = chordal_mean(rotmat, 0, weights)
    torch.testing.assert_close(mean @ mean.T, torch.eye(3, dtype=torch.float64))
    for step in random_rotvec(20, scale=0.01):
        assert cost(mean) < cost(mean @ rotvec_to_rotmat(step))


def test_chordal_mean_ignores_weightless_rotations() -> None:
    rotmat = random_rotmat(2, 3)
    weights = torch.tensor([[1.0, 0, 0], [0, 0.1, 0]], dtype=torch.float64)
    expected = torch.stack([rotmat[0, 0], rotmat[1, 1]])
    torch.testing.assert_close(chordal_mean(rotmat, 1, weights), expected)


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_chains_and_back(batch: tuple[int, ...]) -> None:
    parents = SMPL_24.parents
    relative = random_rotmat(*batch, 24)
    chained = rotmat_along_chain(relative, parents)
    assert chained.shape == relative.shape
    wrist = SMPL_24.joint_names.index("left_wrist")
    above = [wrist]
    while parents[above[-1]] >= 0:
        above.append(parents[above[-1]])
    by_hand = torch.eye(3, dtype=torch.float64).expand(*batch, 3, 3)
    for joint in reversed(above):
        by_hand = by_hand @ relative[..., joint, :, :]
    torch.testing.assert_close(chained[..., wrist, :, :], by_hand)
    torch.testing.assert_close(rotmat_from_parent(chained, parents), relative)
