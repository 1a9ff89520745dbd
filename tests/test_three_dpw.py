import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mesh_fixtures import GENDERS, motionbert_mesh_content, three_dpw_content, write_three_dpw
from pickle_fixtures import write_python2_pickle
from test_mesh_sequences import ODD_VALUES

from body_models.open_body import load_open_body
from body_models.parameters import BodyParameters
from core.camera import world_to_camera
from core.datasets import resumable_jobs
from core.datasets.mesh_sequences import find_mesh_sequences, read_mesh_sequence
from core.datasets.preparation import PREPARERS, PreparationReport
from core.datasets.three_dpw import read_three_dpw
from core.rotations import rotvec_to_rotmat
from core.skeleton import COCO_17, COCO_18, H36M_17


def _prepare(root: Path, out: Path, **options: Any) -> PreparationReport:
    return PREPARERS["3dpw"](root, out, on_progress=lambda done, of: None, **{"workers": 1, **options})


def test_archive_to_sequences(tmp_path: Path) -> None:
    content = write_three_dpw(tmp_path / "3DPW", "test", "downtown_walk_00")
    content["poses2d"][1][3] = 0  # fewer than six joints were detected
    content["campose_valid"][0][:2] = False
    content["cam_poses"][0] = np.nan
    content["campose_valid"][1][0] = False
    write_python2_pickle(tmp_path / "3DPW/sequenceFiles/test/downtown_walk_00.pkl", content)
    write_three_dpw(tmp_path / "3DPW", "train", "outdoors_run_00", genders=("f",), seed=3)
    progress: list[tuple[int, int]] = []
    report = PREPARERS["3dpw"](
        tmp_path / "3DPW", tmp_path / "out", on_progress=lambda *of: progress.append(of), workers=1
    )
    assert progress == [(0, 2), (1, 2), (2, 2)]
    paths = find_mesh_sequences(tmp_path / "out", "test")
    assert [path.stem for path in paths] == ["downtown_walk_00_0", "downtown_walk_00_1"]
    first, second = map(read_mesh_sequence, paths)
    assert (first.gender, second.gender) == ("male", "female")
    assert (first.image_size, first.fps) == ((1920, 1080), 30.0)
    assert first.frame_ids.tolist() == list(range(12))
    np.testing.assert_array_equal(second.betas, content["betas"][1][:10])
    np.testing.assert_array_equal(second.evaluated, [False, True, True, False, *[True] * 8])
    assert first.evaluated.sum() == 10
    assert second.valid_frames.sum() == 11

    keypoints = content["poses2d"][0].transpose(0, 2, 1)
    for joint in ("nose", "left_wrist", "right_ankle", "left_hip"):
        np.testing.assert_allclose(
            first.keypoints_px[:, H36M_17.index(joint)], keypoints[:, COCO_18.index(joint), :2], rtol=1e-6
        )
    np.testing.assert_allclose(
        first.keypoints_px[:, H36M_17.index("thorax")], keypoints[:, COCO_18.index("neck"), :2], rtol=1e-6
    )
    assert not second.confidence[3].any()
    assert (first.confidence > 0).all()

    assert report.counts["test person-frames"] == 24
    assert report.counts["test valid person-frames"] == 21
    assert report.counts["test evaluated person-frames"] == 20
    assert "The complete 3DPW has 24 test sequences; 1 were found." in report.warnings
    assert "The complete 3DPW has 35515 test valid person-frames; 21 were found." in report.warnings


def test_body_in_the_camera_is_the_body_in_the_world_seen_by_the_camera(tmp_path: Path) -> None:
    """The root turns about the rest pelvis, so the translation is not just moved along with the camera."""
    content = write_three_dpw(tmp_path, "validation", "a")
    _prepare(tmp_path, tmp_path / "out")
    for path in find_mesh_sequences(tmp_path / "out", "validation"):
        sequence = read_mesh_sequence(path)
        assert sequence.poses_rotvec is not None
        body = load_open_body(sequence.gender).double()
        betas = torch.from_numpy(sequence.betas)[None]
        poses = torch.from_numpy(sequence.poses_rotvec)
        world = BodyParameters.from_rotvec(poses, betas, torch.from_numpy(sequence.translation_world_m))
        seen = world_to_camera(
            body(world).vertices_m,
            torch.from_numpy(sequence.R_cam_world),
            torch.from_numpy(sequence.t_cam_world_m),
        )
        root, translation = sequence.parameters_cam(body.shape(betas[0]).rest_joints_m[0])
        assert translation is not None
        camera = BodyParameters(root, rotvec_to_rotmat(poses[:, 1:]), betas, translation)
        torch.testing.assert_close(body(camera).vertices_m, seen, atol=1e-6, rtol=0)
        as_world = BodyParameters(
            root, camera.body_rotmat, betas, torch.from_numpy(sequence.translation_world_m)
        )
        assert (body(as_world).vertices_m - seen).norm(dim=-1).min() > 1  # a well-known mistake
    assert content["genders"] == ["m", "f"]


