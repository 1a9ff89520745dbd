import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from command_fixtures import ROOT
from gltf_player import GltfPlayer
from torch import Tensor, nn

import mesh_head.predictor
from body_models.export.motion import chosen_frames, export_motion, motion_parameters, read_motion_to_export
from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.parameters import BodyParameters
from core.camera import R_YDOWN_ZUP, project
from core.keypoints.clip import normalise_clip
from core.keypoints.track import Track
from core.motion.sequence import read_motion_npz, write_motion_npz
from core.rotations import geodesic_angle, rotmat_to_rotvec
from core.skeleton import H36M_17
from mesh_head.prediction_files import read_scene, world_motion, write_prediction
from mesh_head.predictor import (
    MeshPredictor,
    recover_at_rate,
    recover_sequence,
)

sys.path.insert(0, str(ROOT / "tools"))

K = torch.tensor([[1000.0, 0.0, 640.0], [0.0, 1000.0, 360.0], [0.0, 0.0, 1.0]])


class Oracle(nn.Module):
    """Predicts known camera-frame parameters, turned into the crop frame it is given no way to know."""

    def __init__(self, parameters: BodyParameters, keypoints_px: Tensor, window_frames: int) -> None:
        super().__init__()
        self.parameters = parameters
        # What the crops will be, so that the answer can be given in their frames.
        clips = keypoints_px.unfold(0, window_frames, 1).permute(0, 3, 1, 2)
        crops = normalise_clip(clips, torch.ones(clips.shape[:3]), K.expand(len(clips), 3, 3))
        self.inputs, self.R_crop_cam = crops.keypoints, crops.R_crop_cam

    def forward(self, keypoints: Tensor) -> BodyParameters:
        starts = [int((self.inputs - clip).abs().sum(dim=(1, 2, 3)).argmin()) for clip in keypoints]
        frames = torch.tensor(starts)[:, None] + torch.arange(keypoints.shape[1])
        return BodyParameters(
            self.R_crop_cam[starts][:, None] @ self.parameters.root_rotmat[frames],
            self.parameters.body_rotmat[frames],
            self.parameters.betas.expand(len(starts), 1, 10),
            torch.zeros(*frames.shape, 3),
        )


@pytest.fixture(scope="module")
def scene() -> tuple[BodyParameters, Tensor]:
    """A person who turns and walks through the picture, and perfect keypoints."""
    generator = torch.Generator().manual_seed(0)
    num_frames = 40
    steps = torch.linspace(0, 1, num_frames)
    poses = 0.3 * torch.randn(24, 3, generator=generator) * torch.ones(num_frames, 1, 1)
    poses = poses + 0.3 * torch.randn(24, 3, generator=generator) * steps[:, None, None]
    poses[:, 0] = torch.stack([torch.full_like(steps, torch.pi), 0.5 * steps, 0 * steps], dim=-1)
    translation = torch.stack([2 * steps - 1, 0.1 * steps, 4 + steps], dim=-1)
    parameters = BodyParameters.from_rotvec(poses, torch.randn(1, 10, generator=generator), translation)
    vertices = load_open_body("neutral")(parameters).vertices_m
    return parameters, project(load_open_body_regressor("h36m_17")(vertices), K)


def _predictor(scene: tuple[BodyParameters, Tensor], window_frames: int = 9) -> MeshPredictor:
    return MeshPredictor(
        model=Oracle(*scene, window_frames),
        window_frames=window_frames,
        fps=30.0,
        body=load_open_body("neutral"),
        regressor=load_open_body_regressor("h36m_17"),
    )


def _track(keypoints_px: Tensor, frame_ids: np.ndarray) -> Track:
    return Track(
        person_id="1",
        skeleton=H36M_17,
        frame_ids=frame_ids,
        keypoints_px=keypoints_px.numpy(),
        confidence=np.ones(keypoints_px.shape[:2], np.float32),
        fps=30.0,
        image_size=(720, 1280),
    )


def test_windows_crops_and_blending_lose_nothing(scene: tuple[BodyParameters, Tensor]) -> None:
    parameters, keypoints_px = scene
    found = recover_sequence(
        Oracle(parameters, keypoints_px, 9), keypoints_px, torch.ones(40, 17), K, window_frames=9
    )
    assert geodesic_angle(found.root_rotmat, parameters.root_rotmat).max() < 2e-3
    assert geodesic_angle(found.body_rotmat, parameters.body_rotmat).max() < 2e-3
    torch.testing.assert_close(found.betas, parameters.betas)


