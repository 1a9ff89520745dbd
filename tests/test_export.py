"""Written meshes, read back by trimesh and by hand; rigged ones, played as glTF's specification says."""

import shutil
from dataclasses import replace
from pathlib import Path

import bvhio
import numpy as np
import pytest
import torch
import trimesh
from body_fixtures import random_body_arrays, random_body_parameters
from command_fixtures import run_tool
from gltf_player import GltfPlayer

from body_models.export.bvh import write_bvh
from body_models.export.glb import write_glb
from body_models.export.mesh_files import write_obj, write_ply
from body_models.export.motion import (
    check_export,
    chosen_formats,
    chosen_frames,
    export_motion,
    frames_for_sheet,
    motion_parameters,
    read_motion_to_export,
    shape_remark,
)
from body_models.export.rigged import licence_remark
from body_models.open_body import load_open_body
from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody
from core.camera import R_YUP_ZUP
from core.motion.procedural import procedural_motion
from core.motion.sequence import MotionSequence, write_motion_npz
from core.rotations import rotvec_to_rotmat
from core.skeleton import SMPL_24

R_YUP = torch.tensor(R_YUP_ZUP)


@pytest.fixture(scope="module")
def open_body() -> SmplBody:
    return load_open_body("neutral")


@pytest.fixture(scope="module")
def motion(open_body: SmplBody) -> MotionSequence:
    sequence = procedural_motion(num_sequences=1, num_frames=12, fps=25.0, seed=3)[0]
    return replace(sequence, betas=np.linspace(-1, 1, 10).astype(np.float32), body_model="open")


def random_parameters(num_frames: int) -> BodyParameters:
    drawn = random_body_parameters(num_frames, dtype=torch.float32)
    return BodyParameters(drawn.root_rotmat, drawn.body_rotmat, drawn.betas[:1], drawn.translation_m)


def test_obj_is_read_back_by_trimesh(tmp_path: Path) -> None:
    body = SmplBody.from_arrays(random_body_arrays())
    vertices_m = body(random_body_parameters(dtype=torch.float32)).vertices_m.requires_grad_()
    path = tmp_path / "not_there_yet" / "body.obj"
    write_obj(path, vertices_m, body.faces)
    mesh = trimesh.load(path, process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, vertices_m.detach(), atol=1e-5)
    np.testing.assert_array_equal(mesh.faces, body.faces)
    assert [file.name for file in path.parent.iterdir()] == ["body.obj"]


def test_obj_counts_from_one(tmp_path: Path) -> None:
    write_obj(tmp_path / "a.obj", np.array([[0, 1, -2], [0.5, 0, 0], [1e-7, 0, 3.25]]), np.array([[0, 1, 2]]))
    assert (tmp_path / "a.obj").read_bytes() == (
        b"v 0.00000 1.00000 -2.00000\nv 0.50000 0.00000 0.00000\nv 0.00000 0.00000 3.25000\nf 1 2 3\n"
    )


def test_a_refused_mesh_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    vertices, faces = np.eye(3), np.array([[0, 1, 2]])
    write_obj(path, vertices, faces)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"a\.obj was not written: its faces name vertices outside 0 … 2"):
        write_obj(path, vertices, faces + 1)
    with pytest.raises(ValueError, match="not finite"):
        write_obj(path, vertices * np.nan, faces)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_ply_is_read_back_by_trimesh(tmp_path: Path) -> None:
    body = SmplBody.from_arrays(random_body_arrays())
    vertices_m = body(random_body_parameters(dtype=torch.float32)).vertices_m.requires_grad_()
    write_ply(tmp_path / "body.ply", vertices_m, body.faces)
    mesh = trimesh.load(tmp_path / "body.ply", process=False, maintain_order=True)
    np.testing.assert_array_equal(mesh.vertices.astype(np.float32), vertices_m.detach())
    np.testing.assert_array_equal(mesh.faces, body.faces)
    with pytest.raises(ValueError, match=r"body\.ply was not written: its faces"):
        write_ply(tmp_path / "body.ply", vertices_m, body.faces + 90)