def test_60_hz_goes_through_the_images(tmp_path: Path) -> None:
    content = write_three_dpw(tmp_path, "test", "a")
    _prepare(tmp_path, tmp_path / "30")
    _prepare(tmp_path, tmp_path / "60", rate=60)
    at_30 = read_mesh_sequence(tmp_path / "30/test/a_1.npz")
    at_60 = read_mesh_sequence(tmp_path / "60/test/a_1.npz")
    assert at_60.fps == 60
    np.testing.assert_array_equal(at_60.frame_ids, np.arange(1, 24))  # from the first image to the last one
    for key in ("poses_rotvec", "translation_world_m", "keypoints_px", "confidence", "evaluated"):
        np.testing.assert_array_equal(getattr(at_60, key)[::2], getattr(at_30, key), err_msg=key)
    np.testing.assert_allclose(at_60.R_cam_world[::2], at_30.R_cam_world, atol=1e-9)
    np.testing.assert_allclose(at_60.t_cam_world_m[::2], at_30.t_cam_world_m, atol=1e-7)
    np.testing.assert_array_equal(at_60.poses_rotvec[1], content["poses_60Hz"][1][2].reshape(24, 3))
    assert not at_60.evaluated[1::2].any()
    assert not at_60.confidence[1::2].any()
    # Half way in angle and in place.
    R = at_60.R_cam_world
    np.testing.assert_allclose(R[1] @ R[0].T, R[2] @ R[1].T, atol=1e-9)
    centres = -np.einsum("fji,fj->fi", R, at_60.t_cam_world_m)
    np.testing.assert_allclose(centres[1], (centres[0] + centres[2]) / 2, atol=1e-6)
    # An image whose camera is wrong spoils itself and the frames beside it, not the images beside it.
    content["campose_valid"][1][3] = False
    write_python2_pickle(tmp_path / "sequenceFiles/test/a.pkl", content)
    _prepare(tmp_path, tmp_path / "60", rate=60)
    at_60 = read_mesh_sequence(tmp_path / "60/test/a_1.npz")
    assert np.nonzero(~at_60.valid_frames)[0].tolist() == [5, 6, 7]
    assert np.nonzero(~at_60.evaluated[::2])[0].tolist() == [3]
    with pytest.raises(ValueError, match="rate=50 is neither"):
        _prepare(tmp_path, tmp_path / "50", rate=50)


