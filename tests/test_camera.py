"""Projection and its inverse, translation from 2D–3D pairs, crop rotations, virtual cameras."""

import math

import pytest
import torch

from core.camera import (
    R_YDOWN_ZUP,
    R_YUP_YDOWN,
    R_YUP_ZUP,
    PinholeCamera,
    VirtualCameraSampler,
    _are_image_sizes,
    assumed_intrinsics,
    look_at_rotation,
    project,
    solve_translation,
    unproject_to_rays,
    world_to_camera,
)

SKEWED_K = torch.tensor([[900.0, 12.0, 640.5], [0.0, 1100.0, 355.25], [0.0, 0.0, 1.0]], dtype=torch.float64)


def bodies(*batch: int, num_joints: int = 17) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.5 * torch.randn(*batch, num_joints, 3, generator=generator, dtype=torch.float64)


def test_turns_between_frames_agree():
    R_yup_ydown, R_ydown_zup, R_yup_zup = map(torch.tensor, (R_YUP_YDOWN, R_YDOWN_ZUP, R_YUP_ZUP))
    assert torch.equal(R_yup_ydown @ R_ydown_zup, R_yup_zup)
    for rotation in (R_yup_ydown, R_ydown_zup, R_yup_zup):
        assert torch.linalg.det(rotation) == 1
    assert (R_yup_zup @ torch.tensor([0.0, 0.0, 1.0])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("batch", [(), (10,), (2, 3)])
def test_projection_round_trip(batch):
    points = bodies(*batch) + torch.tensor([0.3, -0.2, 4.0], dtype=torch.float64)
    K = SKEWED_K.expand(*batch, 3, 3)
    rays = unproject_to_rays(project(points, K), K)
    torch.testing.assert_close(rays * points[..., 2:], points)


def test_projection_by_hand():
    K = torch.tensor([[100.0, 0.0, 50.0], [0.0, 200.0, 60.0], [0.0, 0.0, 1.0]])
    pixel = project(torch.tensor([[1.0, -0.5, 2.0]]), K)
    torch.testing.assert_close(pixel, torch.tensor([[100.0, 10.0]]))


def test_points_at_and_behind_the_lens_stay_finite_with_finite_gradients():
    points = torch.tensor([[0.1, 0.1, 0.0], [0.1, 0.1, -1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    pixels = project(points, SKEWED_K.float())
    pixels.sum().backward()
    assert pixels.isfinite().all()
    assert points.grad.isfinite().all()


def test_pinhole_camera_maps_world_to_camera():
    R = look_at_rotation(torch.tensor([0.3, 0.1, 1.0]))
    t = torch.tensor([0.1, 0.2, 3.0])
    camera = PinholeCamera(K=torch.eye(3), R_cam_world=R, t_cam_world_m=t, image_size=(480, 640))
    point = torch.tensor([0.5, -0.4, 0.3])
    torch.testing.assert_close(camera.world_to_camera(point[None])[0], R @ point + t)


@pytest.mark.parametrize("batch", [(), (7,), (2, 3)])
def test_translation_is_exact_without_noise(batch):
    points = bodies(*batch)
    translation = torch.tensor([0.7, -0.4, 5.0], dtype=torch.float64).expand(*batch, 3)
    K = SKEWED_K.expand(*batch, 3, 3)
    pixels = project(points + translation[..., None, :], K)
    confidence = torch.rand(*batch, 17, dtype=torch.float64) + 0.1
    torch.testing.assert_close(solve_translation(points, pixels, confidence, K), translation)


def test_translation_ignores_joints_of_confidence_zero_even_nan_ones():
    points = bodies(4)
    translation = torch.tensor([0.7, -0.4, 5.0], dtype=torch.float64).expand(4, 3)
    K = SKEWED_K.expand(4, 3, 3)
    pixels = project(points + translation[:, None], K)
    confidence = torch.ones(4, 17, dtype=torch.float64)
    confidence[:, ::3] = 0
    pixels[:, 0] = torch.nan
    pixels[:, 3] = 1e6
    torch.testing.assert_close(solve_translation(points, pixels, confidence, K), translation)


def test_translation_equals_generic_weighted_least_squares():
    points, K = bodies(1)[0], SKEWED_K
    pixels = project(points + torch.tensor([0.2, 0.1, 4.0]), K) + 5 * torch.randn(17, 2, dtype=torch.float64)
    confidence = torch.rand(17, dtype=torch.float64)
    rays = unproject_to_rays(pixels, K)
    rows, targets = [], []
    for (x, y, _), (X, Y, Z), weight in zip(rays, points, confidence.sqrt(), strict=True):
        rows += [weight * torch.stack([x * 0 + 1, x * 0, -x]), weight * torch.stack([x * 0, x * 0 + 1, -y])]
        targets += [weight * (x * Z - X), weight * (y * Z - Y)]
    naive = torch.linalg.lstsq(torch.stack(rows), torch.stack(targets)[:, None]).solution[:, 0]
    torch.testing.assert_close(solve_translation(points, pixels, confidence, K), naive)


def test_translation_in_float32_is_accurate_far_away():
    points = bodies(5).float()
    translation = torch.tensor([1.0, 2.0, 60.0]).expand(5, 3)
    K = assumed_intrinsics((1080, 1920)).expand(5, 3, 3)
    pixels = project(points + translation[:, None], K)
    solved = solve_translation(points, pixels, torch.ones(5, 17), K)
    assert solved.dtype == torch.float32
    torch.testing.assert_close(solved, translation, atol=0.03, rtol=0)


def test_degenerate_translations_raise_or_become_nan():
    points = bodies(4)
    K = SKEWED_K.expand(4, 3, 3)
    pixels = project(points + torch.tensor([0.0, 0.0, 4.0]), K)
    confidence = torch.ones(4, 17, dtype=torch.float64)
    confidence[0] = 0.0  # nothing seen
    confidence[1, 1:] = 0.0  # one joint seen
    pixels[2] = pixels[2, :1]  # all in one place
    with pytest.raises(ValueError, match="translation of 3 of 4 bodies"):
        solve_translation(points, pixels, confidence, K)
    solved = solve_translation(points, pixels, confidence, K, degenerate="nan")
    assert solved[:3].isnan().all()
    torch.testing.assert_close(solved[3], torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64))


def test_a_mirrored_body_lies_behind_the_camera_and_is_refused():
    points = bodies(1)
    flipped = project(points + torch.tensor([0.0, 0.0, 4.0]), SKEWED_K[None]) * -1
    with pytest.raises(ValueError, match="1 come to lie behind the camera"):
        solve_translation(points, flipped, torch.ones(1, 17, dtype=torch.float64), SKEWED_K[None])


def test_translation_is_differentiable():
    points = bodies(2).requires_grad_()
    K = SKEWED_K.expand(2, 3, 3)
    pixels = project(points.detach() + torch.tensor([0.0, 0.1, 4.0]), K)
    confidence = torch.rand(2, 17, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: solve_translation(p, pixels, confidence, K), (points,))


@pytest.mark.parametrize("batch", [(), (10,), (2, 3)])
def test_look_at_rotation_turns_its_direction_to_z_without_roll(batch):
    direction = torch.randn(*batch, 3, dtype=torch.float64)
    R = look_at_rotation(direction)
    identity = torch.eye(3, dtype=torch.float64).expand(*batch, 3, 3)
    torch.testing.assert_close(R @ R.mT, identity)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(batch, dtype=torch.float64))
    turned = (R @ direction[..., None])[..., 0]
    length = direction.norm(dim=-1)
    torch.testing.assert_close(turned, torch.stack([0 * length, 0 * length, length], dim=-1))
    # The crop's x axis is horizontal in the camera, and its y axis points down.
    torch.testing.assert_close(R[..., 0, 1], torch.zeros(batch, dtype=torch.float64))
    assert (R[..., 1, 1] >= 0).all()


@pytest.mark.parametrize("direction", [[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [1e-9, 1.0, 1e-9], [0.0, 0.0, 1.0]])
def test_look_at_rotation_is_a_rotation_with_finite_gradients_at_the_poles(direction):
    direction = torch.tensor(direction, requires_grad=True)
    R = look_at_rotation(direction)
    torch.testing.assert_close(R @ R.mT, torch.eye(3))
    torch.testing.assert_close(torch.linalg.det(R), torch.tensor(1.0))
    R.square().sum().backward()
    assert direction.grad.isfinite().all()


def test_assumed_intrinsics():
    K = assumed_intrinsics((600, 800))
    assert K.tolist() == [[1000.0, 0.0, 400.0], [0.0, 1000.0, 300.0], [0.0, 0.0, 1.0]]
    with pytest.raises(ValueError, match="must be positive"):
        assumed_intrinsics((0, 10))


@pytest.fixture(scope="module")
def walks() -> torch.Tensor:
    """(2000, 9, 3) walks of up to 2 m anywhere in a y-down world."""
    generator = torch.Generator().manual_seed(1)
    start = 5 * torch.randn(2000, 1, 3, generator=generator)
    step = torch.randn(2000, 1, 3, generator=generator) * torch.tensor([0.5, 0.05, 0.5])
    return start + torch.linspace(-1, 1, 9)[:, None] * step


def test_virtual_cameras_see_the_person_from_in_front_of_the_lens(walks):
    sampler = VirtualCameraSampler()
    cameras = sampler.sample(walks, torch.Generator().manual_seed(0))
    torch.testing.assert_close(cameras.R_cam_world @ cameras.R_cam_world.mT, torch.eye(3).expand(2000, 3, 3))
    torch.testing.assert_close(torch.linalg.det(cameras.R_cam_world), torch.ones(2000))
    path = world_to_camera(walks, cameras.R_cam_world, cameras.t_cam_world_m)
    assert path[..., 2].min() >= sampler.min_depth_m - 1e-4
    pixels = project(path, cameras.K)
    size = cameras.image_size.flip(-1)[:, None]
    assert ((pixels > 0) & (pixels < size)).all(), "every pelvis is inside its picture"


def test_virtual_cameras_keep_their_ranges(walks):
    sampler = VirtualCameraSampler()
    cameras = sampler.sample(walks[:, :1], torch.Generator().manual_seed(0))
    height, width = cameras.image_size.unbind(-1)
    fov = 2 * torch.rad2deg(torch.atan(torch.maximum(height, width) / 2 / cameras.K[:, 0, 0]))
    assert fov.min() >= 25 - 1e-3
    assert fov.max() <= 70 + 1e-3
    pitch = torch.rad2deg(torch.asin(cameras.R_cam_world[:, 2, 1]))
    assert pitch.min() >= -10 - 1e-3
    assert pitch.max() <= 35 + 1e-3
    assert 2 < pitch.median() < 12, "mostly nearly level, rather from above"
    # No roll on average, and the image's y axis points down in the world.
    assert cameras.R_cam_world[:, 1, 1].min() > 0.7
    azimuth = torch.atan2(cameras.R_cam_world[:, 2, 0], cameras.R_cam_world[:, 2, 2])
    counts = torch.histc(azimuth, bins=4, min=-math.pi, max=math.pi)
    assert (counts > 400).all(), "all around the person"


@pytest.mark.parametrize("pitch_deg", [(-30.0, -10.0), (-30.0, 0.0), (10.0, 30.0), (5.0, 5.0), (-10.0, 20.0)])
def test_pitch_fills_its_range_on_either_side_of_level(walks, pitch_deg):
    cameras = VirtualCameraSampler(pitch_deg=pitch_deg).sample(walks[:, :1], torch.Generator().manual_seed(0))
    pitch = torch.rad2deg(torch.asin(cameras.R_cam_world[:, 2, 1]))
    low, high = pitch_deg
    assert pitch.min() == pytest.approx(low, abs=0.5)
    assert pitch.max() == pytest.approx(high, abs=0.5)
    nearest_level = min(max(0.0, low), high)
    assert (pitch - nearest_level).abs().median() <= 0.3 * (high - low) + 1e-3, "rather near to level"


def test_virtual_cameras_repeat_by_seed_and_follow_dtype(walks):
    first, again = (VirtualCameraSampler().sample(walks, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.K, again.K)
    assert torch.equal(first.t_cam_world_m, again.t_cam_world_m)
    double = VirtualCameraSampler().sample(walks.double(), torch.Generator().manual_seed(3))
    assert double.K.dtype == double.t_cam_world_m.dtype == torch.float64


def test_camera_ranges_that_lose_the_person_are_refused():
    for settings in (
        {"fov_deg": (190.0, 200.0)},
        {"fov_deg": (0.0, 30.0)},
        {"pitch_deg": (-100.0, 0.0)},
        {"min_depth_m": 0.0},
        {"image_sizes": ((0, 100),)},
        {"roll_std_deg": -1.0},
    ):
        with pytest.raises(ValueError, match=rf"cameras\.{next(iter(settings))} must be"):
            VirtualCameraSampler(**settings)
    with pytest.raises(ValueError, match="off_centre"):
        VirtualCameraSampler(off_centre=1.0)
    with pytest.raises(ValueError, match="person_height_fraction"):
        VirtualCameraSampler(person_height_fraction=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"cameras\.pitch_deg must begin with its lower end"):
        VirtualCameraSampler(pitch_deg=(30.0, -10.0))


def test_image_sizes_are_pairs_of_whole_numbers():
    for sizes in ((), ((480, 640), (0, 640)), ((True, 640),)):
        with pytest.raises(
            ValueError, match=r"cameras\.image_sizes must be one or more pairs \[height,width\] of"
        ):
            VirtualCameraSampler(image_sizes=sizes)
    # What the types of a test refuse, and a configuration does not.
    for sizes in (5, None, "12", [], [5, 6], ["12"], [[5, 6, 7]], [[480, 640], [480]], [[480.5, 640]]):
        assert not _are_image_sizes(sizes)
    assert _are_image_sizes([[480, 640]])
    assert _are_image_sizes(((480, 640), (1, 1)))