def test_a_played_glb_is_the_body(open_body: SmplBody, motion: MotionSequence, tmp_path: Path) -> None:
    parameters = motion_parameters(motion, open_body, range(12))
    write_glb(tmp_path / "a.glb", open_body, parameters, fps=25.0, R_yup_frame=R_YUP, name="a")
    player = GltfPlayer(tmp_path / "a.glb")
    np.testing.assert_allclose(player.key_times_s(), np.arange(12) / 25, atol=1e-6)
    true_m = (open_body(parameters).vertices_m @ R_YUP.T).numpy()
    for key in (0, 7, 11):
        np.testing.assert_allclose(player.vertices(key), true_m[key], atol=1e-5)
    assert true_m[:, :, 1].max() > 1.2 > np.abs(true_m[:, :, 1].min())  # a standing person, y up


def test_without_pose_blend_shapes_the_joints_alone_move_it(
    open_body: SmplBody, motion: MotionSequence, tmp_path: Path
) -> None:
    parameters = motion_parameters(motion, open_body, range(12))
    for name, shapes in (("with", True), ("without", False)):
        write_glb(
            tmp_path / f"{name}.glb",
            open_body,
            parameters,
            fps=25.0,
            R_yup_frame=R_YUP,
            name="a",
            pose_blend_shapes=shapes,
        )
    player = GltfPlayer(tmp_path / "without.glb")
    assert "targets" not in player.primitive
    true_m = (open_body(parameters).vertices_m[5] @ R_YUP.T).numpy()
    distance_m = np.linalg.norm(player.vertices(5) - true_m, axis=1)
    assert 1e-4 < distance_m.mean() < 2e-3
    assert (tmp_path / "without.glb").stat().st_size < (tmp_path / "with.glb").stat().st_size / 2


def test_any_body_of_smpls_form_can_be_played(tmp_path: Path) -> None:
    arrays = random_body_arrays()
    # glTF files hold eight joints a vertex at most; SMPL has four.
    least_kept = np.sort(arrays["weights"], axis=1)[:, -4:][:, :1]
    weights = np.where(arrays["weights"] >= least_kept, arrays["weights"], 0)
    body = SmplBody.from_arrays(arrays | {"weights": weights / weights.sum(axis=1, keepdims=True)})
    parameters = random_parameters(9)  # turns of radians from frame to frame
    write_glb(
        tmp_path / "a.glb",
        body,
        parameters,
        fps=30.0,
        R_yup_frame=torch.eye(3),
        name="a",
        pose_blend_shapes=True,
    )
    player = GltfPlayer(tmp_path / "a.glb")
    assert {"JOINTS_0", "WEIGHTS_0"} < set(player.primitive["attributes"])
    assert "JOINTS_1" not in player.primitive["attributes"]
    for key in range(9):
        np.testing.assert_allclose(player.vertices(key), body(parameters).vertices_m[key], atol=2e-5)
    for joint in range(24):
        turns = player.track(joint, "rotation")
        assert ((turns[1:] * turns[:-1]).sum(axis=1) >= 0).all()  # players go the short way


def test_trimesh_reads_the_mesh_of_a_glb(open_body: SmplBody, motion: MotionSequence, tmp_path: Path) -> None:
    parameters = motion_parameters(motion, open_body, range(1))
    write_glb(tmp_path / "a.glb", open_body, parameters, fps=25.0, R_yup_frame=R_YUP, name="someone")
    (mesh,) = trimesh.load(tmp_path / "a.glb", process=False).geometry.values()
    np.testing.assert_allclose(mesh.vertices, open_body.rest_vertices(parameters.betas)[0], atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, open_body.faces)
    outwards = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).vertex_normals
    assert (np.sum(mesh.vertex_normals * outwards, axis=1) > 0.9).mean() > 0.99


def test_a_glb_that_cannot_be_is_not_written(open_body: SmplBody, tmp_path: Path) -> None:
    some, path = random_parameters(3), tmp_path / "a.glb"
    none = BodyParameters(some.root_rotmat[:0], some.body_rotmat[:0], some.betas, some.translation_m[:0])
    shapes = BodyParameters(some.root_rotmat, some.body_rotmat, some.betas.expand(3, -1), some.translation_m)
    lost = BodyParameters(some.root_rotmat, some.body_rotmat, some.betas, some.translation_m * torch.nan)
    for parameters, sentence in ((none, "no frame"), (shapes, "one shape"), (lost, "not finite")):
        with pytest.raises(ValueError, match=rf"a\.glb was not written: .*{sentence}"):
            write_glb(path, open_body, parameters, fps=30.0, R_yup_frame=torch.eye(3), name="a")
        with pytest.raises(ValueError, match=rf"a\.bvh was not written: .*{sentence}"):
            write_bvh(tmp_path / "a.bvh", open_body, parameters, fps=30.0, R_yup_frame=torch.eye(3))
    assert not list(tmp_path.iterdir())


