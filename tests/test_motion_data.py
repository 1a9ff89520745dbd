from pathlib import Path

import numpy as np
import pytest
import torch

from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.parameters import BodyParameters
from core.camera import R_YDOWN_ZUP, VirtualCameraSampler, project
from core.motion.sequence import MotionSequence, write_motion_npz
from core.random_seeds import seeded_generator
from core.rotations import geodesic_angle
from mesh_head.motion_data import (
    ClipSynthesizer,
    FolderMotion,
    FolderPlusProceduralMotion,
    MotionAugmentation,
    MotionClips,
    MotionLibrary,
    ProceduralMotion,
)
from mesh_head.supervision import SupervisedBody, farthest_points

CPU = torch.device("cpu")


def _sequence(num_frames: int, seed: int, fps: float = 30.0) -> MotionSequence:
    rng = np.random.default_rng(seed)
    poses = np.cumsum(rng.normal(size=(num_frames, 24, 3)) * 0.02, axis=0).astype(np.float32)
    poses[:, 0] += [np.pi / 2, 0, 0]  # upright in the z-up world
    return MotionSequence(
        poses_rotvec=poses,
        translation_world_m=np.cumsum(rng.normal(size=(num_frames, 3)) * 0.01, axis=0).astype(np.float32),
        betas=rng.normal(size=10).astype(np.float32),
        gender="neutral",
        fps=fps,
        name=f"sequence_{seed}",
        subject="nobody",
        label="noise",
    )


@pytest.fixture(scope="module")
def supervised() -> SupervisedBody:
    return SupervisedBody(
        body=load_open_body("neutral"), regressor=load_open_body_regressor("h36m_17"), num_vertices=32
    )


def _clips(num_frames: int = 5) -> MotionClips:
    library = MotionLibrary([_sequence(30, 0), _sequence(20, 1)], max_clip_frames=num_frames)
    return library.sample(3, num_frames, seeded_generator(0, device=CPU))


def test_supervised_body_equals_the_whole_body(supervised: SupervisedBody) -> None:
    body, regressor = load_open_body("neutral"), load_open_body_regressor("h36m_17")
    parameters = BodyParameters.from_rotvec(0.4 * torch.randn(2, 3, 24, 3), torch.randn(2, 1, 10))
    vertices = body(parameters).vertices_m
    points = supervised(parameters)
    torch.testing.assert_close(points.joints_m, regressor(vertices), atol=1e-5, rtol=0)
    expected = vertices[..., supervised.sampled_vertex_ids.tolist(), :]
    torch.testing.assert_close(points.vertices_m, expected, atol=1e-5, rtol=0)


def test_farthest_points_spread() -> None:
    line = np.stack([np.linspace(0, 1, 101), np.zeros(101), np.zeros(101)], axis=1)
    assert farthest_points(line, 3).tolist() == [0, 50, 100]
    with pytest.raises(ValueError, match="102 points"):
        farthest_points(line, 102)


def test_keypoints_are_projections_of_the_body_that_is_the_target(supervised: SupervisedBody) -> None:
    synthesizer = ClipSynthesizer(body=supervised, cameras=VirtualCameraSampler(), noise=None)
    seen = synthesizer(_clips(), seeded_generator(1, device=CPU))
    points = supervised(seen.parameters_cam)
    torch.testing.assert_close(points.joints_m, seen.points_cam.joints_m)
    torch.testing.assert_close(project(points.joints_m, seen.K[:, None]), seen.keypoints_px)
    assert (points.joints_m[..., 2] > 0).all()


def test_camera_sees_the_world_motion_rigidly(supervised: SupervisedBody) -> None:
    """Distances between joints of different frames survive the way from world to camera."""
    clips = _clips()
    synthesizer = ClipSynthesizer(body=supervised, cameras=VirtualCameraSampler(), noise=None)
    seen = synthesizer(clips, seeded_generator(1, device=CPU)).points_cam.joints_m.flatten(1, 2)
    world = BodyParameters.from_rotvec(clips.poses_rotvec, clips.betas[:, None], clips.translation_world_m)
    in_world = supervised(world).joints_m.flatten(1, 2)
    exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}
    torch.testing.assert_close(
        torch.cdist(seen, seen, **exact), torch.cdist(in_world, in_world, **exact), atol=1e-4, rtol=0
    )


def test_upright_people_stand_upright_before_level_cameras(supervised: SupervisedBody) -> None:
    level = VirtualCameraSampler(pitch_deg=(-1.0, 1.0), roll_std_deg=0.1)
    standing = MotionClips(
        torch.zeros(4, 2, 24, 3),
        torch.zeros(4, 2, 3),
        torch.zeros(4, 10),
    )
    standing.poses_rotvec[:, :, 0, 0] = torch.pi / 2
    joints = ClipSynthesizer(body=supervised, cameras=level, noise=None)(
        standing, seeded_generator(0, device=CPU)
    ).points_cam.joints_m
    head, pelvis = joints[:, :, 10], joints[:, :, 0]
    assert (pelvis[..., 1] - head[..., 1] > 0.5).all()  # y points down


