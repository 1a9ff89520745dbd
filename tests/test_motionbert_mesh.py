import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mesh_fixtures import motionbert_mesh_content
from pickle_fixtures import write_python2_pickle
from test_mesh_sequences import ODD_VALUES

from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.parameters import BodyParameters
from core.datasets.mesh_sequences import find_mesh_sequences, read_mesh_sequence
from core.datasets.preparation import PREPARERS, PreparationReport
from core.rotations import rotvec_to_rotmat

SOURCES = ("s_01_act_02_subact_01_ca_01", "s_01_act_02_subact_02_ca_01")


def _prepare(dataset: str, root: Path) -> PreparationReport:
    return PREPARERS[dataset](root, root / "out", on_progress=lambda done, of: None, workers=1)


def test_human36m(tmp_path: Path) -> None:
    split = motionbert_mesh_content(6, SOURCES, camera_name="54138969")
    write_python2_pickle(tmp_path / "mesh_det_h36m.pkl", {"train": split, "test": split})
    report = _prepare("h36m_mesh", tmp_path)
    assert report.counts == {
        f"{name} {kind}": count
        for name in ("train", "test")
        for kind, count in (("sequences", 2), ("person-frames", 12))
    }
    assert "The complete mesh_det_h36m.pkl has 312188 train person-frames; 12 were found." in report.warnings
    paths = find_mesh_sequences(tmp_path / "out", "train")
    assert tuple(path.stem for path in paths) == SOURCES
    second = read_mesh_sequence(paths[1])
    assert (second.dataset, second.gender, second.image_size, second.fps) == (
        "h36m_mesh",
        "neutral",
        (1002, 1000),
        10.0,
    )
    np.testing.assert_allclose(second.keypoints_px, split["joint_2d"][6:], rtol=1e-6)
    assert second.confidence.max() == 1.0
    # The root is in the camera's frame, and the body's joints are those of the file, in metres.
    root, translation = second.parameters_cam(torch.zeros(3))
    assert translation is None
    assert second.betas is not None
    assert second.poses_rotvec is not None
    parameters = BodyParameters(
        root,
        rotvec_to_rotmat(torch.from_numpy(second.poses_rotvec[:, 1:])),
        torch.from_numpy(second.betas)[None],
        torch.zeros(6, 3),
    )
    joints = load_open_body_regressor("h36m_17")(load_open_body()(parameters).vertices_m).numpy()
    assert second.joints_cam_m is not None
    np.testing.assert_allclose(
        joints - joints[:, :1], second.joints_cam_m - second.joints_cam_m[:, :1], atol=1e-5
    )


def test_is_not_read_again_when_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh_det_h36m.pkl"
    write_python2_pickle(path, {"test": motionbert_mesh_content(3, SOURCES, camera_name="54138969")})
    report = _prepare("h36m_mesh", tmp_path)
    monkeypatch.setattr("core.datasets.motionbert_mesh.read_pickle", lambda path: pytest.fail("read again"))
    assert _prepare("h36m_mesh", tmp_path) == report


def test_what_an_interruption_left_is_not_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "mesh_det_h36m.pkl"
    write_python2_pickle(source, {"test": motionbert_mesh_content(3, SOURCES, camera_name="54138969")})

    def interrupt(done: int, of: int) -> None:
        if done == 1:
            assert json.loads((tmp_path / "out/preparation.json").read_text())["finished"] is False
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PREPARERS["h36m_mesh"](tmp_path, tmp_path / "out", on_progress=interrupt, workers=1)
    assert (tmp_path / f"out/test/{SOURCES[0]}.npz").is_file()
    with pytest.raises(ValueError, match=r"run tools/prepare_data\.py again"):
        find_mesh_sequences(tmp_path / "out", "test")
    # Another file into the same folder: what the first one left there is not read with it.
    other = motionbert_mesh_content(3, ("s_09_act_02_subact_01_ca_01",), camera_name="54138969")
    write_python2_pickle(source, {"test": other})
    _prepare("h36m_mesh", tmp_path)
    (path,) = find_mesh_sequences(tmp_path / "out", "test")
    assert path.stem == "s_09_act_02_subact_01_ca_01"


