"""Motions moved onto the ground: where it is, and what files and predictions make of it."""

from dataclasses import replace
from pathlib import Path

import bvhio
import numpy as np
import pytest
import torch
import trimesh
from gltf_player import GltfPlayer

from body_models.export.bvh import write_bvh
from body_models.export.glb import write_glb
from body_models.export.ground import ground_height_m, ground_offset_yup_m, moved
from body_models.export.mesh_files import write_obj, write_ply
from body_models.export.motion import export_motion, motion_parameters
from body_models.open_body import load_open_body
from body_models.smpl import SmplBody
from core.camera import R_YUP_ZUP
from core.motion.procedural import procedural_motion
from core.motion.sequence import MotionSequence

R_YUP = torch.tensor(R_YUP_ZUP)
FORMATS = ["obj", "ply", "glb", "bvh"]
# From the procedural world's floor, which is at height 0, to one far from it.
ELSEWHERE_M = np.array([1.5, 4.0, -1.7], np.float32)
TOLERANCE_M = 0.01


@pytest.fixture(scope="module")
def body() -> SmplBody:
    return load_open_body("neutral")


def _somebody_who(does: str) -> MotionSequence:
    motions = procedural_motion(num_sequences=40, num_frames=90, fps=25.0, seed=3)
    return next(motion for motion in motions if does in motion.label)


@pytest.fixture(scope="module")
def walk() -> MotionSequence:
    """Recorded from frame 30 on by a camera 1.7 m above the floor."""
    motion = _somebody_who("walk")
    return replace(
        motion,
        translation_world_m=motion.translation_world_m + ELSEWHERE_M,
        first_frame=30,
    )


def _lowest_m(body: SmplBody, motion: MotionSequence) -> np.ndarray:
    vertices_m = body(motion_parameters(motion, body, motion.frames)).vertices_m
    return vertices_m[..., 2].amin(dim=-1).numpy()


@pytest.mark.parametrize("does", ["walk", "stand", "squat", "jump"])
def test_the_ground_is_where_they_stand(body: SmplBody, does: str) -> None:
    motion = _somebody_who(does)
    lowest_m = _lowest_m(body, motion)
    assert (float(lowest_m.max()) > 0.15) is (does == "jump")
    assert abs(ground_height_m(lowest_m)) < TOLERANCE_M
    offset_m = ground_offset_yup_m(
        body,
        [motion_parameters(motion, body, motion.frames)],
        above_origin=motion_parameters(motion, body, motion.frames),
        R_yup_frame=R_YUP,
    )
    assert float(offset_m[1]) == pytest.approx(-ground_height_m(lowest_m), abs=1e-6)