def test_normalised_target_lives_in_the_crop_frame(supervised: SupervisedBody) -> None:
    synthesizer = ClipSynthesizer(body=supervised, cameras=VirtualCameraSampler(), noise=None)
    clip, target = synthesizer(_clips(), seeded_generator(1, device=CPU)).normalised()
    joints = supervised(target.parameters).relative_to_pelvis().joints_m
    torch.testing.assert_close(joints, target.points.joints_m, atol=1e-5, rtol=0)
    assert clip.keypoints.shape == (3, 5, 17, 3)
    assert not target.points.joints_m[..., 0, :].any()


def test_mirrored_motion_is_a_mirrored_body() -> None:
    clips = _clips()
    clips = MotionClips(clips.poses_rotvec, clips.translation_world_m, torch.zeros(3, 10))
    mirrored = MotionAugmentation(mirror_probability=1.0, reverse_probability=0.0, betas_std=0.0)(
        clips, seeded_generator(0, device=CPU)
    )
    body = load_open_body("neutral")
    joints, mirrored_joints = (
        body(BodyParameters.from_rotvec(c.poses_rotvec, c.betas[:, None], c.translation_world_m)).joints_m
        for c in (clips, mirrored)
    )
    left, right = 20, 21  # wrists
    flip = torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored_joints[:, :, left], joints[:, :, right] * flip, atol=1e-4, rtol=0)


def test_augmentations() -> None:
    clips = _clips()
    backwards = MotionAugmentation(mirror_probability=0.0, reverse_probability=1.0, betas_std=2.0)(
        clips, seeded_generator(0, device=CPU)
    )
    torch.testing.assert_close(backwards.poses_rotvec, clips.poses_rotvec.flip(1))
    assert (backwards.betas - clips.betas).abs().max() > 0.1
    assert backwards.betas.abs().max() <= 6.0


def test_same_seed_same_clips(supervised: SupervisedBody) -> None:
    synthesizer = ClipSynthesizer(body=supervised, cameras=VirtualCameraSampler(), noise=None)
    first, second, other = (
        synthesizer(_clips(), seeded_generator(*seed, device=CPU)).keypoints_px
        for seed in ((3, 1), (3, 1), (3, 2))
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert (first - other).abs().max() > 1


def test_library_draws_clips_inside_sequences() -> None:
    sequences = [_sequence(12, 0), _sequence(9, 1), _sequence(4, 2)]
    library = MotionLibrary(sequences, max_clip_frames=8)
    assert library.num_too_short == 1
    clips = library.sample(200, 8, seeded_generator(0, device=CPU))
    starts = {tuple(clip[0, 1].tolist()) for clip in clips.poses_rotvec}
    allowed = {tuple(s.poses_rotvec[k, 1].tolist()) for s in sequences[:2] for k in range(s.num_frames - 7)}
    assert starts == allowed
    with pytest.raises(ValueError, match="longest of 3 has 12"):
        MotionLibrary(sequences, max_clip_frames=13)


def test_mean_pose_of_one_pose_is_that_pose() -> None:
    sequence = _sequence(10, 0)
    sequence.poses_rotvec[:] = sequence.poses_rotvec[:1]
    mean = MotionLibrary([sequence], max_clip_frames=5).mean_body_rotmat()
    expected = BodyParameters.from_rotvec(torch.from_numpy(sequence.poses_rotvec[0]), torch.zeros(10))
    assert geodesic_angle(mean, expected.body_rotmat).max() < 1e-3


def test_files_of_one_name_in_several_folders_are_several_sequences(tmp_path: Path) -> None:
    for folder in ("s0", "s1"):
        write_motion_npz(tmp_path / "test" / folder / "walk.npz", _sequence(20, 0))
    names = [sequence.name for sequence in FolderMotion(root=str(tmp_path), fps=30.0).read("test")]
    assert names == ["s0/walk", "s1/walk"]


def test_sources(tmp_path: Path) -> None:
    write_motion_npz(tmp_path / "train" / "a.npz", _sequence(60, 0, fps=60.0))
    write_motion_npz(tmp_path / "val" / "b.npz", _sequence(20, 1))
    folder = FolderMotion(root=str(tmp_path), fps=30.0)
    assert [s.num_frames for s in folder.read("train")] == [30]
    procedural = ProceduralMotion(num_sequences={"train": 2, "val": 1}, num_frames=40, fps=30.0, seed=0)
    assert [s.num_frames for s in procedural.read("train")] == [40, 40]
    assert not np.allclose(procedural.read("train")[0].poses_rotvec, procedural.read("val")[0].poses_rotvec)
    with pytest.raises(ValueError, match="no split 'test'"):
        procedural.read("test")
    combined = FolderPlusProceduralMotion(
        root=str(tmp_path), fps=30.0, num_procedural_sequences=2, num_frames=40, seed=0
    )
    assert len(combined.read("train")) == 3
    assert len(combined.read("val")) == 1
    with pytest.raises(ValueError, match="train, val"):
        folder.read("test")


def test_world_axes() -> None:
    """Up in the z-up world is -y in the y-down one."""
    up = torch.tensor(R_YDOWN_ZUP) @ torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(up, torch.tensor([0.0, -1.0, 0.0]))