def _bvh_joints_cm(path: Path, frame: int) -> dict[str, np.ndarray]:
    """Where bvhio, a program of others, puts the joints."""
    root = bvhio.readAsHierarchy(str(path))
    root.loadPose(frame)
    return {joint.Name: np.array(list(joint.PositionWorld)) for joint, _, _ in root.layout()}


def test_bvhio_finds_the_joints_of_a_bvh(open_body: SmplBody, motion: MotionSequence, tmp_path: Path) -> None:
    parameters = motion_parameters(motion, open_body, range(12))
    write_bvh(tmp_path / "a.bvh", open_body, parameters, fps=25.0, R_yup_frame=R_YUP)
    true_cm = 100 * (open_body(parameters).joints_m @ R_YUP.T).numpy()
    for frame in (0, 5, 11):
        joints_cm = _bvh_joints_cm(tmp_path / "a.bvh", frame)
        assert set(joints_cm) == set(SMPL_24.joint_names)
        for name, position_cm in zip(SMPL_24.joint_names, true_cm[frame], strict=True):
            np.testing.assert_allclose(joints_cm[name], position_cm, atol=2e-3, err_msg=name)
    content = bvhio.readAsBvh(str(tmp_path / "a.bvh"))
    assert (content.FrameCount, content.FrameTime) == (12, 0.04)
    ends_cm = {
        joint.Name: np.array(list(joint.EndSite))
        for joint, _, _ in content.Root.layout()
        if not joint.Children
    }
    assert set(ends_cm) == {
        "head",
        *(f"{side}_{leaf}" for side in ("left", "right") for leaf in ("hand", "foot")),
    }
    assert ends_cm["left_hand"][0] > 5 > -5 > ends_cm["right_hand"][0]  # fingertips of a T-pose
    assert ends_cm["left_foot"][2] > 3  # toes point to the front
    assert "-0.0000 " not in (tmp_path / "a.bvh").read_text()


def test_a_bvh_of_any_rotations_has_no_jumps(tmp_path: Path) -> None:
    body = SmplBody.from_arrays(random_body_arrays())
    start, turning = random_parameters(1), torch.linspace(0, 12, 200)
    spin = rotvec_to_rotmat(turning[:, None] * torch.tensor([0.6, -0.64, 0.48]))  # two turns about one axis
    parameters = BodyParameters(
        spin @ start.root_rotmat,
        (spin[:, None] @ start.body_rotmat),
        start.betas,
        start.translation_m.expand(200, 3),
    )
    write_bvh(tmp_path / "a.bvh", body, parameters, fps=30.0, R_yup_frame=torch.eye(3))
    numbers = np.loadtxt((tmp_path / "a.bvh").read_text().partition("Frame Time:")[2].splitlines()[1:])
    assert np.abs(np.diff(numbers[:, 3:], axis=0)).max() < 90
    true_cm = 100 * body(parameters).joints_m.numpy()
    joints_cm = _bvh_joints_cm(tmp_path / "a.bvh", 150)
    for name, position_cm in zip(SMPL_24.joint_names, true_cm[150], strict=True):
        np.testing.assert_allclose(joints_cm[name], position_cm, atol=5e-3, err_msg=name)


def test_frames_are_the_videos(motion: MotionSequence) -> None:
    assert chosen_frames(motion, None) == range(12)
    late = replace(motion, first_frame=30, name="late")
    assert chosen_frames(late, None) == range(30, 42)
    assert chosen_frames(late, [32, 40]) == range(32, 40)
    assert chosen_frames(late, [30, 42, 5]) == range(30, 42, 5)
    assert motion_parameters(late, load_open_body(), [33]).translation_m[0].tolist() == pytest.approx(
        motion.translation_world_m[3].tolist()
    )
    for wrong in ([40, 32], [30, 43], [29, 35], [30, 42, 0], [35], [], 35, [30.5, 40], [True, 40], "all"):
        with pytest.raises(
            ValueError, match=r"are no frames of late, which has 30 to 41; give \[start, stop\]"
        ):
            chosen_frames(late, wrong)


