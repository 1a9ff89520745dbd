"""Detector noise: identity when off, each kind of error alone, and the statistics it was calibrated to."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from core.camera import assumed_intrinsics, project
from core.keypoints import detector_noise
from core.keypoints.detector_noise import DetectorNoise, occlusion
from core.skeleton import H36M_17

STANDING = torch.tensor(
    [[0, 0, 0], [-0.1, 0, 0], [-0.11, 0.42, 0], [-0.12, 0.84, 0], [0.1, 0, 0], [0.11, 0.42, 0],
     [0.12, 0.84, 0], [0, -0.25, 0], [0, -0.5, 0], [0, -0.63, -0.1], [0, -0.78, 0], [0.17, -0.48, 0],
     [0.24, -0.2, 0], [0.25, 0.05, 0], [-0.17, -0.48, 0], [-0.24, -0.2, 0], [-0.25, 0.05, 0]]
)  # fmt: skip
TORSO_M = 0.5
K = assumed_intrinsics((1080, 1920))
QUIET = DetectorNoise(
    severity=(1.0, 1.0),
    jitter_std=0.0,
    drift_std=0.0,
    trouble_median=0.0,
    occlusion_trouble=0.0,
    definition_scale=0.0,
    confidence_range=(0.9, 0.9),
    confidence_std=0.0,
    confusion_rate=0.0,
    outlier_rate=0.0,
    joint_loss_rate=0.0,
    frame_loss_rate=0.0,
    absence_rate=0.0,
    crop_rate=0.0,
    threshold_rate=0.0,
    source_shares=(0.0, 0.0, 1.0),
)


def people(num_clips: int = 40, num_frames: int = 27, depth_m: float = 5.0, angle: float = 0.0):
    """A person who stands still, (B, T, 17, 2) pixels and (B, T, 17, 3) metres, turned about the vertical."""
    cos, sin = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    R = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos]).reshape(3, 3)
    joints = (STANDING @ R.T + torch.tensor([0.3, 0.1, depth_m])).expand(num_clips, num_frames, 17, 3)
    return project(joints, K), joints


def corrupt(noise: DetectorNoise, seed: int = 0, **person):
    exact_px, joints = people(**person)
    detected = noise(exact_px, joints, torch.Generator().manual_seed(seed))
    torso_px = TORSO_M * K[0, 0] / person.get("depth_m", 5.0)
    return detected, (detected.keypoints_px - exact_px) / torso_px


def test_nothing_happens_when_everything_is_off():
    detected, error = corrupt(QUIET)
    assert (error == 0).all()
    torch.testing.assert_close(detected.confidence, torch.full((40, 27, 17), 0.9))


def test_one_seed_one_result():
    first, again, other = (corrupt(DetectorNoise(), seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.keypoints_px, again.keypoints_px)
    assert torch.equal(first.confidence, again.confidence)
    assert not torch.equal(first.keypoints_px, other.keypoints_px)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_frames", [1, 2, 30])
def test_any_clip_length_and_dtype_with_sound_values(num_frames, dtype):
    exact_px, joints = people(num_frames=num_frames)
    image_size = torch.tensor([[700, 900]]).expand(40, 2)
    generator = torch.Generator().manual_seed(0)
    detected = DetectorNoise()(exact_px.to(dtype), joints.to(dtype), generator, image_size)
    assert detected.keypoints_px.shape == (40, num_frames, 17, 2)
    assert detected.keypoints_px.dtype == detected.confidence.dtype == dtype
    assert detected.keypoints_px.isfinite().all()
    assert detected.confidence.min() >= 0
    assert detected.confidence.max() <= 1
    assert (detected.keypoints_px[detected.confidence == 0] == 0).all()


def test_the_input_is_left_alone():
    exact_px, joints = people()
    exact_px, joints = exact_px.clone(), joints.clone()
    before = exact_px.clone(), joints.clone()
    DetectorNoise()(exact_px, joints, torch.Generator().manual_seed(0))
    assert torch.equal(exact_px, before[0])
    assert torch.equal(joints, before[1])


@pytest.mark.parametrize("depth_m", [2.5, 5.0, 20.0])
def test_jitter_is_relative_to_the_persons_size_in_the_picture(depth_m):
    noise = dataclasses.replace(QUIET, jitter_std=0.01)
    _, error = corrupt(noise, depth_m=depth_m, num_clips=200)
    hip, wrist = (error[:, :, H36M_17.index(name)].std() for name in ("left_hip", "left_wrist"))
    assert 0.0095 < hip < 0.0105
    assert 1.3 < wrist / hip < 1.5


def test_jitter_is_white_and_drift_is_slow():
    _, jitter = corrupt(dataclasses.replace(QUIET, jitter_std=0.01), num_clips=200)
    _, drift = corrupt(dataclasses.replace(QUIET, drift_std=0.01), num_clips=200)
    pelvis = 0
    for error, low, high in ((jitter, -0.05, 0.05), (drift, 0.9, 0.99)):
        before, after = error[:, :-1, pelvis].flatten(), error[:, 1:, pelvis].flatten()
        correlation = torch.corrcoef(torch.stack([before, after]))[0, 1]
        assert low < correlation < high
        per_frame = error[:, :, pelvis].std(dim=(0, 2))
        assert per_frame.min() > 0.007
        assert per_frame.max() < 0.011, "the process is stationary from the first frame on"


def test_severity_scales_errors_per_clip():
    noise = dataclasses.replace(QUIET, jitter_std=0.01, severity=(0.5, 4.0))
    _, error = corrupt(noise, num_clips=300)
    per_clip = error[:, :, 0].std(dim=(1, 2)) / 0.009
    assert 0.4 < per_clip.quantile(0.02) < 0.7
    assert 3.0 < per_clip.quantile(0.98) < 4.5


def test_trouble_lowers_confidence_and_raises_error_together():
    noise = dataclasses.replace(QUIET, jitter_std=0.01, trouble_median=0.05)
    detected, error = corrupt(noise, num_clips=300)
    size, confidence = error.norm(dim=-1).flatten(), detected.confidence.flatten()
    medians = [
        size[(confidence >= low) & (confidence < high)].median()
        for low, high in ((0.0, 0.4), (0.4, 0.6), (0.6, 0.75), (0.75, 0.85), (0.85, 1.0))
    ]
    assert all(worse > 1.2 * better for worse, better in pairwise(medians))
    assert medians[0] > 5 * medians[-1]


def test_definition_offsets_stay_and_turn_with_the_body():
    noise = dataclasses.replace(QUIET, definition_scale=1.0)
    _, frontal = corrupt(noise, num_clips=300)
    torch.testing.assert_close(frontal, frontal[:, :1].expand_as(frontal), atol=1e-5, rtol=0)
    thorax, wrist = (frontal[:, 0, H36M_17.index(name)].std(dim=0) for name in ("thorax", "left_wrist"))
    assert 0.06 < thorax[1] < 0.08
    assert thorax[0] < 0.02
    assert wrist.max() < 0.03
    # The same offsets (same seed), on a person seen from behind, lie mirrored; left and right are symmetric.
    _, back = corrupt(noise, num_clips=300, angle=torch.pi)
    torch.testing.assert_close(back[..., 0], -frontal[..., 0], atol=2e-3, rtol=0.1)
    torch.testing.assert_close(back[..., 1], frontal[..., 1], atol=2e-3, rtol=0.1)
    left, right = frontal[:, 0, H36M_17.index("left_hip")], frontal[:, 0, H36M_17.index("right_hip")]
    torch.testing.assert_close(left[:, 0], -right[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(left[:, 1], right[:, 1], atol=1e-4, rtol=0)


def test_confused_limbs_lie_on_their_mirror_limbs_for_runs_of_frames():
    noise = dataclasses.replace(QUIET, confusion_rate=0.02)
    exact_px, joints = people(num_clips=200, num_frames=40, angle=1.2)
    detected = noise(exact_px, joints, torch.Generator().manual_seed(0))
    moved = (detected.keypoints_px - exact_px).norm(dim=-1) > 1e-3
    mirrored = exact_px[:, :, H36M_17.mirror_permutation]
    torch.testing.assert_close(detected.keypoints_px[moved], mirrored[moved])
    assert not moved[:, :, [0, 7, 8, 9, 10]].any()
    knee = moved[:, :, H36M_17.index("left_knee")].float()
    assert 0.02 < knee.mean() < 0.12
    starts = ((knee[:, 1:] == 1) & (knee[:, :-1] == 0)).sum()
    assert knee[:, 1:].sum() / starts > 1.5
    # Side view: more often than frontally.
    front_px, front = people(num_clips=200, num_frames=40)
    frontal = noise(front_px, front, torch.Generator().manual_seed(0))
    assert ((frontal.keypoints_px - front_px).norm(dim=-1) > 1e-3).float().mean() < 0.5 * moved.float().mean()


def test_rates_of_losses():
    detected, _ = corrupt(dataclasses.replace(QUIET, joint_loss_rate=0.1), num_clips=300)
    assert 0.08 < (detected.confidence == 0).float().mean() < 0.12
    detected, _ = corrupt(dataclasses.replace(QUIET, frame_loss_rate=0.1), num_clips=300)
    lost = detected.confidence == 0
    assert torch.equal(lost.all(dim=-1), lost.any(dim=-1)), "frames are lost as wholes"
    assert 0.07 < lost.float().mean() < 0.13
    detected, _ = corrupt(dataclasses.replace(QUIET, absence_rate=1.0), num_clips=200)
    lost = detected.confidence == 0
    assert torch.equal(lost.all(dim=1), lost.any(dim=1)), "absent joints are absent in all frames"
    assert 0.12 < lost.float().mean() < 0.18
    detected, error = corrupt(dataclasses.replace(QUIET, outlier_rate=0.05), num_clips=300)
    wild = error.norm(dim=-1) > 1e-4
    assert 0.04 < wild.float().mean() < 0.06
    sure = (detected.confidence[wild] > 0.89).float().mean()
    assert 0.4 < sure < 0.6


def test_thresholds_drop_what_is_least_confident():
    noise = dataclasses.replace(QUIET, trouble_median=0.5, threshold_rate=1.0)
    detected, _ = corrupt(noise, num_clips=100)
    kept = detected.confidence[detected.confidence > 0]
    assert kept.min() >= 0.05
    assert 0.02 < (detected.confidence == 0).float().mean() < 0.5


def test_cropped_pictures_lose_the_lower_body_only():
    detected, _ = corrupt(dataclasses.replace(QUIET, crop_rate=1.0), num_clips=300)
    affected = (detected.confidence < 0.5).float().mean(dim=(0, 1))
    assert affected[[H36M_17.index("left_ankle"), H36M_17.index("right_ankle")]].min() > 0.95
    assert (
        affected[[H36M_17.index("head"), H36M_17.index("thorax"), H36M_17.index("left_elbow")]].max() < 0.01
    )
    lost = (detected.confidence[:, 0, H36M_17.index("left_ankle")] == 0).float().mean()
    assert 0.5 < lost < 0.7, "most detectors drop what they do not see, the others place it at the edge"


def test_joints_outside_the_picture_are_lost_or_held_at_its_edge():
    exact_px, joints = people(num_clips=200)
    size = torch.tensor([[650, 1920]]).expand(200, 2)  # ends at the knees
    detected = QUIET(exact_px, joints, torch.Generator().manual_seed(0), size)
    outside = exact_px[..., 1] > 650
    assert outside.any()
    assert (detected.confidence[outside] < 0.3).all()
    held = outside & (detected.confidence > 0)
    assert held.any()
    torch.testing.assert_close(
        detected.keypoints_px[held][:, 1], torch.full_like(exact_px[held][:, 1], 650.0)
    )
    torch.testing.assert_close(detected.keypoints_px[~outside], exact_px[~outside])


def test_skeletons_without_pelvis_and_neck_are_derived_as_the_conversion_does():
    noise = dataclasses.replace(QUIET, jitter_std=0.02, joint_loss_rate=0.05, source_shares=(0.0, 1.0, 0.0))
    (keypoints_px, confidence), _ = corrupt(noise)
    parts = {"pelvis": ("left_hip", "right_hip"), "thorax": ("left_shoulder", "right_shoulder")}
    for name, (first, second) in (parts | {"spine": ("pelvis", "thorax")}).items():
        joint, a, b = (H36M_17.index(x) for x in (name, first, second))
        least = torch.minimum(confidence[:, :, a], confidence[:, :, b])
        torch.testing.assert_close(confidence[:, :, joint], least)
        seen = least > 0
        middle = (keypoints_px[:, :, a] + keypoints_px[:, :, b]) / 2
        torch.testing.assert_close(keypoints_px[:, :, joint][seen], middle[seen])
    head, nose = H36M_17.index("head"), H36M_17.index("nose")
    both = (confidence[:, :, head] > 0) & (confidence[:, :, nose] > 0)
    torch.testing.assert_close(confidence[:, :, head][both], 0.5 * confidence[:, :, nose][both])


def naive_occlusion(joints: torch.Tensor) -> torch.Tensor:
    """The definition, one joint and one capsule at a time."""
    hidden = torch.zeros(17)
    may_hide = detector_noise._may_hide()
    plane = joints[:, :2] / joints[:, 2:]
    for j in range(17):
        for c, (start, end, radius) in enumerate(detector_noise._CAPSULES):
            if not may_hide[j][c]:
                continue
            a, b = H36M_17.index(start), H36M_17.index(end)
            axis = plane[b] - plane[a]
            along = float(((plane[j] - plane[a]) @ axis / (axis @ axis).clamp(min=1e-12)).clamp(0, 1))
            depth = joints[a, 2] + along * (joints[b, 2] - joints[a, 2])
            distance_m = (plane[j] - plane[a] - along * axis).norm() * depth
            within = (1.5 - distance_m / radius).clamp(0, 1)
            behind = ((joints[j, 2] - depth) / radius - 0.5).clamp(0, 1)
            hidden[j] = torch.maximum(hidden[j], within * behind)
    return hidden


def test_occlusion_equals_its_naive_twin():
    generator = torch.Generator().manual_seed(0)
    joints = STANDING + 0.15 * torch.randn(3, 4, 17, 3, generator=generator) + torch.tensor([0.0, 0.0, 3.0])
    naive = torch.stack([naive_occlusion(person) for person in joints.flatten(0, 1)]).reshape(3, 4, 17)
    assert (naive > 0.5).any()
    torch.testing.assert_close(occlusion(joints), naive, atol=1e-4, rtol=0)


def test_an_arm_behind_the_back_is_hidden_and_one_in_front_is_not():
    person = STANDING + torch.tensor([0.0, 0.0, 4.0])
    behind, before = person.clone(), person.clone()
    wrist = H36M_17.index("left_wrist")
    behind[wrist] = torch.tensor([0.02, -0.2, 4.2])
    before[wrist] = torch.tensor([0.02, -0.2, 3.8])
    hidden = occlusion(torch.stack([person, behind, before])[:, None])[:, 0]
    assert (hidden[0] < 0.05).all()
    assert hidden[1, wrist] > 0.9
    assert hidden[2, wrist] == 0
    assert hidden[2, H36M_17.index("spine")] > 0.3, "now the forearm is before the belly"


def test_occluded_joints_are_less_certain():
    exact_px, joints = people(num_clips=200)
    joints = joints.clone()
    wrist = H36M_17.index("left_wrist")
    joints[:, :, wrist] = torch.tensor([0.3, -0.1, 5.3])
    exact_px = project(joints, K)
    noise = dataclasses.replace(QUIET, occlusion_trouble=0.6)
    confidence = noise(exact_px, joints, torch.Generator().manual_seed(0)).confidence
    assert confidence[:, :, wrist].mean() < 0.75
    torch.testing.assert_close(confidence[:, :, 0], torch.full((200, 27), 0.9))


def test_calibrated_statistics():
    """The figures of docs/keypoints.md that a change must not move unnoticed."""
    noise = DetectorNoise(
        crop_rate=0.0, absence_rate=0.0, source_shares=(0.0, 0.0, 1.0), definition_scale=0.0
    )
    detected, error = corrupt(noise, num_clips=400, num_frames=40)
    error[detected.confidence == 0] = torch.nan
    hip, wrist = H36M_17.index("left_hip"), H36M_17.index("left_wrist")
    second_difference = error[:, 2:] - 2 * error[:, 1:-1] + error[:, :-2]
    fast = (
        1.4826
        * second_difference.abs().flatten(0, 1).permute(1, 0, 2).flatten(1).nanmedian(dim=1).values
        / 6**0.5
    )
    # Real tracks: 0.7 to 2.1 % of the torso for hips, 1.2 to 3.2 % for wrists.
    assert 0.006 < fast[hip] < 0.012
    assert 1.3 < fast[wrist] / fast[hip] < 2.2
    seen = detected.confidence[detected.confidence > 0]
    assert 0.75 < seen.median() < 0.9
    assert 0.5 < seen.quantile(0.05) < 0.7
    assert 0.005 < (detected.confidence == 0).float().mean() < 0.05


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"jitter_std": -1.0}, r"noise\.jitter_std must be a number of at least 0"),
        ({"frame_loss_rate": 2.0}, r"noise\.frame_loss_rate must be a number of at least 0 and of at most 1"),
        ({"drift_correlation": 1.0}, r"noise\.drift_correlation must be .* below 1"),
        ({"severity": (0.0, 1.0)}, r"Each end of noise\.severity must be a number above 0"),
        ({"severity": (2.0, 1.0)}, r"noise\.severity must begin with its lower end"),
        ({"confidence_range": (0.5, 1.5)}, r"Each end of noise\.confidence_range .* at most 1"),
        (
            {"source_shares": (0.5, 0.5, 0.5)},
            r"^noise\.source_shares must sum to 1, not \[0\.5, 0\.5, 0\.5\]",
        ),
        (
            {"source_shares": (0.5, -0.5, 1.0)},
            r"^Each of noise\.source_shares must be a number of at least 0",
        ),
        ({"source_shares": (0.5, float("nan"), 0.5)}, r"^Each of noise\.source_shares must be a number"),
    ],
)
def test_impossible_settings_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        DetectorNoise(**settings)


@pytest.mark.parametrize(
    ("shares", "problem"),
    [
        ([0.5, 0.5], r"^noise\.source_shares must be three numbers, .*, not \[0\.5, 0\.5\]\.$"),
        (None, r"^noise\.source_shares must be three numbers, .*, not null\.$"),
        ("abc", r"^noise\.source_shares must be three numbers, .*, not abc\.$"),
        (0.5, r"^noise\.source_shares must be three numbers, .*, not 0\.5\.$"),
        ([0.5, 0.5, "abc"], r"^Each of noise\.source_shares must be a number .* not abc\.$"),
    ],
)
def test_what_are_no_three_shares_is_refused(shares, problem):
    """As a configuration may have them; the constructor's own types are checked before it in tests."""
    with pytest.raises(ValueError, match=problem):
        detector_noise._require_source_shares(shares)
