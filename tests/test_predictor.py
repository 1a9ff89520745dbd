import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from command_fixtures import ROOT, composed
from gltf_player import GltfPlayer
from keypoint_fixtures import write
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
from core.skeleton import COCO_17, H36M_17
from mesh_head.prediction_files import (
    in_place_of_earlier_prediction,
    person_folders,
    read_scene,
    require_frames,
    world_motion,
    write_prediction,
)
from mesh_head.predictor import (
    MeshPredictor,
    choose_people,
    intrinsics,
    recover_at_rate,
    recover_sequence,
)

sys.path.insert(0, str(ROOT / "tools"))
import predict_mesh
import predict_pose

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
    confidence[20] = 0
    found = recover_at_rate(
        nn.Identity(), keypoints_px, confidence, K, window_frames=9, rate_factor=rate_factor
    )
    (confidence_seen,) = seen
    assert len(confidence_seen) == num_seen
    assert confidence_seen[0].all()
    unseen = (confidence_seen == 0).all(dim=1).nonzero().flatten().tolist()
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
    write_motion_npz(tmp_path / "motion.npz", world_motion(motion, predictor.body, name="n", subject="s"))
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
        tmp_path, track, motion, predictor.body, name="n", frame=9, sheet_frames=2, renderer="torch", facts={}
    )
    told = json.loads((tmp_path / "prediction.json").read_text())
    assert told["camera_pitch_deg"] == pytest.approx(motion.level.pitch_deg)
    assert told["camera_pitch_is_estimated"]
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


def _seen_at(*places: tuple[float, float], person_id: str, num_frames: int = 2) -> Track:
    """Somebody of whom these joints are seen, with no image size."""
    keypoints_px = torch.zeros(num_frames, 17, 2)
    keypoints_px[:, : len(places)] = torch.tensor(places)
    track = _track(keypoints_px, np.arange(num_frames))
    track.confidence[:, len(places) :] = 0
    return replace(track, person_id=person_id, image_size=None)


def test_choices() -> None:
    first = _seen_at((5, 5), (100.5, 20), person_id="1")
    other = _seen_at((5, 5), (30, 40), person_id="0-2", num_frames=1)
    for person, expected in ((None, ["1"]), (1, ["1"]), ("0-2", ["0-2"]), ("all", ["1", "0-2"])):
        chosen = choose_people([first, other], person, source="a.json")
        assert [track.person_id for track in chosen.tracks] == expected
    with pytest.raises(ValueError, match=r"a\.json has no person 'x'; it has 1, 0-2"):
        choose_people([first, other], "x", source="a.json")
    known = replace(first, image_size=(720, 1280))
    assert intrinsics(known, 500.0)[0].tolist() == [500.0, 0.0, 640.0]
    with pytest.raises(ValueError, match="positive"):
        intrinsics(known, 0.0)


def test_all_people_are_before_one_camera() -> None:
    """Of the least picture that holds them all, if nobody says how large it is."""
    first = _seen_at((5, 5), (100.5, 20), person_id="1")
    other = _seen_at((5, 5), (30, 40), person_id="2")
    (alone,), told, remarks = choose_people([first, other], "2", source="a.json")
    assert (alone.image_size, told) == ((40, 30), {"image_size_is_assumed": True})
    tracks, _, remarks = choose_people([first, other], "all", source="a.json")
    assert [track.image_size for track in tracks] == [(40, 101)] * 2
    assert len({tuple(intrinsics(track, None).flatten().tolist()) for track in tracks}) == 1
    assert ["40 × 101 (height × width) is assumed" in remark for remark in remarks] == [True]
    known = [replace(track, image_size=(720, 1280)) for track in (first, other)]
    chosen = choose_people(known, "all", source="a.json")
    assert (chosen.facts, chosen.remarks) == ({"image_size_is_assumed": False}, [])
    assert [track.image_size for track in chosen.tracks] == [(720, 1280)] * 2