def test_formats_and_columns() -> None:
    assert chosen_formats(["ply", "glb", "ply"]) == ("ply", "glb")
    for wrong in (["fbx"], [], None, "obj", 3, [["obj"]]):
        with pytest.raises(ValueError, match="must name some of obj, ply, glb, bvh"):
            chosen_formats(wrong)
    assert frames_for_sheet(range(10, 20), 2) == [10, 19]
    assert frames_for_sheet(range(10, 12), 8) == [10, 11]
    for columns in (0, 2.5, None):
        with pytest.raises(ValueError, match=f"sheet_frames={columns} is no such number"):
            frames_for_sheet(range(9), columns)


def _export(
    out: Path, motion: MotionSequence, body: SmplBody, formats: list[str], frames: range
) -> list[Path]:
    return export_motion(
        out,
        motion,
        body,
        formats=formats,
        frames=frames,
        origin="as_is",
        pose_blend_shapes=False,
        on_frame_done=lambda: None,
    )


def test_numbered_files_of_a_motion(open_body: SmplBody, motion: MotionSequence, tmp_path: Path) -> None:
    late = replace(motion, first_frame=30)
    bvh, glb, folder = _export(tmp_path, late, open_body, ["obj", "glb", "bvh"], range(32, 42, 4))
    assert [path.name for path in (bvh, glb, folder)] == [
        f"{late.name}{end}" for end in (".bvh", ".glb", "_obj")
    ]
    assert [path.name for path in sorted(folder.iterdir())] == ["000032.obj", "000036.obj", "000040.obj"]
    true_m = open_body(motion_parameters(motion, open_body, [6])).vertices_m[0] @ R_YUP.T
    mesh = trimesh.load(folder / "000036.obj", process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, true_m, atol=1e-5)
    # People of one video line up: times count from its frame 0.
    np.testing.assert_allclose(GltfPlayer(glb).key_times_s(), (32 + np.arange(3) * 4) / 25, atol=1e-6)
    # Single precision has no steps so late: times begin at 0.
    (glb,) = _export(
        tmp_path, replace(motion, first_frame=10**8), open_body, ["glb"], range(10**8, 10**8 + 3)
    )
    np.testing.assert_allclose(GltfPlayer(glb).key_times_s(), np.arange(3) / 25, atol=1e-6)


def test_an_export_replaces_the_one_before_and_nothing_else(
    open_body: SmplBody, motion: MotionSequence, tmp_path: Path
) -> None:
    (folder,) = _export(tmp_path, motion, open_body, ["ply"], range(5))
    _export(tmp_path, motion, open_body, ["ply"], range(2, 4))
    assert sorted(path.name for path in folder.iterdir()) == ["000002.ply", "000003.ply"]
    (folder / ".DS_Store").write_text("a file manager's")
    _export(tmp_path, motion, open_body, ["ply"], range(2, 4))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(
        ValueError, match=r"holds notes\.txt, which is no numbered \.ply file of an earlier export"
    ):
        _export(tmp_path, motion, open_body, ["ply", "glb"], range(5))
    assert sorted(path.name for path in folder.iterdir()) == ["000002.ply", "000003.ply", "notes.txt"]
    (folder / "notes.txt").unlink()
    (folder / ".git").mkdir()
    with pytest.raises(ValueError, match=r"holds \.git, which is no numbered"):
        _export(tmp_path, motion, open_body, ["ply"], range(5))
    assert (folder / ".git").is_dir()
    (tmp_path / "out" / f"{motion.name}.glb").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"\.glb is a folder, and a file is to be"):
        _export(tmp_path / "out", motion, open_body, ["bvh", "glb"], range(5))
    assert len(list((tmp_path / "out").iterdir())) == 1
    with pytest.raises(ValueError, match=r"pose_blend_shapes=true is of \.glb files"):
        check_export(tmp_path, motion, formats=["obj"], origin="as_is", pose_blend_shapes=True)
    shutil.rmtree(tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]


def test_what_predictions_are_called(motion: MotionSequence, tmp_path: Path) -> None:
    for person in ("person_0", "person_1"):
        (tmp_path / person).mkdir()
        write_motion_npz(tmp_path / person / "motion.npz", motion)
    assert read_motion_to_export(tmp_path / "person_1" / "motion.npz").name == "person_1"
    write_motion_npz(tmp_path / "walk.npz", motion)
    assert read_motion_to_export(tmp_path / "walk.npz").name == "walk"


def test_betas_of_another_body_model_are_not_used(open_body: SmplBody, motion: MotionSequence) -> None:
    assert shape_remark(motion, open_body, "neutral") is None
    assert motion_parameters(motion, open_body, [0]).betas.abs().max() == 1
    recorded = replace(motion, body_model="smpl")  # as AMASS's files are
    remark = shape_remark(recorded, open_body, "neutral") or ""
    assert "is of the body model smpl and means nothing to open" in remark
    assert not motion_parameters(recorded, open_body, [0]).betas.any()