def test_bodies_stand_where_the_keypoints_are(scene: tuple[BodyParameters, Tensor]) -> None:
    parameters, keypoints_px = scene
    predictor = _predictor(scene)
    motion = predictor.recover(_track(keypoints_px, np.arange(40)), K)
    torch.testing.assert_close(motion.parameters.translation_m, parameters.translation_m, atol=5e-3, rtol=0)
    again_px = project(predictor.joints_m(motion.parameters), K)
    assert (again_px - keypoints_px).norm(dim=-1).max() < 1.0


def test_gaps_keep_time(scene: tuple[BodyParameters, Tensor]) -> None:
    _, keypoints_px = scene
    seen = np.array([i for i in range(40) if not 15 <= i < 20])
    motion = _predictor(scene).recover(_track(keypoints_px[seen], seen + 7), K)
    assert motion.frame_ids.tolist() == list(range(7, 47))
    assert motion.frame_ids[~motion.seen].tolist() == [22, 23, 24, 25, 26]
    assert motion.parameters.translation_m.isfinite().all()
    track = _track(keypoints_px, np.arange(40))
    track.confidence[30:33] = 0  # the file has an entry, and nothing in it
    assert (~_predictor(scene).recover(track, K).seen).nonzero()[0].tolist() == [30, 31, 32]


@pytest.mark.parametrize(
    ("rate_factor", "num_seen"), [(4.0, 11), (5 / 3, 25), (0.25, 161), (0.5, 41), (1.2, 41), (50.0, 2)]
)
def test_the_model_sees_its_own_frame_rate(
    monkeypatch: pytest.MonkeyPatch, rate_factor: float, num_seen: int
) -> None:
    """Stands for the model: turns about z by an angle that the keypoints show, 0.02 rad a frame."""
    seen: list[Tensor] = []

    def turned(
        model: nn.Module, keypoints_px: Tensor, confidence: Tensor, K: Tensor, *, window_frames: int
    ) -> BodyParameters:
        seen.append(confidence)
        rotvec = torch.zeros(len(keypoints_px), 24, 3)
        rotvec[..., 2] = keypoints_px[:, 0, 0][:, None] * 0.02
        return BodyParameters.from_rotvec(rotvec, torch.ones(1, 10), torch.zeros(len(rotvec), 3))

    monkeypatch.setattr(mesh_head.predictor, "recover_sequence", turned)
    keypoints_px = torch.arange(41.0)[:, None, None].expand(41, 17, 2).clone()
    confidence = torch.ones(41, 17)
    confidence[20, 3] = 0
    confidence[30], keypoints_px[30] = 0, 1e6  # nothing is seen: on the line
    found = recover_at_rate(
        nn.Identity(), keypoints_px, confidence, K, window_frames=9, rate_factor=rate_factor
    )
    (confidence_seen,) = seen
    assert len(confidence_seen) == num_seen
    assert confidence_seen[0].all()
    assert confidence_seen[:, 0].all()
    unseen = (confidence_seen[:, 3] == 0).nonzero().flatten().tolist()
    assert (
        unseen
        == {4.0: [5], 5 / 3: [12], 0.25: list(range(77, 84)), 0.5: [20], 1.2: [20], 50.0: []}[rate_factor]
    )
    angles = rotmat_to_rotvec(found.body_rotmat)[:, 3, 2]
    # A chord is not quite an arc: over 0.8 rad, as in the last case, it is 0.01 rad off.
    atol = 0.01 if rate_factor > 10 else 1e-3
    torch.testing.assert_close(angles, 0.02 * torch.arange(41.0), atol=atol, rtol=0)
    assert found.root_rotmat.shape == (41, 3, 3)
    assert found.betas.shape == (1, 10)


def test_windows_without_anybody_have_no_vote_on_the_shape() -> None:
    class Model(nn.Module):
        """Betas that are 1 where it saw somebody and 9 where it did not."""

        def forward(self, keypoints: Tensor) -> BodyParameters:
            seen = keypoints[..., 2].flatten(1).any(dim=1)
            betas = torch.where(seen, 1.0, 9.0)[:, None, None].expand(-1, keypoints.shape[1], 10)
            rotvec = torch.zeros(*keypoints.shape[:2], 24, 3)
            return BodyParameters.from_rotvec(rotvec, betas, rotvec[..., 0, :])

    keypoints_px = 100 * torch.rand(60, 17, 2, generator=torch.Generator().manual_seed(0))
    confidence = torch.ones(60, 17)
    confidence[10:50] = 0
    for seen_from, wanted in ((0, 1.0), (60, 9.0)):
        confidence[:seen_from] = 0
        found = recover_sequence(Model(), keypoints_px, confidence, K, window_frames=9)
        torch.testing.assert_close(found.betas, torch.full((1, 10), wanted))