def test_who_never_shows_two_keypoints_is_left_out_or_named() -> None:
    person = _seen_at((5, 5), (100, 20), person_id="1")
    ghost = _seen_at((900, 900), person_id="2", num_frames=9)
    chosen = choose_people([ghost, person], "all", source="a.json")
    assert [track.person_id for track in chosen.tracks] == ["1"]
    assert chosen.tracks[0].image_size == (20, 100)
    assert chosen.remarks[0] == "Left out, as no frame shows two of their keypoints: 2."
    for whom in (None, "2"):
        with pytest.raises(
            ValueError, match=r"In no frame of a\.json are two keypoints of person '2' seen, so"
        ):
            choose_people([ghost, person], whom, source="a.json")
    with pytest.raises(
        ValueError, match=r"In no frame of a\.json are two keypoints of a person seen, so nobody"
    ):
        choose_people([ghost], "all", source="a.json")
    # An eye and an ear are none of the model's joints.
    face = replace(_seen_at((5, 5), person_id="3"), skeleton=COCO_17)
    face.confidence[:] = 0
    face.confidence[:, [1, 3]] = 1
    face.keypoints_px[:, 3] = 50
    with pytest.raises(ValueError, match="two keypoints of person '3'"):
        choose_people([face], None, source="a.json")


def test_frames_are_known_before_the_work_and_for_whom_they_are_not() -> None:
    long, short = (_seen_at((5, 5), person_id=name, num_frames=n) for name, n in (("1", 9), ("2", 3)))
    require_frames([long, short], frame=2, sheet_frames=8)
    require_frames([long, short], sheet_frames=8)
    for frame in (3, 2.0, True, "x"):
        with pytest.raises(
            ValueError, match=rf"frame={frame} is not in the track of person '\d', which spans 0 to"
        ):
            require_frames([long, short], frame=frame, sheet_frames=8)
    with pytest.raises(ValueError, match="person '2', which spans 0 to 2; give another, or null"):
        require_frames([long, short], frame=3, sheet_frames=8)
    with pytest.raises(ValueError, match="sheet_frames=0 is no such number"):
        require_frames([long], sheet_frames=0)


@pytest.mark.parametrize(
    "name", ["x_up/left", "../../escaped", "..", "", ".hidden", "a\\b", "a\nb", "a\0b", "\ud800", "é" * 101]
)
def test_an_id_that_is_no_folders_name_is_refused(tmp_path: Path, name: str) -> None:
    tracks = [_seen_at((5, 5), person_id=person) for person in ("0-2 é.x", name)]
    assert person_folders(tmp_path, tracks[1:], source="a.csv") == [tmp_path]
    assert person_folders(tmp_path, [tracks[0]] * 2, source="a.csv") == [tmp_path / "person_0-2 é.x"] * 2
    with pytest.raises(
        ValueError, match=r"^a\.csv has a person .*, and no folder can safely have that name"
    ) as said:
        person_folders(tmp_path, tracks, source="a.csv")
    assert str(said.value).isprintable()


FILES = {
    "mesh": ("motion.npz", "motion.glb", "mesh.obj", "contact_sheet.png", "prediction.json"),
    "pose": ("pose.npz", "contact_sheet.png", "prediction.json"),
}
OURS = {"source": "a", "person": "1", "skeleton": "h36m_17", "frames": [0, 1], "fps": 30.0}