def test_shapes_of_smpls_genders(motion: MotionSequence) -> None:
    smpl = SmplBody.from_arrays(random_body_arrays(num_vertices=6890))
    recorded = replace(motion, body_model="smpl", gender="female")
    assert shape_remark(recorded, smpl, "female") is None
    assert motion_parameters(recorded, smpl, [0]).betas.abs().max() == 1
    assert "body_model.gender=female has its own" in (shape_remark(recorded, smpl, "neutral") or "")
    of_smplx = replace(motion, body_model="smplx")
    assert "of the body model smplx and means nothing to smpl" in (
        shape_remark(of_smplx, smpl, "neutral") or ""
    )
    assert not motion_parameters(of_smplx, smpl, [0]).betas.any()
    without_shape = replace(of_smplx, betas=np.zeros(10, np.float32))
    assert shape_remark(without_shape, smpl, motion.gender) is None
    assert shape_remark(replace(without_shape, gender="neutral"), smpl, "male") is None
    remark = shape_remark(replace(without_shape, gender="female"), smpl, "neutral") or ""
    assert "the neutral one's mean shape; body_model.gender=female has its own" in remark


def test_smpls_blend_shapes_stay_where_they_are_unless_asked_for(open_body: SmplBody, tmp_path: Path) -> None:
    smpl = SmplBody.from_arrays(random_body_arrays(num_vertices=6890))
    for name, body, asked, there in (
        ("a", smpl, None, False),
        ("b", smpl, True, True),
        ("c", open_body, None, True),
        ("d", open_body, False, False),
    ):
        write_glb(
            tmp_path / f"{name}.glb",
            body,
            random_parameters(2),
            fps=30.0,
            R_yup_frame=torch.eye(3),
            name=name,
            pose_blend_shapes=asked,
        )
        assert ("targets" in GltfPlayer(tmp_path / f"{name}.glb").primitive) is there
    assert licence_remark("a.glb", open_body) is None
    assert "the licence of smpl says who may have it" in (licence_remark("a.glb", smpl) or "")


def test_the_command(motion: MotionSequence, tmp_path: Path) -> None:
    file, out = tmp_path / "walk.npz", tmp_path / "out"
    write_motion_npz(file, motion)
    finished = run_tool("export_mesh.py", f"motion={file}", f"out={out}", "frames=[0,12,6]", "sheet_frames=2")
    assert finished.returncode == 0, finished.stderr
    assert {path.name for path in out.iterdir()} == {"walk.glb", "walk_obj", "walk_sheet.png"}
    assert len(list((out / "walk_obj").iterdir())) == 2
    assert "licence" not in finished.stdout
    chosen = ["origin=ground", "formats=[obj]", "frames=[0,1]", "sheet_frames=1"]
    finished = run_tool("export_mesh.py", f"motion={file}", f"out={tmp_path / 'ground'}", *chosen)
    assert finished.returncode == 0, finished.stderr
    mesh = trimesh.load(tmp_path / "ground" / "walk_obj" / "000000.obj", process=False)
    assert abs(mesh.bounds[0, 1]) < 0.03
    for arguments, sentence in (
        ([f"motion={tmp_path / 'no.npz'}"], "no.npz"),
        ([f"motion={file}", "formats=[fbx]"], "must name some of obj, ply, glb"),
        ([f"motion={file}", "formats=null"], "formats takes a list"),
        ([f"motion={file}", "frames=[0,13]"], "are no frames of walk, which has 0 to 11"),
        ([f"motion={file}", "frames=10"], "give [start, stop]"),
        ([f"motion={file}", "origin=floor"], "origin=floor is not a choice; choose one of as_is, ground."),
        ([f"motion={file}", "origin=null"], "origin takes text"),
        ([f"motion={file}", "pose_blend_shapes=no"], "must be true, false or null, not no"),
        ([f"motion={file}", "sheet_frames=2.5"], "sheet_frames=2.5"),
        ([f"motion={file}", "out=null"], "out takes text"),
        (["motion=null"], "motion has to be given"),
        ([], "motion"),
    ):
        refused = run_tool("export_mesh.py", f"out={tmp_path / 'refused'}", *arguments)
        assert refused.returncode == 2, arguments
        assert sentence in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert not (tmp_path / "refused").exists()