@pytest.mark.parametrize("num_frames", [1, 2, 8])
def test_sequences_shorter_than_a_window(scene: tuple[BodyParameters, Tensor], num_frames: int) -> None:
    parameters, keypoints_px = scene
    found = recover_sequence(
        Oracle(parameters, keypoints_px, 9),
        keypoints_px[:num_frames],
        torch.ones(num_frames, 17),
        K,
        window_frames=9,
    )
    assert found.root_rotmat.shape == (num_frames, 3, 3)


@pytest.mark.parametrize("camera_pitch_deg", [0, 25])
def test_world_motion_is_the_same_body_in_a_z_up_world(
    scene: tuple[BodyParameters, Tensor], tmp_path: Path, camera_pitch_deg: int
) -> None:
    predictor = _predictor(scene)
    (motion,) = predictor.levelled([predictor.recover(_track(scene[1], np.arange(40)), K)], camera_pitch_deg)
    write_motion_npz(
        tmp_path / "motion.npz", world_motion(motion, predictor.body, gender="neutral", name="n", subject="s")
    )
    read = read_motion_npz(tmp_path / "motion.npz")
    in_world = predictor.body(
        BodyParameters.from_rotvec(
            torch.from_numpy(read.poses_rotvec),
            torch.from_numpy(read.betas)[None],
            torch.from_numpy(read.translation_world_m),
        )
    ).vertices_m
    in_camera = predictor.body(motion.parameters).vertices_m
    turned = in_world @ torch.tensor(R_YDOWN_ZUP).T @ motion.level.R_level_cam
    torch.testing.assert_close(turned, in_camera, atol=1e-4, rtol=0)


def test_what_a_prediction_leaves_is_level_together(
    scene: tuple[BodyParameters, Tensor], tmp_path: Path
) -> None:
    predictor = _predictor(scene)
    track = _track(scene[1], np.arange(40))
    (motion,) = predictor.levelled([predictor.recover(track, K)], None)
    assert motion.level.is_estimated
    assert abs(motion.level.pitch_deg) > 3  # who walks there leans
    write_prediction(
        tmp_path,
        track,
        motion,
        predictor.body,
        name="n",
        frame=9,
        sheet_frames=2,
        renderer="torch",
        gender="female",
        facts={},
    )
    told = json.loads((tmp_path / "prediction.json").read_text())
    assert told["camera_pitch_deg"] == pytest.approx(motion.level.pitch_deg)
    assert told["camera_pitch_is_estimated"]
    assert (told["gender"], read_motion_npz(tmp_path / "motion.npz").gender) == ("female", "female")
    # The camera that goes with the motion file sees in it what the recovered body showed to the camera.
    film = read_scene(tmp_path)
    assert film.camera is not None
    in_world = predictor.body(motion_parameters(film.people[0], predictor.body, [9])).vertices_m[0]
    level_m = in_world @ torch.tensor(R_YDOWN_ZUP).T
    seen_px = project(film.camera.world_to_camera(level_m), film.camera.K)
    recovered_m = predictor.body(motion.parameters.select([9])).vertices_m[0]
    torch.testing.assert_close(seen_px, project(recovered_m, K), atol=0.2, rtol=0)
    mesh = trimesh.load(tmp_path / "mesh.obj", process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, level_m * torch.tensor([1, -1, -1]), atol=1e-4)
    np.testing.assert_allclose(GltfPlayer(tmp_path / "motion.glb").vertices(9), mesh.vertices, atol=1e-3)


