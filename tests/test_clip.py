"""Normalisation of clips and its inverse."""

import pytest
import torch

from core.camera import assumed_intrinsics, project
from core.keypoints.clip import denormalise, normalise_clip
from core.skeleton import H36M_17

# A standing person, metres, y down, pelvis at the origin; H36M_17.
STANDING = torch.tensor(
    [[0, 0, 0], [-0.1, 0, 0], [-0.11, 0.42, 0], [-0.12, 0.84, 0], [0.1, 0, 0], [0.11, 0.42, 0],
     [0.12, 0.84, 0], [0, -0.25, 0], [0, -0.5, 0], [0, -0.63, 0], [0, -0.78, 0], [0.17, -0.48, 0],
     [0.24, -0.2, 0], [0.25, 0.05, 0], [-0.17, -0.48, 0], [-0.24, -0.2, 0], [-0.25, 0.05, 0]]
)  # fmt: skip


def clips(num_clips: int, dtype: torch.dtype = torch.float64):
    """People who move a little, all over pictures of a skewed, uneven camera."""
    generator = torch.Generator().manual_seed(0)
    K = torch.tensor([[1200.0, 5.0, 960.0], [0.0, 1000.0, 540.0], [0.0, 0.0, 1.0]], dtype=dtype)
    place = torch.rand(num_clips, 1, 1, 3, generator=generator, dtype=dtype) * 2 - 1
    place = place * torch.tensor([2.0, 1.0, 1.0], dtype=dtype) + torch.tensor([0.0, 0.0, 5.0], dtype=dtype)
    motion = 0.05 * torch.randn(num_clips, 9, 17, 3, generator=generator, dtype=dtype)
    K = K.expand(num_clips, 3, 3)
    keypoints_px = project(STANDING.to(dtype) + place + motion, K[:, None])
    confidence = torch.rand(num_clips, 9, 17, generator=generator, dtype=dtype) * 0.5 + 0.5
    return keypoints_px, confidence, K


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-2)])
def test_denormalise_is_the_exact_inverse(dtype, atol):
    keypoints_px, confidence, K = clips(20, dtype)
    confidence[:, :, 3] = 0
    clip = normalise_clip(keypoints_px, confidence, K)
    assert clip.keypoints.dtype == clip.scale.dtype == dtype
    back = denormalise(clip, K)
    seen = confidence > 0
    torch.testing.assert_close(back[seen], keypoints_px[seen], atol=atol, rtol=0)
    assert torch.equal(clip.keypoints[..., 2], confidence)
    assert (clip.keypoints[:, :, 3] == 0).all()


def test_a_standing_person_spans_about_minus_one_to_one():
    keypoints_px, confidence, K = clips(50)
    clip = normalise_clip(keypoints_px, confidence, K)
    y = clip.keypoints[..., 1]
    top, ankles = y[..., H36M_17.index("head")].mean(), y[..., H36M_17.index("left_ankle")].mean()
    assert -1.1 < top < -0.8
    assert 0.8 < ankles < 1.2
    assert clip.keypoints[..., :2].mean(dim=(1, 2)).abs().max() < 0.1


