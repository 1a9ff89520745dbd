import pytest
import torch

from core.residual_mlp import ResidualMlp
from core.rotations import rot6d_to_rotmat
from core.skeleton import SMPL_24
from mesh_head.mesh_recovery import MeshRecovery
from mesh_head.smpl_head import FACING_CAMERA, FlattenedSmplHead, RotationFrame, SmplHead

SLIM = {"num_tokens": 17, "dim_representation": 24, "dim_token": 8, "dim_hidden": 32, "num_betas": 10}
FRAMES = pytest.mark.parametrize("frame", ["crop", "parent"])


@FRAMES
def test_untrained_head_predicts_the_mean_pose_facing_the_camera(frame: RotationFrame) -> None:
    torch.manual_seed(0)
    head = SmplHead(**SLIM, rotation_frame=frame)
    mean_pose = rot6d_to_rotmat(torch.randn(23, 6))
    head.set_mean_pose(mean_pose)
    parameters = head(torch.zeros(2, 5, 17, 24))
    assert parameters.root_rotmat.shape == (2, 5, 3, 3)
    assert parameters.betas.shape == (2, 1, 10)
    torch.testing.assert_close(
        parameters.root_rotmat, torch.tensor(FACING_CAMERA).expand(2, 5, 3, 3), atol=0.2, rtol=0
    )
    torch.testing.assert_close(parameters.body_rotmat, mean_pose.expand(2, 5, 23, 3, 3), atol=0.2, rtol=0)


@FRAMES
def test_mean_pose_model_repeats_the_mean_pose(frame: RotationFrame) -> None:
    head = SmplHead(**SLIM, rotation_frame=frame)
    mean_pose = rot6d_to_rotmat(torch.randn(23, 6))
    head.set_mean_pose(mean_pose)
    parameters = head.mean_pose_model()(torch.randn(3, 4, 17, 3))
    torch.testing.assert_close(parameters.body_rotmat, mean_pose.expand(3, 4, 23, 3, 3))
    torch.testing.assert_close(parameters.root_rotmat[0, 0], torch.tensor(FACING_CAMERA))
    assert not parameters.betas.any()


@FRAMES
def test_rotations_are_rotations_and_gradients_finite(frame: RotationFrame) -> None:
    torch.manual_seed(0)
    head = SmplHead(**SLIM, rotation_frame=frame)
    features = torch.randn(2, 3, 17, 24, requires_grad=True)
    parameters = head(features)
    product = parameters.rotmat @ parameters.rotmat.transpose(-1, -2)
    torch.testing.assert_close(product, torch.eye(3).expand_as(product), atol=1e-5, rtol=0)
    (parameters.rotmat.sum() + parameters.betas.sum()).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad.abs().max() > 0


def test_a_joint_in_the_crop_frame_is_its_own() -> None:
    """Where one joint's offset changes, only it and its children turn against their parents."""
    head = SmplHead(**SLIM, rotation_frame="crop")
    knee = SMPL_24.joint_names.index("left_knee")
    features = torch.zeros(1, 1, 17, 24)
    before = head(features).rotmat
    with torch.no_grad():
        head.pose.linear.bias[6 * knee] += 0.3
    turned = (head(features).rotmat - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
    assert set(turned.nonzero().flatten().tolist()) == {knee, SMPL_24.parents.index(knee)}


@pytest.mark.parametrize("is_slim", [True, False])
def test_rotations_are_of_their_frame_and_betas_of_all(is_slim: bool) -> None:
    torch.manual_seed(0)
    sizes = {"num_tokens": 17, "dim_representation": 24, "dim_hidden": 32, "num_betas": 10}
    head = (SmplHead(**sizes, dim_token=8) if is_slim else FlattenedSmplHead(**sizes, dropout=0.1)).eval()
    features = torch.randn(2, 5, 17, 24)
    before = head(features)
    for frame in (0, 4):
        changed = features.clone()
        changed[:, frame] = torch.randn(2, 17, 24)
        after = head(changed)
        turned = (after.rotmat - before.rotmat).abs().amax(dim=(-1, -2)) > 1e-5
        expected = torch.zeros_like(turned)
        expected[:, frame] = True
        assert torch.equal(turned, expected)
        assert (after.betas - before.betas).abs().amin() > 1e-6
    backwards = head(features.flip(1))
    torch.testing.assert_close(backwards.rotmat, before.rotmat.flip(1))
    torch.testing.assert_close(backwards.betas, before.betas)


def test_slim_head_is_below_two_million_parameters_and_motionberts_is_eighteen() -> None:
    slim = SmplHead(num_tokens=17, dim_representation=512, dim_token=64, dim_hidden=512, num_betas=10)
    flattened = FlattenedSmplHead(
        num_tokens=17, dim_representation=512, dim_hidden=1024, dropout=0.1, num_betas=10
    )
    assert sum(p.numel() for p in slim.parameters()) < 2_000_000
    assert 17_500_000 < sum(p.numel() for p in flattened.parameters()) < 18_500_000
    assert flattened(torch.randn(2, 3, 17, 512)).body_rotmat.shape == (2, 3, 23, 3, 3)


@pytest.mark.parametrize("size", [0, -8])
@pytest.mark.parametrize("key", SLIM)
def test_sizes_that_make_no_head_are_refused(key: str, size: int) -> None:
    sentence = rf"^head\.{key} must be a whole number of at least 1, not {size}\.$"
    with pytest.raises(ValueError, match=sentence):
        SmplHead(**SLIM | {key: size})
    if key != "dim_token":
        flattened = {name: value for name, value in SLIM.items() if name != "dim_token"}
        with pytest.raises(ValueError, match=sentence):
            FlattenedSmplHead(**flattened | {key: size}, dropout=0.1)


def test_a_dropout_that_leaves_nothing_is_refused() -> None:
    flattened = {name: value for name, value in SLIM.items() if name != "dim_token"}
    for dropout in (-0.1, 1.0):
        with pytest.raises(
            ValueError, match=r"^head\.dropout must be a number of at least 0 and below 1, not"
        ):
            FlattenedSmplHead(**flattened, dropout=dropout)


def test_residual_mlp_takes_its_own_clip_length_alone() -> None:
    mlp = ResidualMlp(
        num_joints=17, in_channels=3, num_frames=9, dim_hidden=32, num_blocks=2, dim_representation=16
    )
    head = SmplHead(num_tokens=1, dim_representation=16, dim_token=16, dim_hidden=32, num_betas=10)
    assert MeshRecovery(backbone=mlp, head=head)(torch.randn(4, 9, 17, 3)).root_rotmat.shape == (4, 9, 3, 3)
    with pytest.raises(ValueError, match="9 frames, not 8"):
        mlp(torch.randn(4, 8, 17, 3))