def test_single_pictures_have_no_neighbours(tmp_path: Path) -> None:
    split = motionbert_mesh_content(2, tuple(f"image_{k}.jpg" for k in range(5)), camera_name=None)
    del split["joint_cam"]
    write_python2_pickle(tmp_path / "mesh_det_coco.pkl", {"train": split})
    _prepare("coco_mesh", tmp_path)
    (path,) = find_mesh_sequences(tmp_path / "out", "train")
    stills = read_mesh_sequence(path)
    assert (np.diff(stills.frame_ids) > 1).all()
    np.testing.assert_allclose(stills.frame_betas, split["smpl_shape"], rtol=1e-6)


def test_rows_of_one_source_by_another_camera_are_another_sequence(tmp_path: Path) -> None:
    split = motionbert_mesh_content(3, ("a", "a_row6", "a", "a_row6"), camera_name="54138969")
    split["camera_name"][4:6] = "55011271"
    write_python2_pickle(tmp_path / "mesh_det_h36m.pkl", {"test": split})
    _prepare("h36m_mesh", tmp_path)
    sequences = {
        path.stem: read_mesh_sequence(path) for path in find_mesh_sequences(tmp_path / "out", "test")
    }
    lengths = {"a": 3, "a_row6": 1, "a_row6_row4": 2, "a_row6_row6": 3, "a_row6_row9": 3}
    assert {name: sequence.num_frames for name, sequence in sequences.items()} == lengths
    assert sequences["a_row6_row4"].image_size == (1000, 1000)


def test_joints_alone_will_do(tmp_path: Path) -> None:
    split = motionbert_mesh_content(3, SOURCES[:1], camera_name="60457274")
    del split["smpl_pose"], split["smpl_shape"]
    write_python2_pickle(tmp_path / "mesh_det_h36m.pkl", {"train": split})
    _prepare("h36m_mesh", tmp_path)
    sequence = read_mesh_sequence(find_mesh_sequences(tmp_path / "out", "train")[0])
    assert sequence.poses_rotvec is None
    assert sequence.betas is None
    assert sequence.joints_cam_m is not None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"smpl_pose": None, "joint_cam": None}, "train lacks smpl_pose"),
        ({"smpl_shape": None}, "train lacks smpl_shape"),
        ({"source": None}, "train lacks 'source'"),
        ({"source": ["a"]}, "'source' has 1 rows, 'joint_2d' 3"),
        ({"camera_name": ["1"] * 3}, "row 0 has the camera '1'"),
        ({"smpl_pose": np.zeros((3, 70))}, r"'smpl_pose' is no array of numbers of shape \(N, 24, 3\)"),
        ({"confidence": np.full((3, 17), np.nan)}, "'confidence' holds values that are not finite"),
        ({"joint_cam": np.ones((3, 17, 3))}, "joint_cam: the 3D joints are"),
        ({"confidence": np.full((3, 17), -1.0)}, "most entries of 'confidence' are not above 0"),
        (
            {"smpl_pose": np.rad2deg(motionbert_mesh_content(3, SOURCES[:1], camera_name=None)["smpl_pose"])},
            "holds 'smpl_pose' in which .* radians are expected",
        ),
        (
            {"joint_2d": motionbert_mesh_content(3, SOURCES[:1], camera_name=None)["joint_2d"] / 1000}
            | {"joint_cam": None},
            "'joint_2d': the 2D keypoints of a person span .* pixels are expected",
        ),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    split: dict[str, Any] = motionbert_mesh_content(3, SOURCES[:1], camera_name="60457274") | changes
    split = {key: value for key, value in split.items() if value is not None}
    write_python2_pickle(tmp_path / "mesh_det_h36m.pkl", {"train": split})
    with pytest.raises(ValueError, match=problem):
        _prepare("h36m_mesh", tmp_path)


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: type(value).__name__)
def test_odd_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    split = motionbert_mesh_content(3, SOURCES[:1], camera_name="60457274")
    path = tmp_path / "mesh_det_h36m.pkl"
    path.write_bytes(b".")
    contents: list[Any] = [value, {"train": value}, *({"train": split | {key: value}} for key in split)]
    for content in contents:
        monkeypatch.setattr(
            "core.datasets.motionbert_mesh.read_pickle", lambda path, content=content: content
        )
        with pytest.raises(ValueError, match=r"mesh_det_h36m\.pkl"):
            _prepare("h36m_mesh", tmp_path)