def _leave(folder: Path, kind: str, **facts: Any) -> list[Path]:
    """What a prediction leaves, as far as names go."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES[kind]:
        (folder / name).write_bytes(b"")
    told = OURS | {"mesh": {"body_model": "open", "video": None}, "pose": {"unit": "metre"}}[kind] | facts
    (folder / "prediction.json").write_text(json.dumps(told))
    return [folder / name for name in FILES[kind]]


def _predict(out: Path, people: Sequence[str], kind: str = "mesh", **facts: Any) -> set[str]:
    """A prediction in place of an earlier one; all files that are there then."""
    folders = [out / f"person_{person}" for person in people] or [out]
    with in_place_of_earlier_prediction(out, folders) as written:
        for folder in folders:
            written += _leave(folder, kind, **facts)
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def _of(kind: str, *people: str) -> set[str]:
    """What has to be there after it."""
    names = {f"person_{person}/{name}" for person in people for name in FILES[kind]}
    return names | {"prediction.json"} if people else set(FILES[kind])


def test_what_an_earlier_prediction_left_goes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for people, kind in (
        *(([], "mesh"), (["1", "2"], "mesh"), (["2", "3"], "mesh"), ([], "mesh"), ([], "pose"), ([], "mesh")),
        *((["1", "2"], "pose"), (["1", "3"], "mesh"), ([], "pose")),
    ):
        assert _predict(out, people, kind) == _of(kind, *people)
        assert {path.name for path in out.iterdir() if path.is_dir()} == {f"person_{name}" for name in people}


def test_a_film_goes_with_the_prediction_that_drew_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    film = out / "film.mp4"
    for drawn_over, is_drawn in (("in.mp4", True), (None, False)):
        for people in ([], ["1", "2"]):
            _predict(out, people, video=drawn_over)
            film.write_bytes(b"film")
            assert ("film.mp4" in _predict(out, [])) is not is_drawn
    # Predictions of before do not say.
    (out / "prediction.json").write_text(json.dumps(OURS | {"body_model": "open"}))
    assert "film.mp4" not in _predict(out, [])


def _no_prediction(out: Path) -> None:
    (out / "prediction.json").unlink()


def _another_programs_prediction(out: Path) -> None:
    (out / "prediction.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": []}], "version": 1}))


def _a_list_that_leads_elsewhere(out: Path) -> None:
    (out / "prediction.json").write_text(json.dumps({"people": ["person_/../../beside", "..", "person_1"]}))


def _a_damaged_file(out: Path) -> None:
    (out / "prediction.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    "changed", [_no_prediction, _another_programs_prediction, _a_list_that_leads_elsewhere, _a_damaged_file]
)
def test_what_no_prediction_of_ours_left_stays(tmp_path: Path, changed: Callable[[Path], None]) -> None:
    out = tmp_path / "out"
    _leave(tmp_path / "beside", "mesh")
    _predict(out, [], video="in.mp4")
    (out / "film.mp4").write_bytes(b"film")
    changed(out)
    assert _predict(out, ["7", "8"]) == _of("mesh", "7", "8") | _of("mesh") | {"film.mp4"}
    assert len(list((tmp_path / "beside").iterdir())) == len(FILES["mesh"])


def test_a_users_own_files_stay_among_those_that_go(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    _predict(out, ["1", "2"])
    _leave(elsewhere, "mesh")
    _leave(out / "person_9", "mesh")  # which the prediction does not list
    (out / "person_1" / "motion_obj").mkdir()
    for mine in ("notes.txt", "person_1/motion_obj/0.obj"):
        (out / mine).write_bytes(b"mine")
    told = json.loads((out / "prediction.json").read_text())["people"]
    (out / "person_link").symlink_to(elsewhere)
    (out / "prediction.json").write_text(json.dumps({"people": [*told, "person_link"]}))
    left = _predict(out, [])
    kept = {f"person_{name}/{file}" for name in ("9",) for file in FILES["mesh"]}
    assert left - {f"person_link/{name}" for name in FILES["mesh"]} == (
        _of("mesh") | kept | {"notes.txt", "person_1/motion_obj/0.obj"}
    )
    assert len(list(elsewhere.iterdir())) == len(FILES["mesh"])
    assert not (out / "person_2").exists()


def test_a_prediction_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = _predict(out, [])
    with pytest.raises(ValueError, match="disk"), in_place_of_earlier_prediction(out, [out / "person_1"]):
        raise ValueError("The disk is full.")
    assert {path.name for path in out.iterdir()} == before


# Somebody who stands, COCO-17.
STANDS = [
    *((0, -42), (3, -44), (-3, -44), (5, -42), (-5, -42), (10, -25), (-10, -25), (13, -12), (-13, -12)),
    *((14, 0), (-14, 0), (6, 0), (-6, 0), (7, 23), (-7, 23), (7, 46), (-7, 46)),
]


def _detections(tmp_path: Path, *people: tuple[int, float, int]) -> Path:
    """AlphaPose's file of people: their number, where they stand, in how many frames; and of a ghost, 9."""
    entries = []
    for number, x, num_frames in (*people, (9, 300.0, 3)):
        for frame in range(num_frames):
            seen = [number != 9 or joint == 0 for joint in range(17)]
            places = [(x + dx, 100 + dy, 0.9 * s) for (dx, dy), s in zip(STANDS, seen, strict=True)]
            keypoints = [float(value) for place in places for value in place]
            entries.append({"image_id": f"{frame}.jpg", "keypoints": keypoints, "score": 1.0, "idx": number})
    return write(tmp_path, entries)


