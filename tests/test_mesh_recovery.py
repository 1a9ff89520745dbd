"""The model as it is used: mirror images averaged, betas where they mean something."""

import pytest
import roma
import torch

from body_models.open_body import load_open_body
from body_models.parameters import BodyParameters
from core.residual_mlp import ResidualMlp
from core.rotations import geodesic_angle
from core.skeleton import SMPL_24
from core.ssr_stf.lifting import mirrored
from mesh_head.mesh_recovery import InferenceModel, MeshRecovery, mirrored_parameters
from mesh_head.smpl_head import SmplHead


def model() -> MeshRecovery:
    torch.manual_seed(0)
    backbone = ResidualMlp(
        num_joints=17, in_channels=3, num_frames=5, dim_hidden=32, num_blocks=1, dim_representation=16
    )
    head = SmplHead(num_tokens=1, dim_representation=16, dim_token=16, dim_hidden=32, num_betas=10)
    for linear in (head.pose.linear, head.betas):
        torch.nn.init.normal_(linear.weight, std=0.3)
    return MeshRecovery(backbone=backbone, head=head).eval()


def test_a_mirrored_pose_has_mirrored_joints() -> None:
    body = load_open_body().double()
    torch.manual_seed(0)
    rotmat = roma.rotvec_to_rotmat(0.5 * torch.randn(3, 24, 3, dtype=torch.float64))
    betas = torch.randn(3, 10, dtype=torch.float64)
    pose = BodyParameters(rotmat[:, 0], rotmat[:, 1:], betas, torch.zeros(3, 3, dtype=torch.float64))
    joints_m, other_m = body(pose).joints_m, body(mirrored_parameters(pose)).joints_m
    swapped_m = joints_m[:, list(SMPL_24.mirror_permutation)] * torch.tensor([-1.0, 1.0, 1.0])
    # The open body is symmetric to a fraction of a millimetre.
    assert (other_m - swapped_m).abs().max() < 1e-3
    again = mirrored_parameters(mirrored_parameters(pose))
    torch.testing.assert_close(again.body_rotmat, pose.body_rotmat, atol=0, rtol=0)


@torch.no_grad()
def test_averaged_with_its_mirror_image_a_model_treats_both_sides_alike() -> None:
    averaged = InferenceModel(model(), with_betas=True, mirror_test=True)
    keypoints = torch.randn(2, 5, 17, 3)
    found, of_mirror_image = averaged(keypoints), averaged(mirrored(keypoints))
    expected = mirrored_parameters(found)
    assert geodesic_angle(of_mirror_image.root_rotmat, expected.root_rotmat).max() < 1e-3
    assert geodesic_angle(of_mirror_image.body_rotmat, expected.body_rotmat).max() < 1e-3
    torch.testing.assert_close(of_mirror_image.betas, found.betas)
    plain = model()(keypoints)
    assert geodesic_angle(plain.body_rotmat, found.body_rotmat).max() > 0.05


@torch.no_grad()
@pytest.mark.parametrize("mirror_test", [False, True])
def test_without_betas_a_model_gives_the_mean_shape(mirror_test: bool) -> None:
    keypoints = torch.randn(2, 5, 17, 3)
    with_betas, without = (
        InferenceModel(model(), with_betas=with_betas, mirror_test=mirror_test)(keypoints)
        for with_betas in (True, False)
    )
    assert with_betas.betas.any()
    assert not without.betas.any()
    torch.testing.assert_close(without.body_rotmat, with_betas.body_rotmat)