def test_the_clip_does_not_know_its_picture():
    """The same rays through any camera and any picture size give the same clip."""
    keypoints_px, confidence, K = clips(5)
    zoom_and_shift = torch.tensor([[3.0, 0.0, 77.0], [0.0, 2.0, -30.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    other_px = keypoints_px @ zoom_and_shift[:2, :2] + zoom_and_shift[:2, 2]
    one, other = (
        normalise_clip(keypoints_px, confidence, K),
        normalise_clip(other_px, confidence, zoom_and_shift @ K),
    )
    torch.testing.assert_close(one.keypoints, other.keypoints)
    torch.testing.assert_close(one.R_crop_cam, other.R_crop_cam)
    torch.testing.assert_close(one.scale, other.scale)


def test_crop_frame_is_that_of_a_person_in_the_middle():
    """Turning the camera towards the person changes the pixels, not the clip: what the rotation is for."""
    keypoints_px, confidence, K = clips(5)
    clip = normalise_clip(keypoints_px, confidence, K)
    points = torch.cat(
        [clip.keypoints[..., :2] * clip.scale[:, None, None, None], torch.ones(5, 9, 17, 1)], dim=-1
    )
    centred = normalise_clip(project(points, K[:, None]), confidence, K)
    # Not exactly: the mean of points in the picture's plane is not that in the crop's.
    torch.testing.assert_close(centred.keypoints, clip.keypoints, atol=0.01, rtol=0)
    identity = torch.eye(3, dtype=torch.float64).expand(5, 3, 3)
    torch.testing.assert_close(centred.R_crop_cam, identity, atol=0.002, rtol=0)


def test_a_few_wild_keypoints_hardly_move_centre_and_scale():
    keypoints_px, confidence, K = clips(20)
    calm = normalise_clip(keypoints_px, confidence, K)
    wild_px = keypoints_px.clone()
    wild_px[:, ::3, 5] = torch.tensor([9000.0, -7000.0], dtype=torch.float64)  # 2 % of all
    wild = normalise_clip(wild_px, confidence, K)
    ratio = wild.scale / calm.scale
    assert ratio.min() > 0.9
    assert ratio.max() < 1.12
    angle = torch.rad2deg((calm.R_crop_cam[:, 2] * wild.R_crop_cam[:, 2]).sum(-1).clamp(max=1).acos())
    assert angle.max() < 1.0


def test_missing_clip_is_all_zeros_in_the_cameras_frame():
    keypoints_px, confidence, K = clips(2)
    keypoints_px[0], confidence[0] = torch.nan, 0.0
    clip = normalise_clip(keypoints_px, confidence, K)
    assert (clip.keypoints[0] == 0).all()
    assert clip.scale[0] == 1
    torch.testing.assert_close(clip.R_crop_cam[0], torch.eye(3, dtype=torch.float64))
    alone = normalise_clip(keypoints_px[1:], confidence[1:], K[1:])
    torch.testing.assert_close(clip.keypoints[1], alone.keypoints[0])


@pytest.mark.parametrize("num_seen", [1, 2, 3])
def test_very_few_keypoints_give_a_bounded_clip(num_seen):
    keypoints_px, confidence, K = clips(6)
    confidence[:, 1:] = 0
    confidence[:, 0, num_seen:] = 0
    clip = normalise_clip(keypoints_px, confidence, K)
    assert clip.keypoints.isfinite().all()
    assert clip.keypoints[..., :2].abs().max() < 5
    seen = confidence > 0
    torch.testing.assert_close(denormalise(clip, K)[seen], keypoints_px[seen])


def test_keypoints_beside_the_crop_count_as_unseen():
    """More than 84° from the person's direction there is no place on the crop's plane."""
    K = torch.tensor([[100.0, 0.0, 0.0], [0.0, 100.0, 0.0], [0.0, 0.0, 1.0]]).expand(1, 3, 3)
    keypoints_px = torch.full((1, 4, 17, 2), 150.0) + torch.randn(1, 4, 17, 2)
    keypoints_px[0, 0, 0] = -1e5
    clip = normalise_clip(keypoints_px, torch.ones(1, 4, 17), K)
    assert clip.keypoints[0, 0, 0].tolist() == [0.0, 0.0, 0.0]
    assert (clip.keypoints[..., 2] > 0).sum() == 4 * 17 - 1


def test_gradients_are_finite_also_for_missing_clips():
    keypoints_px, confidence, K = clips(3)
    confidence[0] = 0
    confidence[1, :, 4:] = 0
    keypoints_px[2] = 500.0  # everything in one place
    keypoints_px.requires_grad_()
    clip = normalise_clip(keypoints_px, confidence, K)
    (clip.keypoints.square().sum() + clip.R_crop_cam.sum() + clip.scale.sum()).backward()
    assert keypoints_px.grad.isfinite().all()


def test_any_number_of_joints_and_frames():
    K = assumed_intrinsics((480, 640)).expand(2, 3, 3)
    for num_frames, num_joints in ((1, 26), (5, 3), (1, 1)):
        clip = normalise_clip(
            600 * torch.rand(2, num_frames, num_joints, 2), torch.ones(2, num_frames, num_joints), K
        )
        assert clip.keypoints.shape == (2, num_frames, num_joints, 3)
        assert clip.keypoints.isfinite().all()
