"""Both layouts of Human3.6M, from files to sequences; what is read is what was written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from lifting_archives import (
    ACTIONS,
    BLOCK_LISTED,
    cameras,
    h36m_pickle,
    videopose3d,
    walking_m,
    write_h36m,
    write_videopose3d,
)

from core.datasets.human36m import BLOCK_LISTED_SEQUENCES, is_block_listed
from core.datasets.human36m_videopose3d import H36M_17_IN_32
from core.datasets.lifting_sequences import PreparedLifting
from core.datasets.preparation import PreparationReport, prepare


def _prepare(dataset: str, root: Path, **options: str) -> tuple[PreparedLifting, PreparationReport]:
    out = root / f"out_{'_'.join(options.values())}"
    report = prepare(dataset, root, out, on_progress=lambda done, total: None, workers=1, **options)
    return PreparedLifting(out), report


def test_motionberts_pickle(tmp_path: Path) -> None:
    content = h36m_pickle()
    write_h36m(tmp_path, content)
    store, report = _prepare("h36m", tmp_path)
    for split in ("train", "test"):
        sequences = store.sequences(split)
        assert [s.name for s in sequences] == list(dict.fromkeys(content[split]["source"]))
        for stored, key in (
            ("keypoints_px", "joint_2d"),
            ("joints", "joint3d_image"),
            ("mm_per_px", "2.5d_factor"),
            ("joints_25d_mm", "joints_2.5d_image"),
        ):
            if key in content[split]:
                joined = np.concatenate([getattr(s, stored) for s in sequences])
                np.testing.assert_array_equal(joined, content[split][key])
            else:
                assert all(getattr(s, stored) is None for s in sequences)
        assert all((s.confidence == np.float32(0.9)).all() for s in sequences)
        assert {(s.camera, s.image_size) for s in sequences} == {
            ("54138969", (1002, 1000)),
            ("55011271", (1000, 1000)),
        }
        assert all((s.joint_space, s.fps, s.K) == ("image_25d", 50.0, None) for s in sequences)
    assert [s.subject for s in store.sequences("test")] == ["S9", "S9", "S11", "S11"]
    assert [s.action for s in store.sequences("test")] == ["Greeting", "Greeting", "Directions", "Directions"]
    assert report.counts["test: frames"] == 240
    assert any("train has 240 frames; the complete file has 1,559,752" in w for w in report.warnings)
    assert any("test has 240 frames; the complete file has 566,920" in w for w in report.warnings)
    assert any("train has no sequence of S6, S7, S8" in w for w in report.warnings)


def test_block_listed_takes_are_kept_but_do_not_count(tmp_path: Path) -> None:
    write_h36m(tmp_path, h36m_pickle())
    store, report = _prepare("h36m", tmp_path)
    counted = {s.name: s.valid.all() for s in store.sequences("test")}
    assert [name for name, valid in counted.items() if not valid] == [
        f"{BLOCK_LISTED}_ca_01",
        f"{BLOCK_LISTED}_ca_02",
    ]
    assert report.counts["test: frames evaluated"] == 120
    assert len(BLOCK_LISTED_SEQUENCES) == 3
    assert is_block_listed("s_09_act_13_subact_01_ca_04")
    assert not is_block_listed("s_09_act_13_subact_02_ca_04")


def test_odd_but_usable_pickles(tmp_path: Path) -> None:
    content = h36m_pickle(20)
    content["train"]["confidence"] = content["train"]["confidence"][..., 0] * 1.2
    for key, column in content["train"].items():  # the first take is cut in two by the last
        rows = [*range(10), *range(60, 80), *range(10, 20)]
        content["train"][key] = [column[i] for i in rows] if isinstance(column, list) else column[rows]
    content["train"]["source"] = np.array(content["train"]["source"])
    write_h36m(tmp_path, content)
    store, report = _prepare("h36m", tmp_path)
    _, again = _prepare("h36m", tmp_path)
    assert (again.counts, again.warnings) == (report.counts, report.warnings)
    assert set(report.notes) < set(again.notes)
    names = [s.name for s in store.sequences("train")]
    assert names == ["s_01_act_02_cam_01", "s_05_act_03_cam_02", "s_01_act_02_cam_01#2"]
    assert any("several pieces" in warning for warning in report.warnings)
    assert all(s.confidence.max() <= 1 for s in store.sequences("train"))
    assert any("clipped" in note for note in report.notes)


def test_videopose3ds_npz_pair(tmp_path: Path) -> None:
    tables = videopose3d()
    write_videopose3d(tmp_path, tables)
    store, report = _prepare("h36m_videopose3d", tmp_path, keypoints="cpn_ft_h36m_dbb")
    rig = {camera.name: camera for camera in cameras()}
    for split, subject, number in (("train", "S1", 0), ("test", "S9", 1)):
        sequences = store.sequences(split)
        assert len(sequences) == 8
        for sequence in sequences:
            assert (sequence.subject, sequence.joint_space, sequence.fps) == (subject, "camera_mm", 50.0)
            camera = rig[sequence.camera]
            take = "Directions" if sequence.action == "Directions" else "Walking 1"
            world = walking_m(150, seed=10 * number + (take != "Directions"))
            # Recovered from the exact file beside: in the camera's frame, in mm, within a hundredth.
            np.testing.assert_allclose(sequence.joints, 1000 * camera.to_camera_m(world), atol=0.02)
            index = list(rig).index(sequence.camera)
            np.testing.assert_array_equal(sequence.keypoints_px, tables.detected[subject][take][index][:150])
            assert sequence.K is not None
            np.testing.assert_allclose(sequence.K, camera.K, atol=0.01)
            assert sequence.image_size == camera.image_size
            assert sequence.valid.all()
    assert sum("recovered with a median error" in note for note in report.notes) == 8
    assert any("has no S5" in warning for warning in report.warnings)
    assert any("S1 has 2 takes; the complete file has 30" in warning for warning in report.warnings)


def test_cameras_from_a_detectors_keypoints_alone(tmp_path: Path) -> None:
    tables = videopose3d(("S9",), num_takes=6)
    tables.detected["S9"]["Walking 1"][0] += 60  # as if the mocap did not fit this video
    write_videopose3d(tmp_path, tables)
    (tmp_path / "data_2d_h36m_gt.npz").unlink()
    store, report = _prepare("h36m_videopose3d", tmp_path)
    for sequence in store.sequences("test")[6:]:
        camera = next(camera for camera in cameras() if camera.name == sequence.camera)
        take = sequence.name.removeprefix("S9_").removesuffix(f"_{camera.name}").replace("_", " ")
        world = walking_m(150, seed=ACTIONS.index(take))
        truth = 1000 * camera.to_camera_m(world)
        error = (sequence.joints - sequence.joints[:, :1]) - (truth - truth[:, :1])
        assert np.linalg.norm(error, axis=-1).mean() < 10
    assert any("Walking 1, camera 54138969" in w and "may be misaligned" in w for w in report.warnings)
    _, again = _prepare("h36m_videopose3d", tmp_path)
    assert again.warnings == report.warnings


def test_detections_of_other_frames_are_refused_beside_an_exact_file(tmp_path: Path) -> None:
    tables = videopose3d(("S9",))
    for views in tables.detected["S9"].values():
        views[2] = views[2][::-1].copy()
    write_videopose3d(tmp_path, tables)
    with pytest.raises(
        ValueError, match=r"camera 58860488: .* a median error of \d+ px .*two files do not go together"
    ):
        _prepare("h36m_videopose3d", tmp_path, keypoints="cpn_ft_h36m_dbb")


def test_a_file_whose_cameras_cannot_be_recovered_is_refused(tmp_path: Path) -> None:
    tables = videopose3d(("S9",))
    for views in tables.exact["S9"].values():
        views[3] += np.random.default_rng(0).normal(0, 40, views[3].shape).astype(np.float32)
    write_videopose3d(tmp_path, tables, with_detected=False)
    with pytest.raises(
        ValueError, match=r"camera 60457274: the best camera leaves a median error of \d\d px"
    ):
        _prepare("h36m_videopose3d", tmp_path)


@pytest.mark.parametrize("cameras_exchanged", [range(4), [2]])
def test_detections_with_exchanged_legs_are_refused_beside_an_exact_file(
    tmp_path: Path, cameras_exchanged: Sequence[int]
) -> None:
    tables = videopose3d(("S9",))
    legs = [*range(1, 7)]
    for views in tables.detected["S9"].values():
        for camera in cameras_exchanged:
            views[camera][:, legs] = views[camera][:, legs[3:] + legs[:3]]
    write_videopose3d(tmp_path, tables)
    with pytest.raises(
        ValueError, match=r"S9, camera \d+: the 2D keypoints called \w+ lie about the 3D joint"
    ):
        _prepare("h36m_videopose3d", tmp_path, keypoints="cpn_ft_h36m_dbb")


def test_static_joints_are_dropped() -> None:
    dropped = {4, 5, 9, 10, 11, 16, *range(20, 25), *range(28, 32)}
    assert [joint for joint in range(32) if joint not in dropped] == list(H36M_17_IN_32)