def test_predictions_one_after_the_other_into_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one person, of all, and of one again, by `predict_mesh.py`; what fails leaves no trace."""
    out = tmp_path / "out"

    def predict(path: Path, *settings: str) -> set[str]:
        small = ["sheet_frames=1", "mirror_test=false", "device=cpu", f"out={out}"]
        predict_mesh.main(composed("predict_mesh", *small, f"input={path}", *settings))
        return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}

    out.mkdir()
    (out / "film.mp4").write_bytes(b"mine")
    people = _detections(tmp_path, (1, 60.0, 4), (2, 180.0, 2))
    for settings, sentence in (
        (["weights=nowhere.safetensors"], "nowhere"),
        (["person=5"], "has no person 5"),
        (["person=9"], "two keypoints of person '9'"),
        (["person=all", "frame=3", "weights=nowhere.safetensors"], "person '2', which spans 0 to 1"),
        (["frame=4", "weights=nowhere.safetensors"], "person '1', which spans 0 to 3"),
    ):
        with pytest.raises(ValueError, match=sentence):
            predict(people, *settings)
        assert [path.name for path in out.iterdir()] == ["film.mp4"]
    assert predict(people) == _of("mesh") | {"film.mp4"}
    capsys.readouterr()
    assert predict(people, "person=all", "frame=1") == _of("mesh", "1", "2") | {"film.mp4"}
    said = capsys.readouterr().out
    assert "Left out, as no frame shows two of their keypoints: 9." in said
    assert said.count("is assumed, the least that holds all keypoints") == 1
    film = read_scene(out)  # refuses people before different cameras
    assert film.camera is not None
    assert film.camera.image_size == (146, 194)
    told = json.loads((out / "person_2" / "prediction.json").read_text())
    assert (told["image_size_is_assumed"], told["video"]) == (True, None)
    assert predict(people) == _of("mesh") | {"film.mp4"}


def test_lifted_people_stay_within_their_folder(tmp_path: Path) -> None:
    """Stills are named by whoever has named their pictures and classes."""
    out = tmp_path / "a" / "b" / "out"
    landmarks = ",".join(f"{100 + 7 * j % 40},{50 + 3 * j},0" for j in range(33))

    def lift(classes: Sequence[str]) -> set[str]:
        stills = tmp_path / "stills.csv"
        stills.write_text("".join(f"a.png,{name},{landmarks}\n" for name in classes))
        small = ["sheet_frames=1", "mirror_test=false", "device=cpu", f"out={out}"]
        predict_pose.main(composed("predict_pose", *small, f"input={stills}", "person=all"))
        return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}

    for classes in (["up/left", "down"], ["down", "/../../../escaped"]):
        with pytest.raises(
            ValueError, match=r"stills\.csv has a person 'a_.*, and no folder can safely have that"
        ):
            lift(classes)
        assert [path.name for path in tmp_path.iterdir()] == ["stills.csv"]
    assert lift(["up", "down"]) == _of("pose", "a_up", "a_down")
    assert lift(["up", "left"]) == _of("pose", "a_up", "a_left")


def test_nothing_seen_is_an_error(scene: tuple[BodyParameters, Tensor]) -> None:
    track = _track(scene[1], np.arange(40))
    track.confidence[:] = 0
    with pytest.raises(ValueError, match=r"^Person '1': in no frame are two keypoints seen"):
        _predictor(scene).recover(track, K)