def test_a_predictions_animation_is_its_motion_files(
    scene: tuple[BodyParameters, Tensor], tmp_path: Path
) -> None:
    predictor = _predictor(scene)
    track = _track(scene[1], np.arange(30, 70))
    write_prediction(
        tmp_path,
        track,
        predictor.recover(track, K),
        predictor.body,
        name="n",
        frame=None,
        sheet_frames=2,
        renderer="torch",
        gender="neutral",
        facts={},
    )
    motion = read_motion_to_export(tmp_path / "motion.npz")
    assert (motion.name, motion.first_frame, motion.body_model) == (tmp_path.name, 30, "open")
    (exported,) = export_motion(
        tmp_path / "again",
        motion,
        predictor.body,
        formats=["glb"],
        frames=chosen_frames(motion, None),
        origin="as_is",
        pose_blend_shapes=None,
        on_frame_done=lambda: None,
    )
    left, again = GltfPlayer(tmp_path / "motion.glb"), GltfPlayer(exported)
    np.testing.assert_allclose(left.key_times_s(), np.arange(30, 70) / track.fps, atol=1e-5)
    np.testing.assert_allclose(again.key_times_s(), left.key_times_s(), atol=1e-5)
    for key in (0, 25):
        np.testing.assert_allclose(again.vertices(key), left.vertices(key), atol=1e-4)
    head, feet = left.vertices(25)[:, 1].max(), left.vertices(25)[:, 1].min()
    assert head - feet > 1.2  # y is up
    assert left.vertices(25)[:, 2].max() < 0  # and the viewer is where the camera was
    mesh = trimesh.load(tmp_path / "mesh.obj", process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, left.vertices(19), atol=1e-4)  # of frame 49, the middle one


def test_animation_and_mesh_stand_on_the_ground(scene: tuple[BodyParameters, Tensor], tmp_path: Path) -> None:
    """People keep their places, the motion file its camera, and prediction.json says what lies between."""
    predictor = _predictor(scene)
    tracks = [_track(scene[1][10:], np.arange(10, 40)), _track(scene[1] + 60, np.arange(40))]
    motions = predictor.levelled([predictor.recover(track, K) for track in tracks], 10)
    stands = {
        "name": "n",
        "frame": 20,
        "sheet_frames": 1,
        "renderer": "torch",
        "gender": "neutral",
        "facts": {},
    }
    offsets = []
    for number, (track, motion) in enumerate(zip(tracks, predictor.grounded(motions), strict=True)):
        on_ground, before = tmp_path / f"{number}", tmp_path / f"{number}_before"
        write_prediction(on_ground, track, motion, predictor.body, **stands)
        write_prediction(before, track, motions[number], predictor.body, **stands)
        assert (on_ground / "motion.npz").read_bytes() == (before / "motion.npz").read_bytes()
        told = json.loads((on_ground / "prediction.json").read_text())
        offsets.append(told["ground_offset_yup_m"])
        mesh, mesh_before = (
            trimesh.load(folder / "mesh.obj", process=False, maintain_order=True).vertices
            for folder in (on_ground, before)
        )
        np.testing.assert_allclose(mesh - offsets[-1], mesh_before, atol=2e-5)
        played = GltfPlayer(on_ground / "motion.glb").vertices(20 - int(motion.frame_ids[0]))
        np.testing.assert_allclose(played, mesh, atol=1e-4)
    assert offsets[0] == offsets[1]
    # Whoever comes first is above the origin.
    np.testing.assert_allclose(
        GltfPlayer(tmp_path / "1" / "motion.glb").vertices(0)[:, [0, 2]].mean(0), 0, atol=0.3
    )
    alone, _ = predictor.grounded(motions, one_camera=False)
    assert alone.ground_offset_yup_m.tolist() != offsets[0]
    # As `export_mesh.py` does by the motion file.
    motion = read_motion_to_export(tmp_path / "0_before" / "motion.npz")
    export_motion(
        tmp_path / "again",
        motion,
        predictor.body,
        formats=["obj"],
        frames=motion.frames,
        origin="ground",
        pose_blend_shapes=None,
        on_frame_done=lambda: None,
    )
    write_prediction(tmp_path / "alone", tracks[0], alone, predictor.body, **stands)
    files = (tmp_path / "alone" / "mesh.obj", tmp_path / "again" / "0_before_obj" / "000020.obj")
    mesh, again = (trimesh.load(file, process=False, maintain_order=True) for file in files)
    np.testing.assert_allclose(again.vertices, mesh.vertices, atol=1e-4)


def test_nothing_seen_is_an_error(scene: tuple[BodyParameters, Tensor]) -> None:
    track = _track(scene[1], np.arange(40))
    track.confidence[:] = 0
    with pytest.raises(ValueError, match=r"^Person '1': in no frame are two keypoints seen"):
        _predictor(scene).recover(track, K)