def test_jumps_noise_and_steps_do_not_move_it() -> None:
    """Heights of the lowest point above a ground at -1.4 m."""
    noise_m = 0.01 * np.random.default_rng(0).standard_normal(200)
    stands = -1.4 + noise_m
    hops = stands + 0.3 * np.abs(np.sin(np.arange(200) / 5)).clip(0.5) - 0.15
    wrong, lost = stands.copy(), stands.copy()
    wrong[[40, 90, 91]] = (-3.0, 2.0, -2.5)
    lost[::5] -= 0.8
    climbs = stands + 0.17 * (np.arange(200) // 30).clip(1) - 0.17  # for 2.4 s on the lowest of seven steps
    for heights_m in (stands, hops, wrong, lost, climbs, stands[:3]):
        assert abs(ground_height_m(heights_m) + 1.4) < 0.02
    for num_frames in range(2, 9):  # however short it is
        heights_m = np.full(num_frames, -1.4)
        for frame in range(num_frames):
            assert ground_height_m(np.where(np.arange(num_frames) == frame, -9.0, heights_m)) == -1.4
    assert ground_height_m(np.array([-1.4])) == -1.4


def _export(
    out: Path, motion: MotionSequence, body: SmplBody, *, origin: str, frames: range | None = None
) -> None:
    export_motion(
        out,
        motion,
        body,
        formats=FORMATS,
        frames=frames or motion.frames,
        origin=origin,
        pose_blend_shapes=None,
        on_frame_done=lambda: None,
    )


def test_every_format_stands_on_the_ground_above_the_origin(
    body: SmplBody, walk: MotionSequence, tmp_path: Path
) -> None:
    frames = range(50, 90, 13)
    _export(tmp_path, walk, body, origin="ground", frames=frames)
    as_it_is = body(motion_parameters(walk, body, frames))
    as_it_is_m = (as_it_is.vertices_m @ R_YUP.T).numpy()
    pelvis_m = (as_it_is.joints_m[0, 0] @ R_YUP.T).numpy()
    offset_m = np.array([-pelvis_m[0], 1.7, -pelvis_m[2]])
    player = GltfPlayer(tmp_path / f"{walk.name}.glb")
    root = bvhio.readAsHierarchy(str(tmp_path / f"{walk.name}.bvh"))
    for key, frame in enumerate(frames):
        meshes = {
            kind: trimesh.load(
                tmp_path / f"{walk.name}_{kind}" / f"{frame:06d}.{kind}", process=False, maintain_order=True
            ).vertices
            for kind in ("obj", "ply")
        }
        meshes["glb"] = player.vertices(key)
        for kind, vertices_m in meshes.items():
            assert abs(vertices_m[:, 1].min()) < 0.03, kind  # between steps feet roll
            # One translation for all frames.
            np.testing.assert_allclose(vertices_m, meshes["ply"], atol=2e-5, err_msg=kind)
            np.testing.assert_allclose(vertices_m, as_it_is_m[key] + offset_m, atol=TOLERANCE_M, err_msg=kind)
        root.loadPose(key)
        pelvis_cm = np.array(list(root.PositionWorld))
        true_cm = 100 * ((as_it_is.joints_m[key, 0] @ R_YUP.T).numpy() + offset_m)
        np.testing.assert_allclose(pelvis_cm, true_cm, atol=100 * TOLERANCE_M)
        if key == 0:
            np.testing.assert_allclose(pelvis_cm[[0, 2]], 0, atol=1e-3)
            np.testing.assert_allclose(
                player.track(0, "translation")[0] @ R_YUP.numpy().T, pelvis_cm / 100, atol=1e-5
            )
            assert 0.6 < pelvis_cm[1] / 100 < 1.2


def test_the_ground_is_the_whole_motions(body: SmplBody, tmp_path: Path) -> None:
    """Who jumps in the frames that are exported is in the air in the file, too."""
    jump = _somebody_who("jump")
    highest = int(_lowest_m(body, jump).argmax())
    _export(tmp_path, jump, body, origin="ground", frames=range(highest, highest + 1))
    assert GltfPlayer(tmp_path / f"{jump.name}.glb").vertices(0)[:, 1].min() > 0.15


def test_as_is_nothing_moves(body: SmplBody, walk: MotionSequence, tmp_path: Path) -> None:
    """Byte for byte what the writers make of the motion itself."""
    frames = range(30, 33)
    _export(tmp_path / "out", walk, body, origin="as_is", frames=frames)
    parameters = motion_parameters(walk, body, frames)
    plain = tmp_path / "plain"
    placed = {"fps": walk.fps, "R_yup_frame": R_YUP}
    write_bvh(plain / f"{walk.name}.bvh", body, parameters, **placed)
    write_glb(plain / f"{walk.name}.glb", body, parameters, **placed, name=walk.name, start_s=30 / walk.fps)
    for frame, vertices_m in zip(frames, body(parameters).vertices_m @ R_YUP.T, strict=True):
        for kind, write in (("obj", write_obj), ("ply", write_ply)):
            write(plain / f"{walk.name}_{kind}" / f"{frame:06d}.{kind}", vertices_m, body.faces)
    paths = sorted(path.relative_to(plain) for path in plain.rglob("*.*"))
    assert len(paths) == 8
    for path in paths:
        assert (tmp_path / "out" / path).read_bytes() == (plain / path).read_bytes(), path


def test_people_keep_their_places(body: SmplBody, walk: MotionSequence) -> None:
    """The ground of most of their frames counts, and one translation moves them all."""
    people = [
        motion_parameters(replace(walk, translation_world_m=walk.translation_world_m + shift), body, frames)
        for shift, frames in (
            (np.zeros(3, np.float32), range(30, 120)),
            (np.array([2.0, 1.0, -0.1], np.float32), range(30, 90)),
            (np.array([-9.0, 9.0, -5.0], np.float32), range(40, 50)),  # a reflection on the floor, say
        )
    ]
    offset_m = ground_offset_yup_m(body, people, above_origin=people[1], R_yup_frame=R_YUP)
    assert float(offset_m[1]) == pytest.approx(1.7, abs=TOLERANCE_M)
    before, after = (
        [body(person.select([0])).joints_m[0, 0] @ R_YUP.T for person in all_of_them]
        for all_of_them in (people, [moved(person, offset_m, R_YUP) for person in people])
    )
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other - one, offset_m, atol=1e-5, rtol=0)
    assert after[1][[0, 2]].abs().max() < 1e-5


def test_long_motions_are_told_by_some_of_their_frames(
    body: SmplBody, walk: MotionSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = motion_parameters(walk, body, walk.frames)
    settings = {"above_origin": whole, "R_yup_frame": R_YUP}
    of_all = ground_offset_yup_m(body, [whole], **settings)
    monkeypatch.setattr("body_models.export.ground._MOST_FRAMES", 20)
    torch.testing.assert_close(ground_offset_yup_m(body, [whole], **settings), of_all, atol=0.005, rtol=0)