def test_detections_go_to_whom_they_overlap(tmp_path: Path) -> None:
    content = three_dpw_content("a")
    order = [COCO_18.index(name) if name in COCO_18.joint_names else 0 for name in COCO_17.joint_names]
    detections = []
    for frame in range(12):
        for person in (1, 0):  # the detector's order is another one
            xy = content["poses2d"][person][frame, :2, order] + 2.0
            keypoints = np.concatenate([xy, np.full((17, 1), 0.9)], axis=1)
            detections.append(
                {"image_id": f"{frame}.jpg", "category_id": 1, "keypoints": keypoints.ravel().tolist(),
                 "score": 2.0, "idx": [float(7 + person)]}
            )  # fmt: skip
        stranger = np.concatenate([xy + 4000.0, np.full((17, 1), 1.0)], axis=1).ravel().tolist()
        detections.append({**detections[-1], "keypoints": stranger, "idx": [3.0], "score": 3.0})
    content["poses2d"][0][5] = 0
    write_python2_pickle(tmp_path / "3DPW/sequenceFiles/test/a.pkl", content)
    folder = tmp_path / "alphapose"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(detections))
    _prepare(tmp_path / "3DPW", tmp_path / "out", keypoints=str(folder))
    for person, gender in enumerate("mf"):
        sequence = read_mesh_sequence(tmp_path / f"out/test/a_{person}.npz")
        assert sequence.gender == GENDERS[gender]
        wrist = sequence.keypoints_px[:, H36M_17.index("left_wrist")]
        expected = content["poses2d"][person][:, :2, COCO_18.index("left_wrist")] + 2.0
        there = np.arange(12) != (5 if person == 0 else -1)
        np.testing.assert_allclose(wrist[there], expected[there], rtol=1e-5)
        # Where 3DPW has no keypoints of the person, the detector's track goes on; the frame is still not counted.
        assert (sequence.confidence[:, H36M_17.index("left_wrist")] > 0.8).all()
        np.testing.assert_array_equal(sequence.evaluated, there)
    (folder / "a.json").write_text(json.dumps([d | {"score": 0.5} for d in detections if d["idx"] != [8.0]]))
    # New detections are read; the folder is the same by whatever name.
    with contextlib.chdir(folder.parent):
        report = _prepare(tmp_path / "3DPW", tmp_path / "out", keypoints=folder.name)
    assert not read_mesh_sequence(tmp_path / "out/test/a_1.npz").confidence.any()
    assert report.warnings[-1].startswith("a: 12 of 12 evaluated frames of person 1 have no detection")
    assert not any("person 0" in warning for warning in report.warnings)
    (folder / "a.json").write_text(json.dumps([d for d in detections if d["idx"] == [3.0]]))
    with pytest.raises(ValueError, match=r"a\.json holds no detection that overlaps anybody of 3DPW's a;"):
        _prepare(tmp_path / "3DPW", tmp_path / "out", keypoints=str(folder))
    (folder / "a.json").rename(folder / "b.json")
    with pytest.raises(ValueError, match=r"0 files named a\.\*"):
        _prepare(tmp_path / "3DPW", tmp_path / "again", keypoints=str(folder))


def test_what_is_done_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        write_three_dpw(tmp_path, "test", name, genders=("m",), num_images=3)
    damaged = tmp_path / "sequenceFiles/test/b.pkl"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"b\.pkl.*What could be prepared is kept"):
        _prepare(tmp_path, tmp_path / "out")
    assert sorted(path.stem for path in (tmp_path / "out/test").iterdir()) == ["a_0", "c_0"]
    with pytest.raises(ValueError, match=r"does not say that the preparation was finished"):
        find_mesh_sequences(tmp_path / "out", "test")
    damaged.write_bytes(whole)
    read: list[str] = []
    from core.datasets import three_dpw

    original = three_dpw.read_three_dpw
    monkeypatch.setattr(
        three_dpw, "read_three_dpw", lambda path, **kw: (read.append(path.stem), original(path, **kw))[1]
    )
    report = _prepare(tmp_path, tmp_path / "out")
    assert read == ["b"]
    assert [path.stem for path in find_mesh_sequences(tmp_path / "out", "test")] == ["a_0", "b_0", "c_0"]
    assert report.counts["test sequences"] == 3
    (tmp_path / "out/test/c_0.npz").unlink()
    _prepare(tmp_path, tmp_path / "out")
    assert read == ["b", "c"]
    with pytest.raises(ValueError, match=r"was prepared with .*'rate': 30.* name another folder"):
        _prepare(tmp_path, tmp_path / "out", rate=60)
    assert resumable_jobs.JobLog(tmp_path / "fresh", {}).result("a", []) is None


def test_mistakes_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test/a.pkl").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"a\.pkl"):
        _prepare(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"poses": [np.zeros((12, 70))] * 2}, r"'poses' of shape \(12, 70\), not \(12, 72\)"),
        ({"genders": ["x", "f"]}, "'genders' with 'x', which is neither"),
        ({"cam_poses": np.zeros((11, 4, 4))}, r"'cam_poses' of shape \(11, 4, 4\)"),
        ({"betas": [np.zeros(10)]}, "'betas' of 1 people"),
        ({"trans": [np.full((12, 3), np.nan)] * 2}, "'trans' that are not finite"),
        ({"poses2d": ["nothing"] * 2}, "'poses2d' that are no numbers"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    write_python2_pickle(tmp_path / "test" / "a.pkl", three_dpw_content("a") | changes)
    with pytest.raises(ValueError, match=rf"a\.pkl holds {problem}"):
        _prepare(tmp_path, tmp_path / "out")


OTHER_UNITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "degrees": (lambda t: t.update(poses=[np.rad2deg(p) for p in t["poses"]]), "radians are expected"),
    "millimetres": (
        lambda t: t.update(trans=[1000 * p for p in t["trans"]]),
        r"put them .*metres",
    ),
    "camera_to_world": (
        lambda t: t.update(cam_poses=np.linalg.inv(t["cam_poses"])),
        r"put them .*from the world to the camera",
    ),
    "camera_in_mm": (
        lambda t: t.update(cam_poses=t["cam_poses"] * [[1, 1, 1, 1000]]),
        r"put them .*metres",
    ),
    "normalised_2d": (lambda t: t.update(poses2d=[p / 1000 for p in t["poses2d"]]), "pixels are expected"),
    "another_corner": (
        lambda t: t.update(poses2d=[p + np.array([[4000], [4000], [0]]) for p in t["poses2d"]]),
        "far outside of a picture",
    ),
    "no_keypoints": (lambda t: t.update(poses2d=[0 * p for p in t["poses2d"]]), "no keypoint of anybody"),
}


@pytest.mark.parametrize("change", OTHER_UNITS)
def test_other_units_and_frames_are_refused(tmp_path: Path, change: str) -> None:
    content = three_dpw_content("a")
    changed, sentence = OTHER_UNITS[change]
    changed(content)
    write_python2_pickle(tmp_path / "test" / "a.pkl", content)
    with pytest.raises(ValueError, match=rf"a\.pkl.*{sentence}"):
        _prepare(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: type(value).__name__)
def test_odd_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    content = three_dpw_content("a", num_images=3)
    used = {
        "sequence",
        "jointPositions",
        "texture_maps",
        "betas_clothed",
        "v_template_clothed",
    } ^ content.keys()
    for key in used:
        for changed in (value, [value], [value, value]):
            entries = content | {key: changed}
            monkeypatch.setattr("core.datasets.three_dpw.read_pickle", lambda path, entries=entries: entries)
            with pytest.raises(ValueError, match=r"a\.pkl"):
                read_three_dpw(tmp_path / "a.pkl", rate=60)


def test_missing_archives_are_missed(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no sequenceFiles/\{train,validation,test\}/\*\.pkl in .*virtualhumans"
    ):
        _prepare(tmp_path, tmp_path / "out")
    write_python2_pickle(tmp_path / "test" / "a.pkl", {"poses": []})
    with pytest.raises(ValueError, match=r"a\.pkl is no sequence file of 3DPW: it has no 'cam_intrinsics'"):
        _prepare(tmp_path, tmp_path / "out")


def test_motionberts_file_will_do(tmp_path: Path) -> None:
    split = motionbert_mesh_content(4, ("downtown_walk_00_0", "downtown_walk_00_1"), camera_name=None)
    write_python2_pickle(tmp_path / "mesh_det_pw3d.pkl", {"train": split, "test": split})
    report = _prepare(tmp_path, tmp_path / "out")
    assert report.counts["test person-frames"] == 8
    assert "The complete mesh_det_pw3d.pkl has 22732 train person-frames; 8 were found." in report.warnings
    sequence = read_mesh_sequence(tmp_path / "out/test/downtown_walk_00_1.npz")
    assert (sequence.dataset, sequence.image_size) == ("3dpw", (1920, 1080))
    assert sequence.translation_world_m is None
    assert sequence.frame_betas is None
    for option in ({"rate": 60}, {"keypoints": str(tmp_path)}):
        with pytest.raises(ValueError, match=r"MotionBERT's file of 3DPW.* leave rate and keypoints out"):
            _prepare(tmp_path, tmp_path / "other", **option)


@pytest.mark.slow
def test_several_processes_do_the_same(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_three_dpw(tmp_path, "test", name, num_images=3)
    one = _prepare(tmp_path, tmp_path / "one")
    several = _prepare(tmp_path, tmp_path / "several", workers=3)
    assert one == several
    for path in find_mesh_sequences(tmp_path / "one", "test"):
        assert (tmp_path / "several/test" / path.name).read_bytes() == path.read_bytes()
